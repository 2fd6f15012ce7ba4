"""Two evaluations as pairs of the same items, and the comparison that is made of them."""

from collections.abc import Mapping
from math import inf

import pyarrow as pa
import pyarrow.compute as pc

from mixtune.artifacts.comparison import FAILED, NON_INFERIORITY, SUPERIORITY, AxisVerdict, Comparison, TrainedMix
from mixtune.artifacts.samples import AxisSummary, Identity, Samples
from mixtune.compare.verdicts import judge_axis, overall_verdict
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.registry import FORMS

KEY = ("item_id", "prompt_hash")
SAME = ("base_model", "tokenizer", "chat_template", "thinking", "on_lost", "engine", "dtype", "device")
"""Of both evaluations' identities."""
FORM_OF_MODEL = ("engine", "dtype", "device")
"""What artefacts of one model may differ in."""
DEFAULT_SAME = 0.02
"""Difference of an axis without a limit of its own up to which two artefacts are the same."""


def compare_samples(
    base: Samples,
    candidate: Samples,
    limits: Mapping[str, object],
    *,
    mix: TrainedMix | None = None,
    judged: AxisVerdict | None = None,
    same: bool = False,
) -> Comparison:
    """Compare two evaluations item by item.

    Args:
        base: Samples of the base model; where it was asked more items, those of the candidate count.
        candidate: Samples of the candidate.
        limits: Allowed losses by axis, over the defaults.
        mix: What the candidate was trained on.
        judged: A judge's verdict, as a further axis.
        same: The candidate is the base's model in another form (merged, quantized, served): both ought to be the same
            on every axis, within the limits.

    Raises:
        DataError: The evaluations differ in items or prompts.
        ConfigError: A limit for an axis that is not there, or one below 0.
    """
    check_same(base, candidate, () if not same else FORM_OF_MODEL)
    allowed = resolve_limits(base.axes, limits, same=same)
    axes = [
        judge_axis(name, summary, join(base, candidate, name), allowed.get(name, 0.0), same=same)
        for name, summary in base.axes.items()
    ]
    axes += [judged] if judged else []
    return Comparison(
        verdict=overall_verdict(axes),
        axes=tuple(axes),
        identity={"base": base.identity, "candidate": candidate.identity},
        limit=candidate.limit,
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


def check_same(base: Samples, candidate: Samples, may_differ: tuple[str, ...] = ()) -> None:
    """Check that both evaluations asked the same things in the same way, but for some of their identities' fields.

    Raises:
        DataError: The axes, the base model, the prompts or the settings differ, or the candidate was asked more items.
    """
    if set(base.axes) != set(candidate.axes):
        axes = f"base has the axes {', '.join(base.axes)}, candidate {', '.join(candidate.axes)}"
        raise DataError(f"{axes}; evaluate both with the same benchmarks and pools")
    for key in (key for key in SAME if key not in may_differ):
        of_base, of_candidate = (getattr(side.identity, key) for side in (base, candidate))
        if of_base != of_candidate:
            raise DataError(
                f"base was evaluated with {key} {of_base!r}, candidate with {of_candidate!r}; evaluate both alike"
            )
    for axis in base.axes:
        of_base, of_candidate = _item_limit(base, axis), _item_limit(candidate, axis)
        if of_candidate > of_base:
            raise DataError(
                f"{axis}: base was evaluated on {of_base:g} items at most, candidate on "
                f"{'all' if of_candidate == inf else f'{of_candidate:g}'}; "
                "give both the same limit, or the candidate a smaller one"
            )


def _item_limit(samples: Samples, axis: str) -> float:
    """Return how many items an axis is limited to; inf: to none."""
    return samples.identity.axis_limits.get(axis, samples.identity.limit) or inf


def join(base: Samples, candidate: Samples, axis: str) -> tuple[pa.Table, pa.Table]:
    """Return the rows of an axis, both in the same order; of a base that was asked more items, those of the candidate.

    Raises:
        DataError: Items or prompts differ, or an item is there twice.
    """
    tables = [side.table(axis).sort_by([(key, "ascending") for key in KEY]) for side in (base, candidate)]
    if _item_limit(candidate, axis) < _item_limit(base, axis):
        tables[0] = tables[0].filter(pc.is_in(tables[0]["item_id"], tables[1]["item_id"].combine_chunks()))
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


def resolve_limits(
    axes: dict[str, AxisSummary], limits: Mapping[str, object], *, same: bool = False
) -> dict[str, float]:
    """Return the allowed loss of every general axis, or the allowed difference of every axis of the `same` model.

    Raises:
        ConfigError: A limit for an axis that takes none, or one that is no number from 0.
    """
    forms = {name: FORMS[summary.form] for name, summary in axes.items()}
    general = {name: form for name, form in forms.items() if same or form.question == NON_INFERIORITY}
    own = {name for name, form in forms.items() if form.question == SUPERIORITY}
    if unknown := sorted(set(limits) - set(general) - own):
        raise ConfigError(f"limits: no general axis {unknown[0]!r}; there are {', '.join(general)}")
    default = DEFAULT_SAME if same else 0.0
    allowed = {name: limits.get(name, form.default_limit or default) for name, form in general.items()}
    allowed |= {name: limits[name] for name in own & set(limits)}  # the gain asked for
    checked = {}
    for name, limit in allowed.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
            what = "gain asked for" if name in own else "allowed loss"
            raise ConfigError(f"limits: the {what} on {name} is a number from 0, got {limit!r}")
        checked[name] = float(limit)
    return checked
