"""Base against candidate, on the same items: pass, fail or inconclusive, per axis and overall."""

from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from mixtune.artifacts.samples import Samples
from mixtune.compare.contamination import Overlap
from mixtune.compare.verdicts import AxisVerdict, judge_axis, overall_verdict
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.benchmarks.form import NON_INFERIORITY
from mixtune.evaluate.benchmarks.registry import FORMS
from mixtune.models import FAILED
from mixtune.results import FAIL, INCONCLUSIVE

KEY = ("item_id", "prompt_hash")


@dataclass(frozen=True, kw_only=True)
class Turned:
    """The candidate at a lower strength."""

    strength: float
    """Above 0 (the base), below 1 (as trained)."""
    verdict: str
    """pass, fail or inconclusive; failed where it could not be evaluated."""
    reason: str = ""
    """Why it could not."""
    axes: list[AxisVerdict] = field(default_factory=list)
    """Without slices and single items."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All axes, and what they come to."""

    verdict: str
    axes: list[AxisVerdict]
    identity: dict[str, Any]
    """What was evaluated, of `base` and `candidate`."""
    limit: int
    """Items of an axis at most in both evaluations; 0: all."""
    contamination: list[Overlap]
    """Per axis; empty without shards."""
    mix: dict[str, Any] = field(default_factory=dict)
    """Digest, seed and mix receipt of the shards that the candidate was trained on; empty where they are not given."""
    reason: str = ""
    """Why there is no candidate, where its training failed."""
    model_uri: str = ""
    """Fingerprinted URI of the candidate; empty where there is none."""
    dial: list[Turned] = field(default_factory=list)
    """The candidate turned down, from the lowest strength; it has no say in the verdict."""

    @property
    def blocks(self) -> bool:
        """Whether the verdict stops a release: a fail does, and an inconclusive one on full sets."""
        return self.verdict in (FAIL, FAILED) or (self.verdict == INCONCLUSIVE and not self.limit)

    def as_json(self) -> dict[str, Any]:
        """The comparison as its JSON file has it."""
        return {"kind": "comparison", "blocks": self.blocks, **asdict(self)}


def compare_samples(
    base: Samples,
    candidate: Samples,
    limits: dict[str, Any],
    *,
    contamination: list[Overlap] | None = None,
    mix: dict[str, Any] | None = None,
    judged: AxisVerdict | None = None,
) -> Comparison:
    """Compare two evaluations item by item.

    Args:
        base: The base model's samples.
        candidate: The candidate's.
        limits: Allowed loss per axis, over the defaults.
        contamination: What of the items is in the training data.
        mix: What the candidate was trained on, for the report.
        judged: What a judge says, as a further axis.

    Raises:
        DataError: They are not about the same items and prompts.
        ConfigError: A limit for an axis that is not there, or one below 0.
    """
    check_same(base, candidate)
    allowed = resolve_limits(base.axes, limits)
    axes = [
        judge_axis(name, base.axes[name], join(base, candidate, name), allowed.get(name, 0.0)) for name in base.axes
    ]
    axes += [judged] if judged else []
    return Comparison(
        verdict=overall_verdict(axes),
        axes=axes,
        identity={"base": base.manifest["identity"], "candidate": candidate.manifest["identity"]},
        limit=int(base.manifest["limit"]),
        contamination=contamination or [],
        mix=mix or {},
        model_uri=candidate.manifest["model_uri"],
    )


def without_candidate(base: Samples, reason: str, mix: dict[str, Any]) -> Comparison:
    """What there is to say where the candidate's training failed."""
    return Comparison(
        verdict=FAILED,
        axes=[],
        identity={"base": base.manifest["identity"], "candidate": {"model": "none", "model_kind": FAILED}},
        limit=int(base.manifest["limit"]),
        contamination=[],
        mix=mix,
        reason=reason,
    )


def check_same(base: Samples, candidate: Samples) -> None:
    """Make sure that both evaluations asked the same things in the same way.

    Raises:
        DataError: They did not.
    """
    if set(base.axes) != set(candidate.axes):
        raise DataError(
            f"base has the axes {', '.join(base.axes)}, candidate {', '.join(candidate.axes)}; "
            "evaluate both with the same benchmarks and pools"
        )
    for key in ("base_model", "tokenizer", "chat_template", "engine", "dtype", "device", "limit"):
        ours, theirs = (side.manifest["identity"].get(key) for side in (base, candidate))
        if ours != theirs:
            raise DataError(f"base was evaluated with {key} {ours!r}, candidate with {theirs!r}; evaluate both alike")


def join(base: Samples, candidate: Samples, axis: str) -> tuple[pa.Table, pa.Table]:
    """The rows of an axis, both in the same order.

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


def resolve_limits(axes: dict[str, dict[str, Any]], limits: dict[str, Any]) -> dict[str, float]:
    """The allowed loss of every general axis.

    Raises:
        ConfigError: A limit for no general axis, or one that is no number from 0.
    """
    forms = {name: FORMS[summary["form"]] for name, summary in axes.items()}
    general = {name: form for name, form in forms.items() if form.question == NON_INFERIORITY}
    if unknown := sorted(set(limits) - set(general)):
        raise ConfigError(f"limits: no general axis {unknown[0]!r}; there are {', '.join(general)}")
    allowed = {name: limits.get(name, form.default_limit) for name, form in general.items()}
    for name, limit in allowed.items():
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not limit >= 0:
            raise ConfigError(f"limits: the allowed loss on {name} is a number from 0, got {limit!r}")
    return {name: float(limit) for name, limit in allowed.items()}
