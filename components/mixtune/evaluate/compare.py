"""Base against candidate, on the same items: pass, fail or inconclusive, per axis and overall."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.errors import ConfigError, DataError
from mixtune.evaluate import bootstrap, statistics
from mixtune.evaluate.samples import Samples

DEFAULT_LIMITS = {"mmlu": 0.02, "ifeval": 0.05, "nll": 0.02}
"""Allowed loss by an axis's form: of accuracy, of prompts followed, and the relative rise of NLL."""
CUSTOMER_AXIS = "customer"
KEY = ("item_id", "prompt_hash")


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


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All axes, and what they come to."""

    verdict: str
    axes: list[AxisVerdict]
    identity: dict[str, Any]
    blocks: bool
    """Whether the verdict stops a release: a fail does, and so does an inconclusive one on full sets."""
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The comparison as its JSON file has it."""
        return {"kind": "comparison", **asdict(self)}


def compare_samples(base: Samples, candidate: Samples, limits: dict[str, Any]) -> Comparison:
    """Compare two evaluations item by item.

    Args:
        base: The base model's samples.
        candidate: The candidate's.
        limits: Allowed loss per axis, over the defaults.

    Raises:
        DataError: They are not about the same items and prompts.
        ConfigError: A limit for an axis that is not there, or one below 0.
    """
    check_same(base, candidate)
    allowed = resolve_limits(base.axes, limits)
    axes = [
        compare_axis(name, base.axes[name], join(base, candidate, name), allowed.get(name, 0.0)) for name in base.axes
    ]
    verdict = overall_verdict(axes)
    limited = bool(base.manifest["limit"])
    return Comparison(
        verdict=verdict,
        axes=axes,
        identity={"base": base.manifest["identity"], "candidate": candidate.manifest["identity"]},
        blocks=verdict == statistics.FAIL or (verdict == statistics.INCONCLUSIVE and not limited),
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
    for key in ("tokenizer", "engine", "dtype", "device", "limit"):
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
    """The allowed loss of every general axis."""
    if unknown := sorted(set(limits) - set(axes)):
        raise ConfigError(f"limits: no axis {unknown[0]!r}; there are {', '.join(axes)}")
    allowed = {}
    for name, summary in axes.items():
        if name == CUSTOMER_AXIS:
            continue
        limit = float(limits.get(name, DEFAULT_LIMITS.get(summary["form"], 0.02)))
        if limit < 0:
            raise ConfigError(f"limits: the allowed loss on {name} is 0 or more, got {limit}")
        allowed[name] = limit
    return allowed


def compare_axis(name: str, summary: dict[str, Any], tables: tuple[pa.Table, pa.Table], limit: float) -> AxisVerdict:
    """The verdict on one axis."""
    base, candidate = tables
    strata, clusters = base["subject"].to_pylist(), base["cluster"].to_pylist()
    form = summary["form"]
    if form == "nll":
        found = statistics.paired_ratio(base["nll"].to_numpy(), candidate["nll"].to_numpy(), strata, clusters)
        scores = [float(t["nll"].to_numpy().sum() / t["num_tokens"].to_numpy().sum()) for t in tables]
        judged = statistics.negated(found)
    elif form == "classification":
        both = [bootstrap.f1_score(t["gold"].to_pylist(), t["prediction"].to_pylist()) for t in tables]
        found = judged = bootstrap.paired_bootstrap(both[0], both[1], clusters)
        scores = [score(np.ones(len(base))) for score in both]
    else:
        values = [_values(table, form) for table in tables]
        found = judged = statistics.paired_mean(values[0], values[1], strata, clusters)
        scores = [float(value.mean()) for value in values]
    superior = name == CUSTOMER_AXIS
    verdict = statistics.superiority(judged) if superior else statistics.non_inferiority(judged, limit)
    lost, gained = _flips(tables)
    partial = AxisVerdict(
        axis=name,
        form=form,
        metric=summary["metric"],
        question="superiority" if superior else "non-inferiority",
        higher_is_better=form != "nll",
        relative=form == "nll",
        base=scores[0],
        candidate=scores[1],
        difference=found.difference,
        lower=found.lower,
        upper=found.upper,
        limit=limit,
        verdict=verdict,
        num_items=len(base),
        detectable=found.detectable,
        lost=lost,
        gained=gained,
        advice="",
    )
    return AxisVerdict(**{**asdict(partial), "advice": advise(partial)})


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
    worse = [axis.verdict for axis in axes if axis.question == "superiority" and axis.verdict == statistics.FAIL]
    return statistics.overall(general + worse)


def advise(found: AxisVerdict) -> str:
    """What to do about an axis, in a sentence; empty where it passed."""
    change = abs(found.difference)
    amount = f"{100 * change:.1f} %" if found.relative else f"{change:.3f}"
    if found.verdict == statistics.PASS:
        return ""
    if found.verdict == statistics.INCONCLUSIVE:
        if found.question == "superiority":
            return "No gain on the customer's records is proved; train longer, or test on more records."
        return (
            f"{found.num_items} items cannot tell a loss of {found.limit:g} from none "
            f"(an allowed loss of {found.detectable:.3f} could be judged); evaluate more items."
        )
    if found.question == "superiority":
        return f"The customer's own score fell by {amount}; raise the customer share or look at the training loss."
    verb = "rose" if not found.higher_is_better else "fell"
    return f"{found.axis} {verb} by {amount}: raise the general share before touching the learning rate."


def read_comparison(text: str) -> dict[str, Any]:
    """A comparison's JSON."""
    value = json.loads(text)
    if value.get("kind") != "comparison":
        raise DataError(f"a comparison is needed, this is {value.get('kind')!r}")
    return dict(value)


def _values(table: pa.Table, form: str) -> statistics.Floats:
    if form == "generation":
        return np.array([dict(row)["token_f1"] for row in table["measures"].to_pylist()])
    return np.array(table["correct"].to_pylist(), dtype=float)


def _flips(tables: tuple[pa.Table, pa.Table]) -> tuple[int, int]:
    if tables[0]["correct"].null_count:
        return 0, 0
    base, candidate = (table["correct"].to_numpy() for table in tables)
    return int(((base == 1) & (candidate < 1)).sum()), int(((base < 1) & (candidate == 1)).sum())
