"""What to do after a run, by its verdict: a sentence and a command that can be pasted."""

import shlex
import shutil
import sys
from html import escape
from pathlib import Path
from typing import NamedTuple

from mixtune.settings.from_dict import Options

RUN = "RUN_ID"
"""Stands for the run's id where it is not known."""
LEAST_PERCENT = 12.5
"""Customer share below which a smaller one is no longer proposed."""


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


def next_steps(verdict: str, run_id: str = "", arguments: Options | None = None) -> list[NextStep]:
    """Return what to do after a verdict.

    Args:
        verdict: `pass`, `fail`, `inconclusive` or `failed`.
        run_id: Of the run; empty: not known.
        arguments: Of the run, as far as they are known.
    """
    run, values = run_id or RUN, arguments or {}
    pipeline = run.rsplit("-", 3)[0] if run_id else "finetune"
    chat, again = command_of("mixtune", "chat", run), ("mixtune", "run", pipeline, "--like", run)
    if verdict == "pass":
        merge = command_of("mixtune", "merge", run, "--out", "my-model")
        return [
            NextStep("Talk to it, base and tuned side by side", chat),
            NextStep("Write it as one model that any server loads", merge),
            NextStep("Or serve the adapter as it is: vllm serve BASE --enable-lora --lora-modules mine=ADAPTER"),
        ]
    if verdict == "fail":
        less = command_of(*again, _smaller_share(values))
        return [
            NextStep("Raise the general share, before learning rate or steps", less),
            NextStep("See what it answers now, beside its base", chat),
        ]
    if verdict == "inconclusive":
        limited = (values.get("evaluate_options") or {}).get("limit")
        more = "evaluate_options.limit=0" if limited else "benchmarks=@more-benchmarks.json"
        return [NextStep("Evaluate on more items; another training would not tell more", command_of(*again, more))]
    return []


def _smaller_share(arguments: Options) -> str:
    """Return the argument that halves the customer's share, or of a grid its smallest."""
    percents = arguments.get("customer_data_percents") or []
    if percents:
        least = max(LEAST_PERCENT, min(float(percent) for percent in percents) / 2)
        return f"customer_data_percents=[{least:g}]"
    share = float(arguments.get("customer_data_percent") or 50.0)
    return f"customer_data_percent={75 if share > 75 else 50 if share > 50 else max(LEAST_PERCENT, share / 2):g}"


def steps_html(steps: list[NextStep]) -> str:
    """Return the steps as a section of a page; empty where there are none."""
    lines = [f"<p>{escape(step.text)}{':' if step.command else '.'}</p>" + _pre(step.command) for step in steps]
    return f"<h2>What next</h2>{''.join(lines)}" if steps else ""


def _pre(command: str) -> str:
    return f"<pre>{escape(command)}</pre>" if command else ""
