"""LoRA first, full fine-tuning last: after each candidate, whether to go on, with what, and which one to take."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mixtune import prices, storage, tracking
from mixtune.choose.costs import training_cost
from mixtune.choose.grid import Outputs
from mixtune.choose.points import Point, read_points
from mixtune.choose.report_page import write_points
from mixtune.errors import ConfigError, TrainingError
from mixtune.models import FAILED
from mixtune.results import CUSTOMER_AXIS, FAIL, INCONCLUSIVE, PASS

STOP, LORA, SFT = "stop", "lora", "sft"
"""What comes after a rung: nothing, another adapter, or full fine-tuning."""
RANK_FACTOR = 4
"""By how much rank and alpha grow when an adapter keeps what it knew and misses the customer's target."""
LESS_PERCENT = 25.0
"""By how much the customer's share falls when an adapter forgets; at most by half."""


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One candidate of the ladder."""

    method: str
    """lora or sft."""
    lora_rank: int
    lora_alpha: int
    model_uri: str
    point: Point
    """What its comparison found."""

    def __post_init__(self) -> None:
        """Refuse a method that is none."""
        if self.method not in (LORA, SFT):
            raise ConfigError(f"method is {LORA} or {SFT}; got {self.method!r}")

    @property
    def kept(self) -> bool:
        """Whether every general axis passed."""
        return bool(self.point.axes) and all(
            axis["verdict"] == PASS for name, axis in self.point.axes.items() if name != CUSTOMER_AXIS
        )

    def reached(self, target: float) -> bool:
        """Whether the customer's score is at least the target; without a target, whether it gained for certain."""
        axis = self.point.axes.get(CUSTOMER_AXIS)
        if not axis:
            return False
        return bool(axis["candidate"] >= target if target else axis["verdict"] == PASS)


@dataclass(frozen=True, kw_only=True)
class Step:
    """What comes next."""

    action: str
    """`stop`, `lora` or `sft`."""
    percent: float
    """Customer share of the next candidate."""
    lora_rank: int
    lora_alpha: int
    reason: str


def next_step(rungs: list[Rung], target: float, sft_max_steps: int) -> Step:
    """Where the ladder goes after its last rung; at most two adapters, then at most one full fine-tuning.

    Args:
        rungs: The candidates so far, at least one.
        target: The customer's score to reach, in the axis's own metric; 0: a certain gain is enough.
        sft_max_steps: Optimizer steps that full fine-tuning may take; 0: none.
    """
    last = rungs[-1]
    percent, rank, alpha = last.point.percent, last.lora_rank, last.lora_alpha

    def step(action: str, reason: str) -> Step:
        return Step(action=action, percent=percent, lora_rank=rank, lora_alpha=alpha, reason=reason)

    if last.point.verdict == FAILED:
        return step(STOP, f"the training failed: {last.point.reason}")
    if last.kept and last.reached(target):
        return step(STOP, "the target is reached and nothing was forgotten")
    if last.method == SFT:
        return step(STOP, "full fine-tuning is the last rung")
    if len(rungs) == 1 and not last.kept:
        percent = max(percent - LESS_PERCENT, percent / 2)
        return step(LORA, f"general axes are not certain to be kept: {percent:g} % customer records in place of more")
    if len(rungs) == 1:
        rank, alpha = rank * RANK_FACTOR, alpha * RANK_FACTOR
        return step(LORA, f"the target is missed and nothing was forgotten: rank {rank} in place of {last.lora_rank}")
    if not last.kept:
        return step(STOP, "general axes are not certain to be kept; full fine-tuning would forget more")
    if last.point.num_steps > sft_max_steps:
        allowed = f"only {sft_max_steps} are allowed" if sft_max_steps else "none is allowed"
        return step(STOP, f"full fine-tuning would take {last.point.num_steps} steps, {allowed} (sft_max_steps)")
    return step(SFT, "LoRA keeps what the model knew and misses the target")


def climb(
    comparison_path: str, candidate: dict[str, Any], earlier: str, ladder_path: str, budget: dict[str, Any]
) -> Step:
    """Add a candidate to the ladder and decide what comes next.

    Args:
        comparison_path: The JSON of `compare`.
        candidate: `method`, `lora_rank`, `lora_alpha`, `model_uri`.
        earlier: URI of the ladder so far; empty: this is its first rung.
        ladder_path: Where the longer ladder goes.
        budget: `target` and `sft_max_steps` of `next_step`.
    """
    rung = Rung(point=next(read_points(comparison_path)), **candidate)
    rungs = [*(read_ladder(earlier) if earlier else []), rung]
    step = next_step(rungs, **budget)
    print(f"ladder: {_named(rung)}: {rung.point.verdict}; {step.action}, since {step.reason}", flush=True)
    storage.write_json(
        ladder_path, {"kind": "rungs", "reason": step.reason, **budget, "rungs": [asdict(item) for item in rungs]}
    )
    return step


def read_ladder(uri: str) -> list[Rung]:
    """The rungs that `climb` wrote."""
    found = storage.read_json(uri)
    return [Rung(**{**item, "point": Point(**item["point"])}) for item in found["rungs"]]


def report_ladder(uri: str, outputs: Outputs, options: dict[str, Any]) -> tuple[str, Rung | None]:
    """Lay the rungs side by side, name the one to take, and write the report.

    Args:
        uri: The whole ladder.
        outputs: Where to.
        options: The `tracking` parameter.

    Returns:
        The verdict, and the passing rung with the largest gain; None where none passed.

    Raises:
        TrainingError: Not one rung has a model.
    """
    price = prices.usd_per_hour(tracking.Tracking.from_options(options).hyperpod)
    found, rungs = storage.read_json(uri), [_priced(rung, price) for rung in read_ladder(uri)]
    if all(rung.point.verdict == FAILED for rung in rungs):
        raise TrainingError("; ".join(f"{_named(rung)}: {rung.point.reason}" for rung in rungs))
    passed = [rung for rung in rungs if rung.point.verdict == PASS]
    best = max(passed, key=lambda rung: rung.point.gain) if passed else None
    unsure = any(rung.point.verdict == INCONCLUSIVE for rung in rungs)
    verdict = PASS if best else INCONCLUSIVE if unsure else FAIL
    reason = _reason(best, float(found["target"]), found["reason"])
    print(f"choose-rung: {reason}", flush=True)
    taken = {"model_uri": best.model_uri if best else "", "taken": _named(best) if best else ""}
    listed = [{**asdict(rung), "point": rung.point.as_json()} for rung in rungs]
    storage.write_json(
        outputs.grid_path, {"kind": "ladder", "verdict": verdict, "reason": reason, **taken, "rungs": listed}
    )
    points, places = [rung.point for rung in rungs], {"html": outputs.report_path, "markdown": outputs.summary_path}
    write_points("LoRA, or full fine-tuning?", points, [], verdict, reason, **places)
    _track(best, verdict, outputs, options)
    return verdict, best


def _priced(rung: Rung, price: float | None) -> Rung:
    """The rung with its name in a report, and what its training cost."""
    return replace(rung, point=replace(rung.point, label=_named(rung), cost=training_cost(rung.model_uri, price)))


def _reason(best: Rung | None, target: float, stopped: str) -> str:
    if best is None:
        return f"No candidate passed. The ladder ended since {stopped}."
    if best.reached(target):
        return f"Take {_named(best)}: {best.point.gain:+.3f} on the customer's records."
    return f"{_named(best)} passed, but misses the target of {target:g}. The ladder ended since {stopped}."


def _named(rung: Rung) -> str:
    what = f"LoRA rank {rung.lora_rank}" if rung.method == LORA else "full"
    return f"{what}, {rung.point.percent:g} %"


def _track(best: Rung | None, verdict: str, outputs: Outputs, options: dict[str, Any]) -> None:
    with tracking.task_run(tracking.Tracking.from_options(options), "choose-rung") as run:
        run.log_artifact(Path(outputs.report_path))
        if run.run_id:
            run.parent.set_tags({"verdict": verdict, "recommended": _named(best) if best else "none"})
