"""What a benchmark form is: how items become prompts, samples and scores, and what a comparison reads of them.

A form is one object, `FORM`, in one file of this folder; `registry.FORMS` finds it there. The samples' manifest names
an axis's form, so `compare` needs nothing else to know how the axis is decided.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixtune.artifacts.comparison import NON_INFERIORITY
from mixtune.artifacts.samples import AxisSummary, count_true
from mixtune.inference.engine import Tokenizer
from mixtune.inference.parallel import Part

Floats = npt.NDArray[np.float64]
Labels = tuple[str, ...]
Options = TypeVar("Options")

Score = Callable[[Floats], float]
"""A score as a function of the items' weights, (num_items,)."""
Column = Callable[[pa.Table], Floats]
"""One value of each item, (num_items,)."""


class ItemScores(NamedTuple):
    """An axis item by item, each (num_items,): any set scores `values.sum() / weights.sum()`; 0 leaves an item out."""

    values: Floats
    weights: Floats


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One score of two models that adds up over the same items."""

    metric: str
    base: ItemScores
    candidate: ItemScores
    higher_is_better: bool = True


@dataclass(frozen=True, kw_only=True)
class ResampledContrast:
    """One score of two models that is no sum over items, so that it is resampled."""

    metric: str
    base: Score
    candidate: Score
    draws: int = 2000
    normal_bounds: bool = False
    """Bounds from the resamples' standard error rather than their percentiles."""
    higher_is_better: bool = True


Contrasts = list[Contrast | ResampledContrast]


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """How well one label is given."""

    label: str
    precision: float
    recall: float
    f1: float
    records: int


class BenchmarkForm(Protocol[Options]):
    """A kind of benchmark. A subclass gives the first three and overrides of the rest what differs."""

    name: str
    """As `form` in `benchmarks` and in the samples' manifest."""
    options: type[Options]
    """A dataclass: what `plan` needs to know; of a benchmark, the user's options."""
    metric: str
    """The score that the verdict is about, a key of `summarize`."""
    other_metrics: tuple[str, ...] = ()
    """Keys of `summarize` that a user may have the verdict be about instead, as `metric`; `contrasts` has them too."""
    means: tuple[tuple[str, Column], ...] = ()
    """Scores that are means over items, `metric` first, each with what is read of the samples."""
    default_limit: float = 0.0
    """Allowed loss of `metric` (of its relative change, if `relative`) where the user sets none."""
    question: str = NON_INFERIORITY
    """Or `SUPERIORITY`: is the loss smaller than the allowed one, or is there a gain?"""
    relative: bool = False
    """Changes are shares of the base's score."""
    higher_is_better: bool = True
    is_benchmark: bool = True
    """Users name it in `benchmarks`, and no item of it may be in the training data."""

    has_items: bool = True
    """Its parts hold what is asked, item by item; a task that another library runs whole has none."""

    def plan(self, axis: str, options: Options, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the items, `limit` at most (0: all), in parts that are scored and written at once."""

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return all scores of one model; `labels` are the classes of a classification, else empty."""
        return {name: float(values(table).mean()) for name, values in self.means}

    def item_scores(self, table: pa.Table) -> ItemScores:
        """Return what each item adds to `metric`, or to what stands for it in a subgroup."""
        return mean_scores(self.means[0][1](table) if self.means else correct(table))

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> Contrasts:
        """Return the scores that are compared, `metric` first; both tables hold the same items in the same order."""
        if not self.means:
            return [Contrast(metric=self.metric, base=self.item_scores(base), candidate=self.item_scores(candidate))]
        return [mean_contrast(name, values(base), values(candidate)) for name, values in self.means]

    def searched_texts(self, table: pa.Table) -> list[str]:
        """Return what of each item is searched for in the training data."""
        return [str(text) for text in table["text"].to_pylist()]

    def reference(self, gold: str) -> str:
        """Return the reference for a judge of an item's answers; empty: none."""
        return gold

    def confusion(self, table: pa.Table, labels: Labels) -> list[list[int]]:
        """Return how often each label (row) was given each label (column); empty without a table."""
        return []

    def scores_per_class(self, table: pa.Table, labels: Labels) -> list[ClassScores]:
        """Return the scores of every label; empty without labels."""
        return []


AnyForm: TypeAlias = BenchmarkForm[Any]
"""A form whose options are its own business."""


@dataclass(frozen=True)
class Axis:
    """One scored dimension of one benchmark: its parts, and how their rows become scores."""

    name: str
    form: AnyForm
    parts: list[Part]
    labels: Labels = ()
    """Classes of a classification."""
    max_new_tokens: int = 0
    """Tokens of a generated answer at most; 0: nothing is generated."""
    left_out: int = 0
    """Items without a label."""

    def summary(self, table: pa.Table) -> AxisSummary:
        """Return the axis as the samples' manifest has it."""
        return AxisSummary(
            form=self.form.name,
            metric=self.form.metric,
            scores=self.form.summarize(table, self.labels),
            num_items=len(table),
            errors=count_true(table, "error"),
            labels=self.labels,
            max_new_tokens=self.max_new_tokens,
            truncated=count_true(table, "truncated"),
            thoughts=count_true(table, "thought"),
            unfinished=count_true(table, "unfinished"),
            left_out=self.left_out,
        )


def correct(table: pa.Table) -> Floats:
    """Return which items are right, (num_items,)."""
    return np.array(table["correct"].to_pylist(), dtype=float)


def gold_probability(table: pa.Table) -> Floats:
    """Return the share of the right choices among all by probability, (num_items,)."""
    return np.asarray(np.exp(-table["nll"].to_numpy()))


def measure_column(table: pa.Table, name: str) -> Floats:
    """Return one of the samples' further measures, (num_items,)."""
    return np.array([dict(row)[name] for row in table["measures"].to_pylist()], dtype=float)


def mean_measures(table: pa.Table) -> dict[str, float]:
    """Return the mean of each of the samples' further measures over the items that have it, by name."""
    rows = [dict(row) for row in table["measures"].to_pylist()]
    names = sorted({name for row in rows for name in row})
    return {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}


def mean_scores(values: Floats) -> ItemScores:
    """Return items that all weigh the same, so that their score is a mean."""
    return ItemScores(values, np.ones(len(values)))


def mean_contrast(metric: str, base: Floats, candidate: Floats) -> Contrast:
    """Return the contrast of a mean over items; values are (num_items,)."""
    return Contrast(metric=metric, base=mean_scores(base), candidate=mean_scores(candidate))


def measure_contrast(
    metric: str, base: pa.Table, candidate: pa.Table, *, column: str = "", scale: float = 1.0
) -> Contrast:
    """Return the contrast of one of the samples' further measures, named as the metric or `column`, over `scale`."""
    values = [measure_column(table, column or metric) / scale for table in (base, candidate)]
    return mean_contrast(metric, *values)
