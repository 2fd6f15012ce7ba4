"""The verdict on an axis and on a candidate, and the advice that goes with it."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from mixtune.artifacts.samples import count_errors
from mixtune.compare import paired_stats
from mixtune.compare.measures import Measure, measure_axis
from mixtune.compare.subgroups import Slice, find_flips, find_slices
from mixtune.errors import DataError
from mixtune.evaluate.benchmarks.form import SUPERIORITY, BenchmarkForm, Labels
from mixtune.evaluate.benchmarks.registry import FORMS
from mixtune.results import FAIL, PASS


@dataclass(frozen=True, kw_only=True)
class AxisVerdict:
    """What was found on one axis."""

    axis: str
    form: str
    metric: str
    question: str
    """`non-inferiority` (a general axis) or `superiority` (the customer's)."""
    higher_is_better: bool
    relative: bool
    """The difference is relative to the base's score."""
    base: float
    candidate: float
    difference: float
    """Candidate minus base; relative: the change as a share of the base's."""
    lower: float
    upper: float
    """One-sided 95 % bounds of the difference."""
    limit: float
    """The allowed loss, a positive number; 0 for the customer's axis."""
    verdict: str
    num_items: int
    detectable: float
    """The smallest allowed loss under which an unchanged model passes in 80 % of such runs."""
    lost: int
    """Items that the base had right and the candidate has wrong; 0 where nothing is right or wrong."""
    gained: int
    advice: str
    errors: tuple[int, int] = (0, 0)
    """Items of base and candidate that could not be scored; they count as wrong."""
    measures: list[Measure] = field(default_factory=list)
    slices: list[Slice] = field(default_factory=list)
    flips: list[dict[str, Any]] = field(default_factory=list)
    """Some of the lost items."""
    confusion: dict[str, Any] = field(default_factory=dict)
    """Of a classification with up to 100 labels: `labels`, and counts of given by true label of `base`, `candidate`."""


def judge_axis(name: str, summary: dict[str, Any], tables: tuple[pa.Table, pa.Table], limit: float) -> AxisVerdict:
    """The verdict on one axis."""
    form, labels = FORMS[summary["form"]], tuple(summary["labels"])
    measures = measure_axis(form, labels, tables)
    first = measures[0]
    superior = form.question == SUPERIORITY
    verdict = paired_stats.superiority(first.judged) if superior else paired_stats.non_inferiority(first.judged, limit)
    lost, gained = count_flips(tables)
    detectable = first.judged.detectable
    return AxisVerdict(
        axis=name,
        form=form.name,
        metric=first.metric,
        question=form.question,
        higher_is_better=first.higher_is_better,
        relative=first.relative,
        base=first.base,
        candidate=first.candidate,
        difference=first.difference,
        lower=first.lower,
        upper=first.upper,
        limit=limit,
        verdict=verdict,
        num_items=len(tables[0]),
        detectable=detectable,
        lost=lost,
        gained=gained,
        advice=advise(name, first, verdict, superior=superior, limit=limit, num_items=len(tables[0])),
        errors=(count_errors(tables[0]), count_errors(tables[1])),
        measures=measures,
        slices=find_slices(form, tables),
        flips=find_flips(tables),
        confusion=confusions(form, labels, tables),
    )


def confusions(form: BenchmarkForm[Any], labels: Labels, tables: tuple[pa.Table, pa.Table]) -> dict[str, Any]:
    """Return the confusion tables of both models; empty where the form has none, or there are too many labels."""
    base, candidate = (form.confusion(table, labels) for table in tables)
    return {"labels": list(labels), "base": base, "candidate": candidate} if base else {}


def overall_verdict(axes: list[AxisVerdict]) -> str:
    """Pass only if every general axis passes and the customer's did not get worse.

    Raises:
        DataError: There is no general axis, so nothing tells of forgetting.
    """
    general = [axis.verdict for axis in axes if axis.question == "non-inferiority"]
    if not general:
        raise DataError(
            "no general axis in these samples; forgetting is measured on one: add a benchmark or holdout records"
        )
    worse = [axis.verdict for axis in axes if axis.question == "superiority" and axis.verdict == FAIL]
    return paired_stats.overall(general + worse)


def advise(name: str, found: Measure, verdict: str, *, superior: bool, limit: float, num_items: int) -> str:
    """What to do about an axis, in a sentence; empty where it passed."""
    change = abs(found.difference)
    amount = f"{100 * change:.1f} %" if found.relative else f"{change:.2f}"
    if verdict == PASS:
        return ""
    if verdict == FAIL and superior:
        return f"{found.metric} on the customer's records fell by {amount}: raise the customer share or train longer."
    if verdict == FAIL:
        verb = "rose" if not found.higher_is_better else "fell"
        return f"{name} {verb} by {amount}: raise the general share before touching the learning rate."
    if superior:
        return "No gain on the customer's records is proved: train longer, or test on more records."
    scale, unit = (100.0, " %") if found.relative else (1.0, "")
    return (
        f"{name}: {num_items} items cannot tell whether the loss is more than {scale * limit:g}{unit} "
        f"(they could judge {scale * found.judged.detectable:.2g}{unit}): evaluate on more items, or lower the loss."
    )


def count_flips(tables: tuple[pa.Table, pa.Table]) -> tuple[int, int]:
    """How many items were lost, and how many gained."""
    if tables[0]["correct"].null_count:
        return 0, 0
    base, candidate = (table["correct"].to_numpy() for table in tables)
    return int(((base == 1) & (candidate < 1)).sum()), int(((base < 1) & (candidate == 1)).sum())
