"""The end of a run: its audit record, its cost, and word of it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mixtune import storage
from mixtune.outcome.audit import make_record, who
from mixtune.outcome.webhook import send
from mixtune.prices import usd_per_hour
from mixtune.tracking import Run, Tracking, task_run

TRAININGS = ("train", "validate-training")
"""Beginnings of the names of tasks that hold the instances of `tracking.hyperpod`."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A run that came to its end."""

    pipeline: str
    found: dict[str, Any]
    """What `compare`, `choose_mix` or `choose_rung` wrote."""
    record_uri: str


def conclude_run(ended: Ended, record_path: str, options: dict[str, Any]) -> str:
    """Write the audit record, tag the MLflow run with its cost, tell the webhook; the cost comes back as text.

    Args:
        ended: The run.
        record_path: Where the record goes.
        options: The `tracking` parameter.
    """
    where = Tracking.from_options(options)
    with task_run(where, "outcome") as run:
        cost = cost_of(run, where.hyperpod)
        known = "" if cost is None else f"{cost:.2f}"
        record = {
            **make_record(ended.found),
            "run_id": os.environ.get("MIXTUNE_RUN_ID", ""),
            "ended": datetime.now(UTC).isoformat(timespec="seconds"),
            "who": who(where.tags),
            "cost_usd": cost,
            "model_uri": ended.found["model_uri"],
        }
        storage.write_json(record_path, record)
        if known:
            run.parent.set_tags({"cost_usd": known})
        if run.run_id:
            run.parent.log_text("audit.json", json.dumps(record, indent=1))
        print(send(message_of(ended, record, mlflow_link(run, where.uri))), flush=True)
    return known


def message_of(ended: Ended, record: Mapping[str, Any], mlflow: str) -> dict[str, Any]:
    """What the webhook is told: run, verdict, cost, links. Chat services show its `text`."""
    verdict, taken, cost = record["decided"]["verdict"], record["decided"]["taken"], record["cost_usd"]
    price = f", ${cost:,.2f}" if cost is not None else ""
    there = not taken or ended.found.get("strength", 1) == 1  # one that is turned down has still to be made
    links = {"mlflow": mlflow, "model": record["model_uri"] if there else "", "record": ended.record_uri}
    return {
        "text": f"{ended.pipeline} {record['run_id']}: {verdict}{f', {taken}' if taken else ''}{price}",
        "run_id": record["run_id"],
        "pipeline": ended.pipeline,
        "verdict": verdict,
        "taken": taken,
        "cost_usd": cost,
        "links": {name: link for name, link in links.items() if link},
    }


def cost_of(run: Run, hyperpod: str) -> float | None:
    """US dollars of the instances while the run's trainings lasted; None where hours or price are not known.

    Args:
        run: The task's MLflow run: its siblings say how long they took. One from the cache has none, and costs nothing.
        hyperpod: Instances, such as `4x-p5.48xlarge`.
    """
    price = usd_per_hour(hyperpod)
    return None if price is None or not run.parent_id else round(sum(run.siblings_hours(TRAININGS)) * price, 2)


def mlflow_link(run: Run, uri: str) -> str:
    """The run's page, where MLflow is a server with pages; else empty."""
    if not run.run_id or not uri.startswith(("http://", "https://")):
        return ""
    return f"{uri.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.parent.run_id}"
