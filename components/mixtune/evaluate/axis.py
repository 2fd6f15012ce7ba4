"""An axis: one scored dimension of one benchmark."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixtune.artifacts.samples import Part
from mixtune.evaluate.benchmarks.labels import LabelSet


def count_errors(table: pa.Table) -> int:
    """Items that could not be scored; they count as wrong."""
    return sum(map(bool, table["error"].to_pylist()))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One scored dimension: its parts, and how their rows become scores."""

    name: str
    form: str
    """What its rows are: mmlu, ifeval, nll, classification, multilabel, generation or lm_eval."""
    metric: str
    """The score that the verdict is about."""
    parts: list[Part]
    summarize: Callable[[pa.Table], dict[str, float]]
    labels: LabelSet | None = None

    def summary(self, table: pa.Table) -> dict[str, Any]:
        """The axis as the samples' manifest has it."""
        scores = self.summarize(table)
        return {
            "form": self.form,
            "metric": self.metric,
            "score": scores[self.metric],
            "scores": scores,
            "num_items": len(table),
            "errors": count_errors(table),
            "labels": list(self.labels.labels) if self.labels else [],
        }
