"""A run's audit record, made of its report."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import replace

from mixtune import __version__
from mixtune.artifacts.audit import AuditRecord, CodeVersions
from mixtune.artifacts.grid import Candidate
from mixtune.artifacts.run_report import RunReport, find_recommendation, list_candidates, report_outputs
from mixtune.kubernetes_api import pod_namespace
from mixtune.tracking import commit_hash

SUBMITTER = "submitted_by"
"""The tag (`tracking.tags`) that says who is behind a run; Kubernetes does not tell a pod."""


def make_record(
    report: RunReport, *, run_id: str, ended: str, who: str, cost_usd: float | None, endpoint: str = ""
) -> AuditRecord:
    """Return the audit record of a run that ended then (UTC, ISO 8601) and is put down to `who`.

    Raises:
        DataError: A candidate was compared without its shards.
    """
    return AuditRecord(
        run_id=run_id,
        ended=ended,
        who=who,
        cost_usd=cost_usd,
        versions=CodeVersions(
            mixtune=__version__, commit=commit_hash(), images=tuple(os.environ.get("MIXTUNE_IMAGES", "").split())
        ),
        verdict=report.verdict,
        reason=report.reason,
        model_uri=str(report_outputs(report)["model_uri"]),
        recommended=find_recommendation(report),
        endpoint=endpoint,
        candidates=tuple(map(_without_content, list_candidates(report))),
    )


def find_submitter(tags: Mapping[str, str]) -> str:
    """Return whom a run is put down to: the tag `submitted_by`, else the pod's namespace, else this machine's user."""
    if name := tags.get(SUBMITTER):
        return str(name)
    if namespace := pod_namespace():
        return f"namespace {namespace}"
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"user id {os.getuid()}"


def _without_content(candidate: Candidate) -> Candidate:
    """Return the candidate without single items."""
    comparison = candidate.comparison
    comparison = replace(
        comparison,
        mix=candidate.mix,
        axes=tuple(axis.without_details() for axis in comparison.axes),
        contamination=tuple(replace(overlap, items=()) for overlap in comparison.contamination),
        dial=tuple(point.without_details() for point in comparison.dial),
        earlier=tuple(point.without_details() for point in comparison.earlier),
    )
    return replace(candidate, comparison=comparison)
