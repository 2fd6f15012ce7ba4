"""LoRA first, full fine-tuning last: after each candidate, whether to go on, with what, and which one to take."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixtune import prices, tracking
from mixtune.artifacts.comparison import FAIL, FAILED, INCONCLUSIVE, PASS, Comparison
from mixtune.artifacts.grid import Recommendation
from mixtune.artifacts.ladder import LORA, SFT, Ladder, LadderReport, Rung
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.choose.costs import training_cost
from mixtune.choose.points import Point
from mixtune.choose.report_page import write_report
from mixtune.errors import TrainingError
from mixtune.report.outputs import Outputs
from mixtune.settings.from_dict import Options

STOP = "stop"
"""The next step after a rung: none, or the method of the next one."""
RANK_FACTOR = 4
"""By how much rank and alpha grow when an adapter keeps what it knew and misses the customer's target."""
LESS_PERCENT = 25.0
"""By how much the customer's share falls when an adapter forgets; at most by half."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What comes next."""

    action: str
    """`stop`, `lora` or `sft`."""
    percent: float
    """Customer share of the next candidate."""
    lora_rank: int
    lora_alpha: int
    reason: str


def decide(rungs: Sequence[Rung], target: float, sft_max_steps: int) -> Decision:
    """Decide where the ladder goes after its last rung; at most two adapters, then at most one full fine-tuning.

    `target` is a score of the customer's axis, 0: a certain gain is enough; `sft_max_steps` of 0: no full fine-tuning.
    """
    last = rungs[-1]
    percent, rank, alpha = last.mix.percent, last.lora_rank, last.lora_alpha

    def decision(action: str, reason: str) -> Decision:
        return Decision(action=action, percent=percent, lora_rank=rank, lora_alpha=alpha, reason=reason)

    if last.comparison.verdict == FAILED:
        return decision(STOP, f"the training failed: {last.comparison.reason}")
    if last.kept and last.reached(target):
        return decision(STOP, "the target is reached and nothing was forgotten")
    if last.method == SFT:
        return decision(STOP, "full fine-tuning is the last rung")
    if len(rungs) == 1 and not last.kept:
        percent = max(percent - LESS_PERCENT, percent / 2)
        return decision(
            LORA, f"general axes are not certain to be kept: {percent:g} % customer records in place of more"
        )
    if len(rungs) == 1:
        rank, alpha = rank * RANK_FACTOR, alpha * RANK_FACTOR
        return decision(
            LORA, f"the target is missed and nothing was forgotten: rank {rank} in place of {last.lora_rank}"
        )
    if not last.kept:
        return decision(STOP, "general axes are not certain to be kept; full fine-tuning would forget more")
    if last.mix.num_steps > sft_max_steps:
        allowed = f"only {sft_max_steps} are allowed" if sft_max_steps else "none is allowed"
        return decision(STOP, f"full fine-tuning would take {last.mix.num_steps} steps, {allowed} (sft_max_steps)")
    return decision(SFT, "LoRA keeps what the model knew and misses the target")


def next_options(decision: Decision, train_options: Options) -> dict[str, object]:
    """Return the training options of the next candidate: another adapter's, or none of an adapter's for all weights."""
    if decision.action == SFT:
        return {name: value for name, value in train_options.items() if not name.startswith("lora_")}
    return {**train_options, "lora_rank": decision.lora_rank, "lora_alpha": decision.lora_alpha}


def climb(comparison_path: str, candidate: Options, earlier: str, ladder_path: str, budget: Options) -> Decision:
    """Add a candidate to the ladder so far, and decide within a budget what is next.

    A candidate has `method`, `lora_rank` and `lora_alpha`. `earlier` is the URI of the ladder so far, empty at its
    first rung; `budget` holds `target` and `sft_max_steps`.
    """
    comparison = read_artifact(Comparison, comparison_path)
    rung = Rung(name=comparison_path, comparison=comparison, **candidate)
    what = f"LoRA rank {rung.lora_rank}" if rung.method == LORA else "full"
    rung = replace(rung, name=f"{what}, {rung.mix.percent:g} %")
    rungs = (*(read_artifact(Ladder, earlier).rungs if earlier else ()), rung)
    decision = decide(rungs, **budget)
    print(f"ladder: {rung.name}: {comparison.verdict}; {decision.action}, since {decision.reason}", flush=True)
    write_artifact(ladder_path, Ladder(rungs=rungs, reason=decision.reason, **budget))
    return decision


def report_ladder(uri: str, outputs: Outputs, options: Options) -> LadderReport:
    """Compare the rungs, recommend one, and write the report; `options` are the `tracking` parameter.

    Raises:
        TrainingError: Not one rung has a model.
    """
    where = tracking.Tracking.from_options(options)
    price = prices.usd_per_hour(where.hyperpod)
    ladder = read_artifact(Ladder, uri)
    rungs = [replace(rung, cost=training_cost(rung.comparison.model_uri, price)) for rung in ladder.rungs]
    report = choose_rung(replace(ladder, rungs=tuple(rungs)))
    print(f"choose-rung: {report.reason}", flush=True)
    write_report("LoRA, or full fine-tuning?", report, html=outputs.html_path, markdown=outputs.markdown_path)
    write_artifact(outputs.json_path, report)
    with tracking.task_run(where, "choose-rung") as run:
        run.log_page(outputs.html_path)
        name = report.recommended.name if report.recommended else "none"
        run.parent.set_tags({"verdict": report.verdict, "recommended": name})
    return report


def choose_rung(ladder: Ladder) -> LadderReport:
    """Recommend the passing rung with the largest gain on the customer's records.

    Raises:
        TrainingError: Not one rung has a model.
    """
    verdicts = [rung.comparison.verdict for rung in ladder.rungs]
    if set(verdicts) == {FAILED}:
        raise TrainingError("; ".join(f"{rung.name}: {rung.comparison.reason}" for rung in ladder.rungs))
    passed = [rung for rung in ladder.rungs if rung.comparison.verdict == PASS]
    if not passed:
        verdict = INCONCLUSIVE if INCONCLUSIVE in verdicts else FAIL
        reason = f"No candidate passed. The ladder ended since {ladder.reason}."
        return LadderReport(verdict=verdict, reason=reason, recommended=None, rungs=ladder.rungs)
    point = max((Point(candidate=rung) for rung in passed), key=lambda item: item.gain)
    best = next(rung for rung in passed if rung is point.candidate)
    reason = f"Take {best.name}: {point.gain_text} on the customer's records."
    if not best.reached(ladder.target):
        reason = (
            f"{best.name} passed, but misses the target of {ladder.target:g}. The ladder ended since {ladder.reason}."
        )
    recommended = Recommendation(
        name=best.name, percent=best.mix.percent, strength=1.0, model_uri=best.comparison.model_uri
    )
    return LadderReport(verdict=PASS, reason=reason, recommended=recommended, rungs=ladder.rungs)
