"""Summarise runs: verdict, cost and mix, from MLflow or from their artifacts."""

from collections.abc import Sequence
from dataclasses import dataclass

from mixtune import storage
from mixtune.artifacts.comparison import EXIT_CODES
from mixtune.artifacts.run_report import REPORT_TASKS, read_verdict
from mixtune.commands.argument_places import Arguments
from mixtune.commands.task_states import duration
from mixtune.errors import ClusterError, DataError
from mixtune.report import pages
from mixtune.settings.from_dict import Options
from mixtune.tracking import Tracking, parent_run


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One row of `mixtune runs`."""

    run_id: str
    began: str
    """Date and time, text."""
    arguments: Arguments
    verdict: str
    """pass, fail, inconclusive; else the run's state; empty where nothing is known."""
    cost: float | None
    """US dollars of training; None where it is not known."""
    status: str = ""
    """`running`, `finished`, `failed in ...` or `interrupted in ...`; empty where nothing is known."""
    seconds: float = 0.0
    """That it took; 0: not known."""
    score: str = ""
    """The customer's score of base and tuned model."""


def read_mlflow_verdict(tracking: Options, run_id: str) -> tuple[str, float | None]:
    """Return verdict and cost of a pipeline run as its MLflow parent run has them; empty and None where it has none."""
    where = Tracking.from_options(tracking)
    if not where.uri:
        return "", None
    from mlflow.exceptions import MlflowException

    try:
        run = parent_run(where, run_id)
        tags = run.tags if run else {}
    except (MlflowException, OSError):
        return "", None
    return tags.get("verdict", ""), float(tags["cost_usd"]) if "cost_usd" in tags else None


def read_artifacts_verdict(folder: str) -> str:
    """Return a pipeline run's verdict out of its folder in S3, as KFP lays artifacts out; empty where there is none."""
    for task, name in REPORT_TASKS.items() if storage.is_s3(folder) else ():
        try:
            entries = storage.list_files(storage.join(folder, task))
        except DataError:
            continue
        for entry in entries:
            if entry.path.split("/")[-1] == name:
                return read_verdict(storage.join(folder, task, entry.path))
    return ""


def find_verdict(tracking: Options, folder: str, run_id: str) -> str:
    """Return the verdict of a run that succeeded, by its `tracking` argument or its artifacts' folder (empty: unknown).

    Raises:
        ClusterError: Neither MLflow nor the artifacts tell it.
    """
    verdict = read_mlflow_verdict(tracking, run_id)[0] or read_artifacts_verdict(folder)
    if verdict not in EXIT_CODES:
        raise ClusterError(
            f"run {run_id} succeeded, but its verdict cannot be read: neither from MLflow "
            f"({Tracking.from_options(tracking).uri or 'no tracking URI'}) nor from its artifacts "
            f"({folder or 'pipeline root not known'}); set MLFLOW_TRACKING_URI, "
            "or give --pipeline-root and credentials to read it"
        )
    return verdict


def format_runs(runs: Sequence[RunSummary]) -> str:
    """Return runs as lines of text, in their order."""
    rows: list[Sequence[str]] = [("run", "began", "status", "took", "mix", "method", "verdict", "customer", "cost")]
    for run in runs:
        percents = run.arguments.get("customer_data_percents") or [run.arguments.get("customer_data_percent")]
        mix = ", ".join(f"{float(percent):g}" for percent in percents if percent is not None)
        cost = f"${run.cost:,.2f}" if run.cost is not None else ""
        took = duration(run.seconds) if run.seconds else ""
        method = str(run.arguments.get("method", ""))
        cells = (run.status, took, f"{mix} %" if mix else "", method, run.verdict, run.score, cost)
        rows.append((run.run_id, run.began, *(cell or "-" for cell in cells)))
    return pages.text_table(rows)
