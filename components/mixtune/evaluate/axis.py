"""An axis: one scored dimension of one benchmark."""

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mixtune.artifacts.samples import AxisSummary, count_errors
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels
from mixtune.inference.parallel import Part


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One scored dimension: its parts, and how their rows become scores."""

    name: str
    form: BenchmarkForm[Any]
    parts: list[Part]
    labels: Labels = ()
    """Classes of a classification."""

    def summary(self, table: pa.Table) -> AxisSummary:
        """Return the axis as the samples' manifest has it."""
        return AxisSummary(
            form=self.form.name,
            metric=self.form.metric,
            scores=self.form.summarize(table, self.labels),
            num_items=len(table),
            errors=count_errors(table),
            labels=self.labels,
        )
