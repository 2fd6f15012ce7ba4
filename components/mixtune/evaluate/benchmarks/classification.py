"""Classification on the customer's held-out records: which label the model gives, and how sure it is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn import metrics as sk

from mixtune.artifacts.samples import Part, Sample, chunks, prompt_hash
from mixtune.evaluate.answers import answer_records, describe, latency_scores
from mixtune.evaluate.benchmarks.form import (
    SUPERIORITY,
    BenchmarkForm,
    Contrast,
    Floats,
    Labels,
    ResampledContrast,
)
from mixtune.evaluate.benchmarks.labels import LabelSet
from mixtune.evaluate.benchmarks.weighted_scores import auc_score, f1_score
from mixtune.inference.engine import Request
from mixtune.inference.prompts import encode, render_record
from mixtune.records import Record

RECORDS_PER_PART = 256
CALIBRATION_BINS = 10
MAX_CONFUSION = 100
"""Labels at most for which a confusion table is kept."""


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Records whose labels the model is to give."""

    records: tuple[Record, ...]
    labels: LabelSet
    max_new_tokens: int
    """Tokens of a generated answer at most; 0: the labels are ranked by log-probability."""


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
                    prediction=self.labels.join(said),
                    gold=self.labels.join(gold),
                    correct=float(said == gold),
                    measures={"invalid": float(not said)},
                )
            )
        return samples


class Classification(BenchmarkForm[LabelOptions]):
    """Records with one label each."""

    name, options, metric = "classification", LabelOptions, "f1_macro"
    question, is_benchmark = SUPERIORITY, False

    def plan(self, axis: str, options: LabelOptions, tokenizer: Any, limit: int) -> list[Part]:
        """Return the records in parts of 256."""
        parts = []
        for number, part in enumerate(chunks(options.records, RECORDS_PER_PART)):
            score: Any = LogprobScorer(axis, tuple(part), options.labels, tokenizer)
            if options.max_new_tokens:
                score = GenerationScorer(axis, tuple(part), options.labels, tokenizer, options.max_new_tokens)
            parts.append(Part(axis=axis, name=f"{number:05}", num_items=len(part), score=score))
        return parts

    def read_labels(self, column: pa.ChunkedArray) -> list[list[str]]:
        """Return the labels of each cell of `gold` or `prediction`; none for an invalid answer."""
        return [[text] if text else [] for text in column.to_pylist()]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return accuracy, F1 and its kin, AUC and calibration, as scikit-learn defines them."""
        gold, predicted = table["gold"].to_pylist(), table["prediction"].to_pylist()
        scores = {"accuracy": float(np.mean(table["correct"].to_pylist()))}
        occurring = sorted({*gold, *predicted} - {""})
        recall = sk.recall_score(gold, predicted, labels=sorted(set(gold)), average=None, zero_division=0)
        scores["balanced_accuracy"] = float(np.mean(recall))
        for average in ("macro", "micro", "weighted"):
            f1 = sk.f1_score(gold, predicted, labels=occurring, average=average, zero_division=0)
            scores[f"f1_{average}"] = float(f1)
        return {**scores, **_probability_scores(table, labels), **answer_scores(table)}

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> list[Contrast | ResampledContrast]:
        """Return macro F1, accuracy and, of ranked labels, macro AUC."""
        gold = self.read_labels(base["gold"])
        f1_scores = [f1_score(gold, self.read_labels(table["prediction"]), labels) for table in (base, candidate)]
        accuracy = Contrast(metric="accuracy", base=self.item_scores(base), candidate=self.item_scores(candidate))
        f1 = ResampledContrast(metric="f1_macro", base=f1_scores[0], candidate=f1_scores[1])
        if not len(base["choice_logprobs"][0].as_py()):
            return [f1, accuracy]
        names = base["gold"].to_pylist()
        areas = [auc_score(names, probabilities(table), labels) for table in (base, candidate)]
        # AUC is dear with many labels: 20 to 500 resamples, too few for percentiles
        draws = int(np.clip(4e8 / max(1, len(gold) * len(labels)), 20, 500))
        auc = ResampledContrast(metric="auc_macro", base=areas[0], candidate=areas[1], draws=draws, normal_bounds=True)
        return [f1, accuracy, auc]

    def confusion(self, table: pa.Table, labels: Labels) -> list[list[int]]:
        """Return how often each label (row) was given each label (column); invalid answers are in no column."""
        if len(labels) > MAX_CONFUSION:
            return []
        counts = sk.confusion_matrix(table["gold"].to_pylist(), table["prediction"].to_pylist(), labels=list(labels))
        return [[int(count) for count in row] for row in counts]

    def scores_per_class(self, table: pa.Table, labels: Labels) -> list[dict[str, Any]]:
        """Return `label`, `precision`, `recall`, `f1` and number of `records` of every label."""
        gold, predicted = (label_indicators(self.read_labels(table[name]), labels) for name in ("gold", "prediction"))
        precision, recall, f1, count = sk.precision_recall_fscore_support(
            gold, predicted, average=None, zero_division=0
        )
        return [
            {"label": label, "precision": float(p), "recall": float(r), "f1": float(f), "records": int(n)}
            for label, p, r, f, n in zip(labels, precision, recall, f1, count, strict=True)
        ]


FORM = Classification()


def label_indicators(items: list[list[str]], labels: Labels) -> Floats:
    """Return which labels each item has, (items, labels)."""
    from sklearn.preprocessing import MultiLabelBinarizer

    return np.asarray(MultiLabelBinarizer(classes=list(labels)).fit([]).transform(items))


def probabilities(table: pa.Table) -> Floats:
    """Return each label's share, (items, labels)."""
    logprobs = np.array(table["choice_logprobs"].to_pylist(), dtype=float)
    shifted = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def calibration_error(confidence: Floats, correct: Floats, bins: int = CALIBRATION_BINS) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy over equal bins of confidence."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = [
        (place == number).mean() * abs(confidence[place == number].mean() - correct[place == number].mean())
        for number in np.unique(place)
    ]
    return float(sum(gaps))


def _probability_scores(table: pa.Table, labels: Labels) -> dict[str, float]:
    if not len(table["choice_logprobs"][0].as_py()):
        return {}
    shares = probabilities(table)
    correct = np.array(table["correct"].to_pylist(), dtype=float)
    scores = {"calibration_error": calibration_error(shares.max(axis=1), correct)}
    gold = np.array(table["gold"].to_pylist())
    areas = [
        float(sk.roc_auc_score(gold == label, shares[:, index]))
        for index, label in enumerate(labels)
        if 0 < (gold == label).sum() < len(gold)
    ]
    return {**scores, "auc_macro": float(np.mean(areas))} if areas else scores


def answer_scores(table: pa.Table) -> dict[str, float]:
    """Return how many generated answers say no label, and how long they took; nothing for ranked labels."""
    measures = [dict(row) for row in table["measures"].to_pylist()]
    if not measures or "invalid" not in measures[0]:
        return {}
    return {"invalid_ratio": float(np.mean([row["invalid"] for row in measures])), **latency_scores(table)}
