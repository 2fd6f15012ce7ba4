"""What a run prints when it has ended: what it came to, where it lies, and what to do next."""

import os
from typing import Any, Protocol

from mixtune import storage
from mixtune.commands.local.run_pages import DATA_SETS
from mixtune.commands.local.task_processes import TaskResult
from mixtune.commands.local.work_dir import WorkDir
from mixtune.report.next_steps import command_of, next_steps


class Ended(Protocol):
    """A run that has ended."""

    @property
    def run_id(self) -> str:
        """Of the run."""
        ...

    @property
    def outputs(self) -> dict[str, Any]:
        """What it came to, by name."""
        ...

    @property
    def results(self) -> tuple[TaskResult, ...]:
        """Its tasks."""
        ...

    @property
    def verdict(self) -> str:
        """`pass`, `fail` or `inconclusive`; empty for a pipeline without one."""
        ...


def print_next_steps(run: Ended, work: WorkDir) -> None:
    """Print a run's outputs, its pages, its record in MLflow and the next commands."""
    for name, value in run.outputs.items():
        text = str(getattr(value, "uri", value))  # a component run by itself leaves artifacts
        print(f"{name}: {storage.split_fingerprint(text)[0] if name == 'model_uri' else text}")
    if not run.verdict:
        for label, name, path in data_sets(run):
            print(f"{name} of {label}: {path}")
    index = work.pages(run.run_id) / "index.html"
    print(f"report: {index} (open it in a browser)")
    if (work.root / "mlflow.db").is_file() and os.environ.get("MLFLOW_TRACKING_URI") == work.mlflow_uri:
        line = command_of("mlflow", "ui", "--backend-store-uri", work.mlflow_uri)
        print(f"MLflow: {line}   (run {run.run_id})")
    for step in next_steps(run.verdict, run.run_id, work.arguments(run.run_id)):
        print(f"next: {step.text}{':' if step.command else ''} {step.command}".rstrip())


def data_sets(run: Ended) -> list[tuple[str, str, str]]:
    """Return task, name and path of the data sets that a run left."""
    return [
        (result.label, name, str(result.outputs[name].path))
        for result in run.results
        for name in DATA_SETS
        if name in result.outputs
    ]
