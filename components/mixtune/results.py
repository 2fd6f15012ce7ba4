"""What runs came to, wherever they ran: verdict, cost and mix, from MLflow or from their artifacts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mixtune import storage
from mixtune.errors import ClusterError, DataError
from mixtune.report import pages
from mixtune.tracking import Tracking

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
"""The verdicts, on an axis and overall."""
CUSTOMER_AXIS = "customer"
"""The axis of the customer's own records; the others are general."""
EXIT_CODES = {PASS: 0, FAIL: 3, INCONCLUSIVE: 4}
"""Exit code of a command by verdict."""
REPORTS = (("choose-rung", "ladder"), ("choose-mix", "grid"), ("compare", "comparison"))
"""Tasks that judge a whole run, and their JSON; where several do, the first is the run's."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One line of `mixtune runs`."""

    run_id: str
    began: str
    """Date and time, text."""
    arguments: dict[str, Any]
    verdict: str
    """pass, fail, inconclusive; else the run's state; empty where nothing is known."""
    cost: float | None
    """US dollars of training; None where it is not known."""


def from_mlflow(tracking: dict[str, Any], run_id: str) -> tuple[str, float | None]:
    """Verdict and cost of a pipeline run as its MLflow parent run has them; empty and None where it has none."""
    where = Tracking.from_options(tracking)
    if not where.uri:
        return "", None
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=where.uri)
    try:
        experiment = client.get_experiment_by_name(where.experiment)
        if experiment is None:
            return "", None
        clause = f"tags.pipeline_run_id = '{run_id}'"
        runs = client.search_runs([experiment.experiment_id], clause, max_results=1)
    except (MlflowException, OSError):
        return "", None
    if not runs:
        return "", None
    tags = runs[0].data.tags
    return tags.get("verdict", ""), float(tags["cost_usd"]) if "cost_usd" in tags else None


def from_artifacts(folder: str) -> str:
    """Verdict of a pipeline run as its `compare` task wrote it in the run's folder; empty where there is none."""
    for uri in _comparisons(folder):
        return str(storage.read_json(uri).get("verdict", ""))
    return ""


def find_verdict(tracking: dict[str, Any], folder: str, run_id: str) -> str:
    """The verdict of a run that succeeded.

    Args:
        tracking: The run's `tracking` argument.
        folder: Where the run's artifacts lie, `<pipeline root>/<pipeline>/<run id>`; empty: not known.
        run_id: KFP's.

    Raises:
        ClusterError: Neither MLflow nor the artifacts tell it.
    """
    verdict = from_mlflow(tracking, run_id)[0] or from_artifacts(folder)
    if verdict not in EXIT_CODES:
        raise ClusterError(
            f"run {run_id} succeeded, but its verdict cannot be read: neither from MLflow "
            f"({Tracking.from_options(tracking).uri or 'no tracking URI'}) nor from its artifacts "
            f"({folder or 'pipeline root not known'}); set MLFLOW_TRACKING_URI, "
            "or give --pipeline-root and credentials to read it"
        )
    return verdict


def runs_table(listed: list[Listed]) -> str:
    """Runs as lines of text, newest first."""
    rows = [("run", "began", "mix", "method", "verdict", "cost")]
    for run in listed:
        percent = run.arguments.get("customer_data_percent")
        mix = f"{float(percent):g} %" if percent is not None else ""
        cost = f"${run.cost:,.2f}" if run.cost is not None else "-"
        rows.append((run.run_id, run.began, mix, str(run.arguments.get("method", "")), run.verdict or "-", cost))
    return pages.text_table(rows)


def _comparisons(folder: str) -> Iterator[str]:
    """`compare/<execution>/comparison` and the like under a run's folder, as KFP lays artifacts out."""
    if not storage.is_s3(folder):
        return
    for task, name in REPORTS:
        try:
            entries = storage.list_files(storage.join(folder, task))
        except DataError:
            continue
        for entry in entries:
            if entry.path.split("/")[-1] == name:
                yield storage.join(folder, task, entry.path)
