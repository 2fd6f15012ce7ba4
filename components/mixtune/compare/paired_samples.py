"""Two evaluations as pairs of the same items, and the comparison that is made of them."""

from typing import Any

import pyarrow as pa

from mixtune.artifacts.comparison import FAILED, NON_INFERIORITY, AxisVerdict, Comparison, Overlap, TrainedMix
from mixtune.artifacts.samples import AxisSummary, Identity, Samples
from mixtune.compare.verdicts import judge_axis, overall_verdict
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.benchmarks.registry import FORMS

KEY = ("item_id", "prompt_hash")
SAME = ("base_model", "tokenizer", "chat_template", "engine", "dtype", "device", "limit", "axis_limits", "thinking")
"""Of both evaluations' identities."""


def compare_samples(
    base: Samples,
    candidate: Samples,
    limits: dict[str, Any],
    *,
    contamination: tuple[Overlap, ...] = (),
    mix: TrainedMix | None = None,
    judged: AxisVerdict | None = None,
) -> Comparison:
    """Compare two evaluations item by item.

    Args:
        base: The base model's samples.
        candidate: The candidate's.
        limits: Allowed loss per axis, over the defaults.
        contamination: What of the items is in the training data.
        mix: What the candidate was trained on.
        judged: A judge's verdict, as a further axis.

    Raises:
        DataError: The evaluations differ in items or prompts.
        ConfigError: A limit for an axis that is not there, or one below 0.
    """
    check_same(base, candidate)
    allowed = resolve_limits(base.axes, limits)
    axes = [
        judge_axis(name, summary, join(base, candidate, name), allowed.get(name, 0.0))
        for name, summary in base.axes.items()
    ]
    axes += [judged] if judged else []
    return Comparison(
        verdict=overall_verdict(axes),
        axes=tuple(axes),
        identity={"base": base.identity, "candidate": candidate.identity},
        limit=base.limit,
        contamination=contamination,
        mix=mix,
        model_uri=candidate.model_uri,
    )


def without_candidate(base: Samples, reason: str, mix: TrainedMix | None) -> Comparison:
    """Return the comparison where the candidate's training failed."""
    return Comparison(
        verdict=FAILED,
        axes=(),
        identity={"base": base.identity, "candidate": Identity(model="none", model_kind=FAILED)},
        limit=base.limit,
        mix=mix,
        reason=reason,
    )


def check_same(base: Samples, candidate: Samples) -> None:
    """Check that both evaluations asked the same things in the same way.

    Raises:
        DataError: The axes, the base model, the prompts or the settings differ.
    """
    if set(base.axes) != set(candidate.axes):
        raise DataError(
            f"base has the axes {', '.join(base.axes)}, candidate {', '.join(candidate.axes)}; "
            "evaluate both with the same benchmarks and pools"
        )
    for key in SAME:
        of_base, of_candidate = (getattr(side.identity, key) for side in (base, candidate))
        if of_base != of_candidate:
            raise DataError(
                f"base was evaluated with {key} {of_base!r}, candidate with {of_candidate!r}; evaluate both alike"
            )


def join(base: Samples, candidate: Samples, axis: str) -> tuple[pa.Table, pa.Table]:
    """Return the rows of an axis, both in the same order.

    Raises:
        DataError: Items or prompts differ, or an item is there twice.
    """
    tables = [side.table(axis).sort_by([(key, "ascending") for key in KEY]) for side in (base, candidate)]
    keys = [list(zip(*(table[key].to_pylist() for key in KEY), strict=True)) for table in tables]
    if len({item for item, _ in keys[0]}) != len(keys[0]):
        raise DataError(f"{axis}: an item is in the base's samples twice; items need ids of their own")
    if keys[0] != keys[1]:
        odd = sorted(set(keys[0]) ^ set(keys[1]))[0][0]
        raise DataError(
            f"{axis}: base and candidate were not asked the same ({len(keys[0])} and {len(keys[1])} items; "
            f"item {odd!r} or its prompt differs); evaluate both on the same benchmark files"
        )
    return tables[0], tables[1]


def resolve_limits(axes: dict[str, AxisSummary], limits: dict[str, Any]) -> dict[str, float]:
    """Return the allowed loss of every general axis.

    Raises:
        ConfigError: A limit for no general axis, or one that is no number from 0.
    """
    forms = {name: FORMS[summary.form] for name, summary in axes.items()}
    general = {name: form for name, form in forms.items() if form.question == NON_INFERIORITY}
    if unknown := sorted(set(limits) - set(general)):
        raise ConfigError(f"limits: no general axis {unknown[0]!r}; there are {', '.join(general)}")
    allowed = {name: float(limits.get(name, form.default_limit)) for name, form in general.items()}
    for name, limit in allowed.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
            raise ConfigError(f"limits: the allowed loss on {name} is a number from 0, got {limit!r}")
    return {name: float(limit) for name, limit in allowed.items()}
