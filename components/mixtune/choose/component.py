"""The components of several candidates: `plan_points`, `choose_mix`, `climb`, `choose_rung`, `go_on`."""

from typing import List, NamedTuple  # noqa: UP035

from kfp import dsl
from kfp.dsl import HTML, Artifact, Input, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def plan_points(
    customer_data_percents: list,
    base_model: str,
    weights: dict,
    benchmarks: dict = {},
    limits: dict = {},
    mix_options: dict = {},
    evaluate_options: dict = {},
    dial: list = [],
) -> list:
    """Make the points of a mix grid: every mix with what all of them share.

    Args:
        customer_data_percents: Customer shares to try, each above 0 and at most 100, none twice.
        base_model: From `fingerprint`.
        weights: From `fingerprint`.
        benchmarks: From `fingerprint`.
        limits: From `fingerprint`.
        mix_options: From `fingerprint`.
        evaluate_options: From `fingerprint`.
        dial: Strengths above 0 and below 1 at which every point is evaluated too; empty: none.

    Returns:
        One object per point: `percent`, and what all of them share.

    Raises:
        ConfigError: No percentage, one out of range, or one twice; a strength out of range.
    """
    from mixtune.choose.grid_points import plan_points as plan
    from mixtune.interpolation import check_strengths

    shared = {"base_model": base_model, "weights": weights, "benchmarks": benchmarks, "limits": limits}
    shared = {**shared, "mix_options": mix_options, "evaluate_options": evaluate_options}
    return plan(customer_data_percents, {**shared, "dial": check_strengths(dial)})


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def choose_mix(
    comparisons: Input[List[Artifact]],  # noqa: UP006
    grid: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    tracking: dict = {},
    storage: dict = {},
) -> NamedTuple("Choice", [("verdict", str), ("customer_data_percent", float), ("strength", float)]):
    """Compare several mixes and name the one to take.

    That is the largest gain on the customer's records among the mixes whose verdict is pass; where none passed as it
    was trained, the largest certain gain among those that passed turned down. A mix whose training failed is listed
    with its reason; the others count.

    Args:
        comparisons: The JSON of `compare`, one per mix.
        grid: The same for machines: the choice, its reason, every point with its cost.
        report: Customer's score against each general score with intervals, and tables.
        summary: The tables as Markdown.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional. Costs are in dollars where
            `hyperpod` names known instances, else in hours of GPUs or CPUs.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        verdict: `pass` where a mix is recommended, else `inconclusive` if one was, else `fail`.
        customer_data_percent: The recommended mix; -1 where none passed.
        strength: Of the recommended model: 1 as it was trained, less where it is turned down; -1 where none passed.

    Raises:
        TrainingError: Not one mix could be trained.
        DataError: A comparison that does not say its mix.
    """
    from mixtune import storage as files
    from mixtune.choose.mix_choice import report_grid
    from mixtune.report.outputs import Outputs

    files.configure_storage(storage)
    outputs = Outputs(json_path=grid.path, html_path=report.path, markdown_path=summary.path)
    chosen = report_grid([comparison.path for comparison in comparisons], outputs, tracking)
    best = chosen.recommended
    return chosen.verdict, best.percent if best else -1.0, best.strength if best else -1.0


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def climb(
    comparison: Input[Artifact],
    ladder: Output[Artifact],
    method: str = "lora",
    train_options: dict = {},
    earlier: str = "",
    customer_target: float = 0.0,
    sft_max_steps: int = 0,
    storage: dict = {},
) -> NamedTuple(
    "Step", [("action", str), ("customer_data_percent", float), ("train_options", dict), ("ladder_uri", str)]
):
    """Add a candidate to a ladder and say what comes next: at most two adapters, then at most one full fine-tuning.

    An adapter that forgets is followed by one on a smaller customer share, one that keeps everything and misses the
    target by one of four times the rank. Full fine-tuning follows only an adapter that kept everything, and only
    within its budget.

    Args:
        comparison: The JSON of `compare`.
        ladder: JSON of the candidates so far.
        method: How it was trained: `lora` or `sft`.
        train_options: Further settings that it was trained with, of `train`.
        earlier: `ladder_uri` of the rung before; empty: this is the first.
        customer_target: Score to reach on the customer's axis, in its own metric; 0: a certain gain is enough.
        sft_max_steps: Optimizer steps that full fine-tuning may take; 0: it is never tried.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        action: `lora`, `sft` or `stop`.
        customer_data_percent: Of the next candidate.
        train_options: Of the next candidate: another rank and scaling, or none where it is no adapter.
        ladder_uri: Of the ladder so far.
    """
    from mixtune import storage as files
    from mixtune.choose.ladder_climb import climb as add
    from mixtune.choose.ladder_climb import next_options
    from mixtune.settings.train import TrainSettings

    files.configure_storage(storage)
    settings = TrainSettings.from_options(train_options, method=method)
    candidate = {"method": method, "lora_rank": settings.lora_rank, "lora_alpha": settings.lora_alpha}
    budget = {"target": float(customer_target), "sft_max_steps": int(sft_max_steps)}
    decision = add(comparison.path, candidate, earlier, ladder.path, budget)
    return decision.action, decision.percent, next_options(decision, train_options), ladder.uri


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def choose_rung(
    ladder_uri: str,
    ladder: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    tracking: dict = {},
    storage: dict = {},
) -> NamedTuple("Choice", [("verdict", str), ("model_uri", str)]):
    """Compare the candidates of a ladder and name the one to take.

    That is the largest gain on the customer's records among the candidates whose verdict is pass.

    Args:
        ladder_uri: From the last `climb`.
        ladder: The choice, its reason and every rung, for machines.
        report: Customer's score against each general score with intervals, and a table.
        summary: The table as Markdown.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        verdict: `pass` where a candidate is recommended, else `inconclusive` if one was, else `fail`.
        model_uri: The recommended candidate; empty where none passed.

    Raises:
        TrainingError: Not one candidate could be trained.
    """
    from mixtune import storage as files
    from mixtune.choose.ladder_climb import report_ladder
    from mixtune.report.outputs import Outputs

    files.configure_storage(storage)
    outputs = Outputs(json_path=ladder.path, html_path=report.path, markdown_path=summary.path)
    chosen = report_ladder(ladder_uri, outputs, tracking)
    return chosen.verdict, chosen.recommended.model_uri if chosen.recommended else ""


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def go_on(action: str, customer_data_percent: float, train_options: dict, ladder_uri: str) -> NamedTuple(
    "Step", [("action", str), ("customer_data_percent", float), ("train_options", dict), ("ladder_uri", str)]
):
    """Return the output of whichever of two branches ran: a later task can depend on it.

    Args:
        action: What comes next.
        customer_data_percent: Of the next candidate.
        train_options: Of the next candidate.
        ladder_uri: The ladder so far.

    Returns:
        action: As it came in.
        customer_data_percent: As it came in.
        train_options: As it came in.
        ladder_uri: As it came in.
    """
    return action, float(customer_data_percent), train_options, ladder_uri
