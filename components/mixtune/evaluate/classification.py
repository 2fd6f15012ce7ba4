"""Classification on the customer's held-out records: which label the model gives, and how sure it is."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn import metrics as sk

from mixtune.errors import DataError
from mixtune.evaluate.engine import Request
from mixtune.evaluate.samples import Part, Sample, chunks, prompt_hash
from mixtune.evaluate.tokens import encode, render_record
from mixtune.records import Record, prompt_and_answer

RECORDS_PER_PART = 256
CALIBRATION_BINS = 10


@dataclass(frozen=True, kw_only=True)
class LabelSet:
    """The labels of a customer's pool and the answer that says each."""

    labels: tuple[str, ...]
    answers: tuple[str, ...]
    """The assistant's text for a label, in the order of `labels`."""


def find_labels(records: list[Record]) -> LabelSet | None:
    """The labels of records and how an answer says them; None where there is no one answer per label."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        if "label" in record:
            answers[record["label"]][prompt_and_answer(record)[1]["content"]] += 1
    if len(answers) < 2 or any(len(found) > 1 for found in answers.values()):
        return None
    labels = tuple(sorted(answers))
    return LabelSet(labels=labels, answers=tuple(next(iter(answers[label])) for label in labels))


def plan_parts(axis: str, records: list[Record], labels: LabelSet, tokenizer: Any) -> list[Part]:
    """The records as parts of so many."""
    return [
        Part(axis=axis, name=f"{number:05}", num_items=len(part), score=Scorer(axis, tuple(part), labels, tokenizer))
        for number, part in enumerate(chunks(records, RECORDS_PER_PART))
    ]


@dataclass(frozen=True)
class Scorer:
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
                    item_id=record["id"],
                    cluster=record.get("group", ""),
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


def summarize(table: pa.Table, labels: tuple[str, ...]) -> dict[str, float]:
    """Accuracy, F1 and its kin, AUC and calibration, as scikit-learn defines them.

    Raises:
        DataError: No row.
    """
    if not len(table):
        raise DataError("the customer's test split has no labelled record; give a test file or a test_ratio")
    gold, predicted = table["gold"].to_pylist(), table["prediction"].to_pylist()
    seen = sorted(set(gold) | (set(predicted) & set(labels)))
    scores = {
        "accuracy": float(sk.accuracy_score(gold, predicted)),
        "balanced_accuracy": float(np.mean(sk.recall_score(gold, predicted, labels=sorted(set(gold)), average=None))),
    }
    for average in ("macro", "micro", "weighted"):
        scores[f"f1_{average}"] = float(sk.f1_score(gold, predicted, labels=seen, average=average, zero_division=0))
    return {**scores, **_probability_scores(table, labels)}


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
    """How often each label (row) was given each label (column)."""
    found = sk.confusion_matrix(table["gold"].to_pylist(), table["prediction"].to_pylist(), labels=list(labels))
    return [[int(value) for value in row] for row in found]


def _probability_scores(table: pa.Table, labels: tuple[str, ...]) -> dict[str, float]:
    shares = probabilities(table)
    correct = np.array(table["correct"].to_pylist(), dtype=float)
    scores = {"calibration_error": calibration_error(shares.max(axis=1), correct)}
    gold = np.array(table["gold"].to_pylist())
    areas = []
    for index, label in enumerate(labels):
        hits = gold == label
        if 0 < hits.sum() < len(hits):
            areas.append(float(sk.roc_auc_score(hits, shares[:, index])))
    return {**scores, "auc_macro": float(np.mean(areas))} if areas else scores
