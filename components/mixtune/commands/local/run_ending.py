"""What a run prints when it has ended: what it came to, where it lies, and what to do next."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.run_report import is_gain_proved
from mixtune.commands.local.run_pages import DATA_SETS, HTML
from mixtune.commands.local.task_processes import TaskResult
from mixtune.commands.local.work_dir import WorkDir
from mixtune.report.next_steps import command_of, next_steps, with_words


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a local run came to."""

    run_id: str
    outputs: Mapping[str, object]
    """What its comparison found: verdict, and URI, mix and strength of the model to take; then its outputs."""
    report: Path | None
    """The HTML report, if the pipeline compared anything."""
    results: tuple[TaskResult, ...] = ()
    """Its tasks, in the order in which they ended."""

    @property
    def verdict(self) -> str:
        """pass, fail or inconclusive; empty for a pipeline without one."""
        return str(self.outputs.get("verdict", ""))


def print_next_steps(run: Outcome, work: WorkDir) -> None:
    """Print a run's outputs, its pages, its record in MLflow and the next commands."""
    chooses_model = run.run_id.startswith("compare_models-")
    for name, value in run.outputs.items():
        text = str(getattr(value, "uri", value))  # a component run by itself leaves artifacts
        named = name == "model_uri" or chooses_model
        if text and getattr(value, "schema_title", "") != HTML:  # the index below leads to every page
            print(f"{'model to take' if chooses_model else name}: {storage.plain_uri(text) if named else text}")
    for result in run.results if not run.verdict else ():
        for name in DATA_SETS:
            if name in result.outputs:
                print(f"{name} of {result.label}: {result.outputs[name].path}")
    index = work.pages(run.run_id) / "index.html"
    print(f"report: {index} (open it in a browser)")
    if (work.root / "mlflow.db").is_file() and os.environ.get("MLFLOW_TRACKING_URI") == work.mlflow_uri:
        line = command_of("mlflow", "ui", "--backend-store-uri", work.mlflow_uri)
        print(f"MLflow: {line}   (run {run.run_id})")
    report = work.run_report(run.run_id) if run.report else None
    gained = not report or is_gain_proved(report)
    arguments = work.arguments(run.run_id)
    if chooses_model:
        arguments = {**arguments, "base_model": str(run.outputs.get("Output", ""))}
    for step in with_words(next_steps(run.verdict, run.run_id, arguments, gained=gained, report=report), work.words):
        print(f"next: {step.text}{':' if step.command else ''} {step.command}".rstrip())
