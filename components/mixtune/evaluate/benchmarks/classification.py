"""Classification on the customer's held-out records: which label the model gives, and how sure it is."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from mixtune.artifacts.comparison import SUPERIORITY
from mixtune.artifacts.samples import Sample
from mixtune.evaluate.answers import answer_records, choose, latency_scores, record_columns
from mixtune.evaluate.benchmarks.form import (
    BenchmarkForm,
    ClassScores,
    Contrast,
    Contrasts,
    Floats,
    Labels,
    ResampledContrast,
    correct,
)
from mixtune.evaluate.scoring.labels import LabelOptions, LabelSet
from mixtune.evaluate.scoring.weighted_scores import auc_score, f1_score
from mixtune.inference.engine import Engine, Request, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import encode, render_record
from mixtune.records import Record

RECORDS_PER_PART = 256
CALIBRATION_BINS = 10
MAX_CONFUSION = 100
"""Labels at most for which a confusion table is kept."""


class Classification(BenchmarkForm[LabelOptions]):
    """Records with one label each."""

    name, options, metric = "classification", LabelOptions, "f1_macro"
    question, is_benchmark = SUPERIORITY, False

    def plan(self, axis: str, options: LabelOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the records in parts."""
        score = partial(rank_labels, axis, tokenizer, options.labels)
        if options.max_new_tokens:
            score = partial(generate_labels, axis, tokenizer, options.labels, options.max_new_tokens)
        return make_parts(axis, options.records, RECORDS_PER_PART, score, new_tokens=options.max_new_tokens)

    def read_labels(self, column: pa.ChunkedArray) -> list[list[str]]:
        """Return the labels of each cell of `gold` or `prediction`; none for an invalid answer."""
        return [[text] if text else [] for text in column.to_pylist()]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return accuracy, F1 and its kin, AUC and calibration, as scikit-learn defines them."""
        from sklearn import metrics as sk

        gold, predicted = table["gold"].to_pylist(), table["prediction"].to_pylist()
        scores = {"accuracy": float(correct(table).mean())}
        occurring = sorted({*gold, *predicted} - {""})
        recall = sk.recall_score(gold, predicted, labels=sorted(set(gold)), average=None, zero_division=0)
        scores["balanced_accuracy"] = float(np.mean(recall))
        for average in ("macro", "micro", "weighted"):
            f1 = sk.f1_score(gold, predicted, labels=occurring, average=average, zero_division=0)
            scores[f"f1_{average}"] = float(f1)
        return {**scores, **_probability_scores(table, labels), **answer_scores(table)}

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> Contrasts:
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
        from sklearn import metrics as sk

        if len(labels) > MAX_CONFUSION:
            return []
        counts = sk.confusion_matrix(table["gold"].to_pylist(), table["prediction"].to_pylist(), labels=list(labels))
        return [[int(count) for count in row] for row in counts]

    def scores_per_class(self, table: pa.Table, labels: Labels) -> list[ClassScores]:
        """Return the scores of every label."""
        from sklearn import metrics as sk

        gold, predicted = (label_indicators(self.read_labels(table[name]), labels) for name in ("gold", "prediction"))
        scores = sk.precision_recall_fscore_support(gold, predicted, average=None, zero_division=0)
        return [
            ClassScores(label=label, precision=float(p), recall=float(r), f1=float(f), records=int(n))
            for label, p, r, f, n in zip(labels, *scores, strict=True)
        ]


FORM = Classification()


def rank_labels(
    axis: str, tokenizer: Tokenizer, labels: LabelSet, records: Sequence[Record], engine: Engine
) -> list[Sample]:
    """Rank the labels of records by the log-probability of their answers."""
    prompts = [render_record(tokenizer, record).prompt for record in records]
    requests = [label_request(tokenizer, labels, record) for record in records]
    return [
        Sample(
            axis=axis,
            subject=record["label"],
            **record_columns(record),
            **choose(prompt, scores, labels.labels, labels.labels.index(record["label"])),
        )
        for record, prompt, scores in zip(records, prompts, engine.score(requests), strict=True)
    ]


def label_request(tokenizer: Tokenizer, labels: LabelSet, record: Record) -> Request:
    """Return the labels' answers as the continuations of a record's prompt."""
    rendered = [render_record(tokenizer, record, answer) for answer in labels.answers]
    context = encode(tokenizer, rendered[0].prompt)
    tokens = [encode(tokenizer, item.prompt + item.answer) for item in rendered]
    return Request(context=context, continuations=tuple(ids[len(context) :] for ids in tokens))


def generate_labels(
    axis: str, tokenizer: Tokenizer, labels: LabelSet, max_new_tokens: int, records: Sequence[Record], engine: Engine
) -> list[Sample]:
    """Read the labels of records from generated answers."""
    samples = []
    answers = answer_records(engine, tokenizer, records, max_new_tokens)
    for record, answer in zip(records, answers, strict=True):
        gold, predicted = labels.gold(record), labels.parse(answer["response"])
        samples.append(
            Sample(
                axis=axis,
                subject=record["label"],
                **record_columns(record),
                **answer,
                prediction=labels.join(predicted),
                gold=labels.join(gold),
                correct=float(predicted == gold),
                measures={"invalid": float(not predicted)},
            )
        )
    return samples


def label_indicators(items: list[list[str]], labels: Labels) -> Floats:
    """Return which labels each item has, (items, labels)."""
    from sklearn.preprocessing import MultiLabelBinarizer

    return np.asarray(MultiLabelBinarizer(classes=list(labels)).fit([]).transform(items))


def probabilities(table: pa.Table) -> Floats:
    """Return each label's share, (items, labels)."""
    logprobs = np.array(table["choice_logprobs"].to_pylist(), dtype=float)
    shifted = np.exp(logprobs - logprobs.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


def calibration_error(confidence: Floats, right: Floats) -> float:
    """Return the expected calibration error: mean gap of confidence and accuracy over equal bins of confidence."""
    place = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gaps = [
        (place == number).mean() * abs(confidence[place == number].mean() - right[place == number].mean())
        for number in np.unique(place)
    ]
    return float(sum(gaps))


def _probability_scores(table: pa.Table, labels: Labels) -> dict[str, float]:
    if not len(table["choice_logprobs"][0].as_py()):
        return {}
    from sklearn.metrics import roc_auc_score

    shares = probabilities(table)
    scores = {"calibration_error": calibration_error(shares.max(axis=1), correct(table))}
    gold = np.array(table["gold"].to_pylist())
    areas = [
        float(roc_auc_score(gold == label, shares[:, index]))
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
