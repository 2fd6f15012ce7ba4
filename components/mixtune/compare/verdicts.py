"""The verdict on an axis and on a candidate."""

from collections.abc import Sequence
from dataclasses import replace

from mixtune.artifacts.comparison import (
    EQUIVALENCE,
    FAIL,
    NON_INFERIORITY,
    SUPERIORITY,
    AxisDetails,
    AxisVerdict,
    Confusion,
    Estimate,
    ItemCounts,
)
from mixtune.artifacts.samples import AxisSummary, count_true
from mixtune.compare import paired_stats
from mixtune.compare.advice import advise
from mixtune.compare.measures import Tables, measure_axis
from mixtune.compare.subgroups import compare_subgroups, count_changes, list_lost_items
from mixtune.errors import DataError
from mixtune.evaluate.benchmarks.form import AnyForm, Labels
from mixtune.evaluate.power import detectable_loss, pass_rate
from mixtune.evaluate.registry import FORMS


def judge_axis(name: str, summary: AxisSummary, tables: Tables, limit: float, *, same: bool = False) -> AxisVerdict:
    """Return the verdict on one axis; `same`: whether both are the same within the limit."""
    form, labels = FORMS[summary.form], summary.labels
    measures = measure_axis(form, labels, tables, summary.metric)
    benefit = measures[0].benefit
    question = EQUIVALENCE if same else form.question
    lost, gained = count_changes(tables)
    counts = {
        f"{side}_{name}": count_true(table, column)
        for side, table in zip(("base", "candidate"), tables, strict=True)
        for name, column in (("errors", "error"), ("truncated", "truncated"), ("unfinished", "unfinished"))
    }
    axis = AxisVerdict(
        axis=name,
        form=form.name,
        question=question,
        limit=limit,
        verdict=_decide(question, benefit, limit),
        advice="",
        detectable=detectable_loss(benefit.standard_error),
        power=pass_rate(limit, benefit.standard_error),
        max_new_tokens=summary.max_new_tokens,
        items=ItemCounts(total=len(tables[0]), lost=lost, gained=gained, left_out=summary.left_out, **counts),
        measures=tuple(measures),
        details=AxisDetails(
            subgroups=compare_subgroups(form, tables) if measures[0].metric not in form.other_metrics else (),
            lost_items=list_lost_items(tables),
            confusion=_count_confusions(form, labels, tables),
        ),
    )
    return replace(axis, advice=advise(axis))


def _decide(question: str, benefit: Estimate, limit: float) -> str:
    if question == SUPERIORITY:
        return paired_stats.superiority(benefit, limit)
    decide = paired_stats.equivalence if question == EQUIVALENCE else paired_stats.non_inferiority
    return decide(benefit, limit)


def overall_verdict(axes: Sequence[AxisVerdict]) -> str:
    """Pass only if every general axis passes and the customer's did not get worse, or gained what is asked for.

    Raises:
        DataError: There is no general axis, so nothing tells of forgetting.
    """
    general = [axis.verdict for axis in axes if axis.question in (NON_INFERIORITY, EQUIVALENCE)]
    if not general:
        raise DataError(
            "no general axis in these samples; forgetting is measured on one: add a benchmark or holdout records"
        )
    own = [axis for axis in axes if axis.question == SUPERIORITY]
    worse = [axis.verdict for axis in own if axis.verdict == FAIL or axis.min_gain > 0]
    return paired_stats.overall(general + worse)


def _count_confusions(form: AnyForm, labels: Labels, tables: Tables) -> Confusion | None:
    """Return the confusion tables of both models; None where the form has none, or there are too many labels."""
    base, candidate = (tuple(map(tuple, form.confusion(table, labels))) for table in tables)
    return Confusion(labels=labels, base=base, candidate=candidate) if base else None
