"""The end of a run: its audit record, its cost, and word of it."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime

from mixtune.artifacts.audit import AuditRecord
from mixtune.artifacts.run_report import read_run_report
from mixtune.artifacts.typed_json import to_json, write_artifact
from mixtune.outcome.run_record import find_submitter, make_record
from mixtune.outcome.tracked_outcome import track_outcome
from mixtune.outcome.webhook import send
from mixtune.prices import usd_per_hour
from mixtune.tracking import Run, Tracking, task_run

TRAININGS = ("train", "validate-training")
"""Beginnings of the names of tasks that hold the instances of `tracking.hyperpod`."""


def conclude_run(
    pipeline: str, report_path: str, path: str, link: str, options: Mapping[str, object], endpoint: str = ""
) -> str:
    """Write the audit record, tag the MLflow run with its cost, tell the webhook; return the US dollars, or nothing.

    Args:
        pipeline: Its name.
        report_path: What `compare`, `choose_mix` or `choose_rung` wrote.
        path: Of the audit record.
        link: The same, for the webhook.
        options: The `tracking` parameter.
        endpoint: Address of the served model; empty: none.
    """
    report, where = read_run_report(report_path), Tracking.from_options(options)
    with task_run(where, "outcome") as run:
        cost = compute_cost(run, where.hyperpod)
        record = make_record(
            report,
            run_id=os.environ.get("MIXTUNE_RUN_ID", ""),
            ended=datetime.now(UTC).isoformat(timespec="seconds"),
            who=find_submitter(where.tags),
            cost_usd=cost,
            endpoint=endpoint,
        )
        write_artifact(path, record)
        if cost is not None:
            run.parent.set_tags({"cost_usd": f"{cost:.2f}"})
        if endpoint:
            run.parent.set_tags({"endpoint": endpoint})
        if run.run_id:
            track_outcome(run.parent, pipeline, report)
            run.parent.log_text("audit.json", json.dumps(to_json(record), indent=1))
        # A model at a lower strength has still to be made.
        exists = record.recommended is None or record.recommended.strength == 1
        links = {
            "mlflow": find_mlflow_page(run, where.uri),
            "model": record.model_uri if exists else "",
            "record": link,
            "endpoint": endpoint,
        }
        print(send(make_message(pipeline, record, links)), flush=True)
    run.parent.end("FINISHED")
    return "" if cost is None else f"{cost:.2f}"


def make_message(pipeline: str, record: AuditRecord, links: dict[str, str]) -> dict[str, object]:
    """Return the webhook's message: run, verdict, cost, links that are not empty. Chat services show its `text`."""
    cost, name = record.cost_usd, record.recommended.name if record.recommended else ""
    price = f", ${cost:,.2f}" if cost is not None else ""
    return {
        "text": f"{pipeline} {record.run_id}: {record.verdict}{f', {name}' if name else ''}{price}",
        "run_id": record.run_id,
        "pipeline": pipeline,
        "verdict": record.verdict,
        "taken": name,
        "cost_usd": cost,
        "links": {name: link for name, link in links.items() if link},
    }


def compute_cost(run: Run, hyperpod: str) -> float | None:
    """Return US dollars of instances (`4x-p5.48xlarge`) while the run's trainings lasted; None: hours or price unknown.

    The task's MLflow run has siblings that say how long they took. One from the cache has none, and costs nothing.
    """
    price = usd_per_hour(hyperpod)
    return None if price is None or not run.parent_id else round(sum(run.siblings_hours(TRAININGS)) * price, 2)


def find_mlflow_page(run: Run, uri: str) -> str:
    """Return the address of the run's page, where MLflow is a server with pages; else empty."""
    if not run.run_id or not uri.startswith(("http://", "https://")):
        return ""
    return f"{uri.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.parent.run_id}"
