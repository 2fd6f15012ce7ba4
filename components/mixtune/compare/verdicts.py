"""The verdict on an axis and on a candidate, and the advice that goes with it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mixtune.artifacts.comparison import (
    FAIL,
    NON_INFERIORITY,
    PASS,
    SUPERIORITY,
    AxisDetails,
    AxisVerdict,
    Confusion,
    ItemCounts,
)
from mixtune.artifacts.samples import AxisSummary, count_errors
from mixtune.compare import paired_stats
from mixtune.compare.measures import Tables, measure_axis
from mixtune.compare.subgroups import compare_subgroups, count_changes, list_lost_items
from mixtune.errors import DataError
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels
from mixtune.evaluate.benchmarks.registry import FORMS


def judge_axis(name: str, summary: AxisSummary, tables: Tables, limit: float) -> AxisVerdict:
    """Return the verdict on one axis."""
    form, labels = FORMS[summary.form], summary.labels
    measures = measure_axis(form, labels, tables)
    benefit = measures[0].benefit
    superior = form.question == SUPERIORITY
    lost, gained = count_changes(tables)
    base_errors, candidate_errors = map(count_errors, tables)
    axis = AxisVerdict(
        axis=name,
        form=form.name,
        question=form.question,
        limit=limit,
        verdict=paired_stats.superiority(benefit) if superior else paired_stats.non_inferiority(benefit, limit),
        advice="",
        detectable=paired_stats.detectable_loss(benefit),
        items=ItemCounts(
            total=len(tables[0]),
            lost=lost,
            gained=gained,
            base_errors=base_errors,
            candidate_errors=candidate_errors,
        ),
        measures=tuple(measures),
        details=AxisDetails(
            subgroups=compare_subgroups(form, tables),
            lost_items=list_lost_items(tables),
            confusion=_count_confusions(form, labels, tables),
        ),
    )
    return replace(axis, advice=advise(axis))


def overall_verdict(axes: Sequence[AxisVerdict]) -> str:
    """Pass only if every general axis passes and the customer's did not get worse.

    Raises:
        DataError: There is no general axis, so nothing tells of forgetting.
    """
    general = [axis.verdict for axis in axes if axis.question == NON_INFERIORITY]
    if not general:
        raise DataError(
            "no general axis in these samples; forgetting is measured on one: add a benchmark or holdout records"
        )
    worse = [axis.verdict for axis in axes if axis.question == SUPERIORITY and axis.verdict == FAIL]
    return paired_stats.overall(general + worse)


def advise(axis: AxisVerdict) -> str:
    """Return what to do about an axis, in a sentence; empty where it passed."""
    measure, superior = axis.measure, axis.question == SUPERIORITY
    scale, unit = (100.0, " %") if measure.relative else (1.0, "")
    change = abs(measure.change.difference)
    amount = f"{100 * change:.1f} %" if measure.relative else f"{change:.2f}"
    if axis.verdict == PASS:
        return ""
    if axis.verdict == FAIL and superior:
        return f"{measure.metric} on the customer's records fell by {amount}: raise the customer share or train longer."
    if axis.verdict == FAIL:
        verb = "fell" if measure.higher_is_better else "rose"
        return f"{axis.axis} {verb} by {amount}: raise the general share before touching the learning rate."
    if superior:
        return "No gain on the customer's records is proved: train longer, or test on more records."
    return (
        f"{axis.axis}: {axis.items.total} items cannot tell whether the loss is more than {scale * axis.limit:g}{unit} "
        f"(they could judge {scale * axis.detectable:.2g}{unit}): evaluate on more items, or lower the loss."
    )


def _count_confusions(form: BenchmarkForm[Any], labels: Labels, tables: Tables) -> Confusion | None:
    """Return the confusion tables of both models; None where the form has none, or there are too many labels."""
    base, candidate = (tuple(map(tuple, form.confusion(table, labels))) for table in tables)
    return Confusion(labels=labels, base=base, candidate=candidate) if base else None
