"""Records that have several labels each: which ones the model's answer says, as sets."""

import json

import pyarrow as pa

from mixtune.evaluate.benchmarks.classification import FORM as SINGLE
from mixtune.evaluate.benchmarks.classification import Classification, answer_scores, label_indicators
from mixtune.evaluate.benchmarks.form import Labels, correct


class Multilabel(Classification):
    """As a classification, by sets of labels: extra labels cost, and their order does not matter."""

    name = "multilabel"

    def read_labels(self, column: pa.ChunkedArray) -> list[list[str]]:
        """Return the labels of each cell of `gold` or `prediction`, a JSON list."""
        return [json.loads(text) for text in column.to_pylist()]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return accuracy of whole sets, and F1."""
        from sklearn.metrics import f1_score

        gold, predicted = (self.read_labels(table[name]) for name in ("gold", "prediction"))
        occurring = tuple(sorted({label for item in gold + predicted for label in item}))
        indicators = [label_indicators(items, occurring) for items in (gold, predicted)]
        scores = {"accuracy": float(correct(table).mean())}
        for average in ("macro", "micro", "weighted", "samples"):
            scores[f"f1_{average}"] = float(f1_score(*indicators, average=average, zero_division=0))
        return {**scores, **answer_scores(table)}

    def confusion(self, table: pa.Table, labels: Labels) -> list[list[int]]:
        """Return nothing: sets of labels have no confusion table."""
        return []


FORM = Multilabel()


def label_form(separator: str) -> Classification:
    """Return the form of records with labels: one each without a separator, else several."""
    return FORM if separator else SINGLE
