"""What to do after a run, by its verdict: a sentence and a command that can be pasted."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS, Comparison
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.run_report import RunReport, list_candidates
from mixtune.settings.from_dict import Options

RUN = "RUN_ID"
"""Stands for the run's id where it is not known."""
LEAST_PERCENT = 12.5
"""Customer share below which a smaller one is no longer proposed."""

TUNE = ("finetune", "mix_grid", "lora_then_sft", "find_mix")
"""Pipelines that train on the customer's records."""
CHOOSE = ("mix_grid", "lora_then_sft", "find_mix")
"""Pipelines that train several models, and recommend none where none passed."""


class NextStep(NamedTuple):
    """One thing to do."""

    text: str
    command: str = ""


def command_of(name: str, *words: str) -> str:
    """Return a command line that can be pasted: quoted, and with its path where the shell would find another."""
    own = Path(sys.executable).with_name(name)
    on_path = shutil.which(name)
    same = on_path is not None and Path(on_path).resolve() == own.resolve()
    return shlex.join([name if same or not own.exists() else str(own), *words])


def next_steps(
    verdict: str,
    run_id: str = "",
    arguments: Options | None = None,
    *,
    gained: bool = True,
    report: RunReport | None = None,
) -> list[NextStep]:
    """Return what to do after a verdict, which is empty where a run comes to none, `failed` where there is no model.

    Run id, arguments and report may be unknown. `gained`: a gain is proved on the customer's records, if measured.
    """
    run, values = run_id or RUN, arguments or {}
    pipeline = run.rsplit("-", 3)[0] if run_id else "finetune"
    chat, again = command_of("mixtune", "chat", run), ("mixtune", "run", pipeline, "--like", run)
    look = [] if pipeline in CHOOSE else [NextStep("See what it answers now, beside its base", chat)]
    if pipeline == "find_mix" and verdict in ("fail", "inconclusive"):
        return _after_search(run, report)
    more = NextStep("Evaluate on all items, without another training", command_of(*again, "evaluate_options.limit=0"))
    is_limited = bool((values.get("evaluate_options") or {}).get("limit"))
    if not gained and verdict in ("pass", "inconclusive"):
        longer = command_of(*again, _longer(values)) if pipeline in TUNE else ""
        return [
            *([more] if is_limited else []),
            NextStep("No gain on your records is proved: train longer, or raise the customer's share", longer),
            *look,
        ]
    if verdict == "pass":
        merge = command_of("mixtune", "merge", run, "--out", "my-model")
        places = ("base_uri=s3://BUCKET/base", "tuned_uri=s3://BUCKET/tuned")
        return [
            NextStep("Talk to it, base and tuned side by side", chat),
            NextStep("Write it as one model that any server loads", merge),
            NextStep("Put it into MLflow's registry", command_of("mixtune", "register", run, "--name", "my-model")),
            NextStep(
                "Write the objects that serve it, once its files lie on s3://",
                command_of("mixtune", "serve", run, "--name", "my-model", *places),
            ),
        ]
    if verdict == "fail":
        return [_forget_less(pipeline, again, values), *look]
    if verdict == "inconclusive":
        if is_limited:
            return [more]
        return [NextStep("Give larger benchmark files by benchmarks=...; another training would not tell more")]
    if pipeline == "compare_models":
        return tune_chosen(run, str(values.get("base_model", "")))
    if pipeline == "prepare_data":
        tune = command_of("mixtune", "run", "finetune", "--like", run)
        return [NextStep("Read the mix's receipt on the report's pages, then tune on it", tune)]
    return []


def known_arguments(comparisons: Sequence[Comparison]) -> Options:
    """Return what a run's comparisons tell of its arguments, where nothing else does."""
    mixes = [comparison.mix for comparison in comparisons if comparison.mix]
    steps, percents = {mix.num_steps for mix in mixes}, [mix.percent for mix in mixes]
    epochs = [pool.epochs for mix in mixes for pool in mix.receipt.pools if pool.name == CUSTOMER_AXIS]
    return {
        "customer_data_percents": percents,
        "customer_data_percent": max(percents, default=0.0),
        "max_steps": steps.pop() if len(steps) == 1 else 0,
        "customer_epochs": round(max(epochs, default=0.0), 1),
        "evaluate_options": {"limit": max(comparison.limit for comparison in comparisons)},
    }


def with_words(steps: list[NextStep], words: list[str]) -> list[NextStep]:
    """Return steps whose commands end in further words."""
    added = f" {shlex.join(words)}" if words else ""
    return [step._replace(command=f"{step.command}{added}") if step.command else step for step in steps]


def tune_chosen(run: str, model: str) -> list[NextStep]:
    """Return what to do after a run that chose a base model."""
    command = command_of("mixtune", "run", "finetune", "--like", run, f"base_model={storage.plain_uri(model)}")
    return [NextStep("Tune it on your records", command)]


def _longer(arguments: Options) -> str:
    """Return the argument that doubles a training."""
    steps, epochs = int(arguments.get("max_steps") or 0), float(arguments.get("customer_epochs") or 1)
    return f"max_steps={2 * steps}" if steps else f"customer_epochs={2 * epochs:g}"


def _forget_less(pipeline: str, again: tuple[str, ...], arguments: Options) -> NextStep:
    """Return what to do, of a pipeline, where a general axis lost too much."""
    if pipeline == "evaluate_only":
        return NextStep("Draw it back towards its base", command_of("mixtune", "run", "restore", *again[3:]))
    share = _smaller_share(pipeline, arguments)
    text = "Raise the general share, before learning rate or steps"
    return NextStep(text, command_of(*again, share) if share else "")


def _after_search(run: str, report: RunReport | None) -> list[NextStep]:
    """Return the steps that a search's report proposes where no share passed."""
    steps, last = [], list_candidates(report)[-1].comparison if report else None
    if last and last.verdict == "inconclusive" and last.limit:
        named = (f"model_uri={storage.plain_uri(last.model_uri)}", "evaluate_options.limit=0")
        command = command_of("mixtune", "run", "evaluate_only", "--like", run, *named)
        steps.append(NextStep("Evaluate the model on all items, without a training", command))
    if isinstance(report, GridReport) and report.likelier_percent:
        share = f"customer_data_percent={report.likelier_percent:g}"
        command = command_of("mixtune", "run", "finetune", "--like", run, share)
        steps.append(NextStep("Train at the share that is likelier to pass", command))
    text = "More general records make no pass likely: give more benchmark items, other general records, or a max_drop"
    return steps or [NextStep(text)]


def _smaller_share(pipeline: str, arguments: Options) -> str:
    """Return the argument that halves the customer's share, or of a grid its smallest; empty where there is none."""
    if pipeline == "mix_grid":
        percents = arguments.get("customer_data_percents") or [50.0]
        least = max(LEAST_PERCENT, min(float(percent) for percent in percents) / 2)
        return f"customer_data_percents=[{least:g}]"
    if pipeline not in (*TUNE, "restore"):
        return ""
    share = float(arguments.get("customer_data_percent") or (25.0 if pipeline == "restore" else 50.0))
    return f"customer_data_percent={75 if share > 75 else 50 if share > 50 else max(LEAST_PERCENT, share / 2):g}"


def steps_html(steps: list[NextStep]) -> str:
    """Return the steps as a section of a page; empty where there are none."""
    lines = [f"<p>{escape(step.text)}{':' if step.command else '.'}</p>" for step in steps]
    commands = [f"<pre>{escape(step.command)}</pre>" if step.command else "" for step in steps]
    shown = "".join(line + command for line, command in zip(lines, commands, strict=True))
    return f"<h2>What next</h2>{shown}" if steps else ""
