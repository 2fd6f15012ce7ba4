"""Classification on the customer's held-out records: which label the model gives, and how sure it is."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn import metrics as sk
from sklearn.preprocessing import MultiLabelBinarizer

from mixtune.artifacts.samples import Part, Sample, chunks, prompt_hash
from mixtune.evaluate.answers import answer_records, describe
from mixtune.evaluate.benchmarks.labels import LabelSet
from mixtune.inference.engine import Request
from mixtune.inference.prompts import encode, render_record
from mixtune.records import Record

RECORDS_PER_PART = 256
CALIBRATION_BINS = 10
MAX_CONFUSION = 100
"""Labels at most for which a confusion table is kept."""


@dataclass(frozen=True)
class LogprobScorer:
    """Ranks the labels of one part's records by the log-probability of their answers."""

    axis: str
    records: tuple[Record, ...]
    labels: LabelSet
    tokenizer: Any

    def __call__(self, engine: Any) -> list[Sample]:
        """The samples of the part."""
        rendered = [render_record(self.tokenizer, record) for record in self.records]
        requests = [self._request(record) for record in self.records]
        samples = []
        for record, item, scores in zip(self.records, rendered, engine.score(requests), strict=True):
            gold = self.labels.labels.index(record["label"])
            logprobs = np.array(scores.logprobs)
            best = int(logprobs.argmax())
            samples.append(
                Sample(
                    axis=self.axis,
                    subject=record["label"],
                    **describe(record),
                    prompt_hash=prompt_hash(item.prompt),
                    prediction=self.labels.labels[best],
                    gold=record["label"],
                    correct=float(best == gold),
                    choice_logprobs=scores.logprobs,
                    nll=float(np.logaddexp.reduce(logprobs) - logprobs[gold]),
                    num_tokens=1,
                    latency_seconds=scores.latency_seconds,
                    truncated=scores.truncated,
                )
            )
        return samples

    def _request(self, record: Record) -> Request:
        rendered = [render_record(self.tokenizer, record, answer) for answer in self.labels.answers]
        context = encode(self.tokenizer, rendered[0].prompt)
        whole = [encode(self.tokenizer, item.prompt + item.answer) for item in rendered]
        return Request(context=context, continuations=tuple(ids[len(context) :] for ids in whole))


@dataclass(frozen=True)
class GenerationScorer:
    """Reads the labels of one part's records from generated answers."""

    axis: str
    records: tuple[Record, ...]
    labels: LabelSet
    tokenizer: Any
    max_new_tokens: int

    def __call__(self, engine: Any) -> list[Sample]:
        """The samples of the part."""
        samples = []
        answers = answer_records(engine, self.tokenizer, self.records, self.max_new_tokens)
        for record, answer in zip(self.records, answers, strict=True):
            gold, said = self.labels.gold(record), self.labels.parse(answer["response"])
            samples.append(
                Sample(
                    axis=self.axis,
                    subject=record["label"],
                    **answer,
                    prediction=join_labels(said, self.labels),
                    gold=join_labels(gold, self.labels),
                    correct=float(said == gold),
                    measures={"invalid": float(not said)},
                )
            )
        return samples


def plan_parts(axis: str, records: list[Record], labels: LabelSet, tokenizer: Any, max_new_tokens: int) -> list[Part]:
    """The records as parts of so many.

    Args:
        axis: The axis's name.
        records: Records with a label.
        labels: Their labels.
        tokenizer: The model's.
        max_new_tokens: Tokens of a generated answer at most; 0: rank the labels by log-probability.
    """
    parts = []
    for number, part in enumerate(chunks(records, RECORDS_PER_PART)):
        score: Any = LogprobScorer(axis, tuple(part), labels, tokenizer)
        if max_new_tokens:
            score = GenerationScorer(axis, tuple(part), labels, tokenizer, max_new_tokens)
        parts.append(Part(axis=axis, name=f"{number:05}", num_items=len(part), score=score))
    return parts


def join_labels(labels: list[str], known: LabelSet) -> str:
    """Labels in a sample's column: the one label, or a JSON list where records have several."""
    return json.dumps(labels) if known.separator else (labels[0] if labels else "")


def read_labels(texts: list[str], several: bool) -> list[list[str]]:
    """The labels of a sample's column."""
    return [json.loads(text) if several else [text] if text else [] for text in texts]


def summarize(table: pa.Table, labels: LabelSet) -> dict[str, float]:
    """Accuracy, F1 and its kin, AUC and calibration, as scikit-learn defines them."""
    gold, predicted = table["gold"].to_pylist(), table["prediction"].to_pylist()
    scores = {"accuracy": float(np.mean(table["correct"].to_pylist()))}
    if labels.separator:
        return {**scores, **_several_scores(gold, predicted), **_answer_scores(table)}
    seen = sorted({*gold, *predicted} - {""})
    recall = sk.recall_score(gold, predicted, labels=sorted(set(gold)), average=None, zero_division=0)
    scores["balanced_accuracy"] = float(np.mean(recall))
    for average in ("macro", "micro", "weighted"):
        scores[f"f1_{average}"] = float(sk.f1_score(gold, predicted, labels=seen, average=average, zero_division=0))
    return {**scores, **_probability_scores(table, labels), **_answer_scores(table)}


def scores_per_class(table: pa.Table, labels: LabelSet) -> list[dict[str, Any]]:
    """Precision, recall, F1 and number of records of every label."""
    several = bool(labels.separator)
    known = MultiLabelBinarizer(classes=list(labels.labels)).fit([])
    gold, said = (known.transform(read_labels(table[name].to_pylist(), several)) for name in ("gold", "prediction"))
    precision, recall, f1, count = sk.precision_recall_fscore_support(gold, said, average=None, zero_division=0)
    return [
        {"label": label, "precision": float(p), "recall": float(r), "f1": float(f), "records": int(n)}
        for label, p, r, f, n in zip(labels.labels, precision, recall, f1, count, strict=True)
    ]


def probabilities(table: pa.Table) -> np.ndarray:
    """Each label's share, (items, labels)."""
    logprobs = np.array(table["choice_logprobs"].to_pylist(), dtype=float)
    shifted = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error: mean gap between confidence and accuracy over equal bins of confidence."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        (place == number).mean() * abs(confidence[place == number].mean() - correct[place == number].mean())
        for number in np.unique(place)
    ]
    return float(sum(gaps))


def confusion(table: pa.Table, labels: tuple[str, ...]) -> list[list[int]]:
    """How often each label (row) was given each label (column); invalid answers are in no column."""
    found = sk.confusion_matrix(table["gold"].to_pylist(), table["prediction"].to_pylist(), labels=list(labels))
    return [[int(value) for value in row] for row in found]


def _several_scores(gold: list[str], predicted: list[str]) -> dict[str, float]:
    """F1 by sets of labels: extra labels cost, and their order does not matter."""
    sets = [read_labels(column, True) for column in (gold, predicted)]
    known = MultiLabelBinarizer().fit([*sets[0], *sets[1]])
    wanted, said = (known.transform(column) for column in sets)
    return {
        f"f1_{average}": float(sk.f1_score(wanted, said, average=average, zero_division=0))
        for average in ("macro", "micro", "weighted", "samples")
    }


def _probability_scores(table: pa.Table, labels: LabelSet) -> dict[str, float]:
    if not len(table["choice_logprobs"][0].as_py()):
        return {}
    shares = probabilities(table)
    correct = np.array(table["correct"].to_pylist(), dtype=float)
    scores = {"calibration_error": calibration_error(shares.max(axis=1), correct)}
    gold = np.array(table["gold"].to_pylist())
    areas = [
        float(sk.roc_auc_score(gold == label, shares[:, index]))
        for index, label in enumerate(labels.labels)
        if 0 < (gold == label).sum() < len(gold)
    ]
    return {**scores, "auc_macro": float(np.mean(areas))} if areas else scores


def _answer_scores(table: pa.Table) -> dict[str, float]:
    """What only generated answers have: how many say no label, and how long they took."""
    measures = [dict(row) for row in table["measures"].to_pylist()]
    if not measures or "invalid" not in measures[0]:
        return {}
    return {"invalid_ratio": float(np.mean([row["invalid"] for row in measures])), **latency_scores(table)}


def latency_scores(table: pa.Table) -> dict[str, float]:
    """Latency of generated answers at the batch size that was used, and the tokens of an answer per second."""
    latency, tokens = table["latency_seconds"].to_numpy(), table["num_tokens"].to_numpy()
    return {
        "latency_p50_seconds": float(np.quantile(latency, 0.5)),
        "latency_p95_seconds": float(np.quantile(latency, 0.95)),
        "tokens_per_second": float(tokens.sum() / latency.sum()) if latency.sum() > 0 else 0.0,
        "truncated_ratio": float(np.mean(table["truncated"].to_pylist())),
    }
