"""A run's audit record, made of its report."""

import getpass
import os
from collections.abc import Iterable, Mapping
from typing import Any

from mixtune import __version__, storage
from mixtune.artifacts.audit import (
    AuditedAxis,
    AuditedCandidate,
    AuditedModel,
    AuditedSource,
    AuditRecord,
    Decided,
    Removed,
    TrainedOn,
    Versions,
)
from mixtune.artifacts.comparison import AxisVerdict, TrainedMix
from mixtune.artifacts.grid import Candidate
from mixtune.artifacts.pools import RowCounts
from mixtune.artifacts.run_report import RunReport, find_recommendation, list_candidates, report_outputs
from mixtune.kubernetes_api import pod_namespace
from mixtune.tracking import commit_hash

SUBMITTER = "submitted_by"
"""The tag (`tracking.tags`) that says who is behind a run; Kubernetes does not tell a pod."""


def make_record(report: RunReport, *, run_id: str, ended: str, who: str, cost_usd: float | None) -> AuditRecord:
    """Return the audit record of a run.

    Args:
        report: What the run's last task found.
        run_id: KFP's, or that of a run on this machine.
        ended: Time in UTC, ISO 8601.
        who: Whom the run is put down to.
        cost_usd: None: not known.

    Raises:
        DataError: A candidate was compared without its shards.
    """
    candidates, recommended = list_candidates(report), find_recommendation(report)
    mixes = [candidate.mix for candidate in candidates]
    base = candidates[0].comparison.identity["base"]
    return AuditRecord(
        run_id=run_id,
        ended=ended,
        who=who,
        cost_usd=cost_usd,
        model_uri=str(report_outputs(report)["model_uri"]),
        versions=Versions(
            mixtune=__version__,
            commit=commit_hash(),
            images=tuple(os.environ.get("MIXTUNE_IMAGES", "").split()),
            base_model=base.base_model,
            tokenizer=base.tokenizer,
            benchmarks={name: str(options.get("uri", "")) for name, options in base.benchmarks.items()},
        ),
        data=tuple(_list_sources(mixes[0])),
        rules={name: pools.rules for name, pools in mixes[0].inputs.items()},
        candidates=tuple(_audit_candidate(candidate) for candidate in candidates),
        turned_down=tuple(
            AuditedModel(
                name=f"{candidate.name} at {point.strength:g}",
                verdict=point.verdict,
                reason=point.reason,
                axes=_audit_axes(point.axes),
            )
            for candidate in candidates
            for point in candidate.comparison.dial
        ),
        decided=Decided(verdict=report.verdict, reason=report.reason, taken=recommended.name if recommended else ""),
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


def _audit_candidate(candidate: Candidate) -> AuditedCandidate:
    comparison, mix = candidate.comparison, candidate.mix
    return AuditedCandidate(
        name=candidate.name,
        verdict=comparison.verdict,
        reason=comparison.reason,
        axes=_audit_axes(comparison.axes),
        model=comparison.identity["candidate"].model,
        shards=mix.digest,
        trained_on=TrainedOn(
            mix_ratio=mix.mix_ratio,
            seed=mix.seed,
            steps=mix.num_steps,
            records={pool["name"]: pool["num_records"] for pool in mix.receipt["pools"]},
        ),
        removed={pool["name"]: _count_removed(pool, mix) for pool in mix.receipt["pools"]},
        in_training_data={overlap.axis: overlap.exact for overlap in comparison.contamination},
    )


def _audit_axes(axes: Iterable[AxisVerdict]) -> tuple[AuditedAxis, ...]:
    return tuple(
        AuditedAxis(axis=axis.axis, limit=axis.limit, verdict=axis.verdict, measure=axis.measure) for axis in axes
    )


def _list_sources(mix: TrainedMix) -> Iterable[AuditedSource]:
    for pools in mix.inputs.values():
        for source in pools.inputs:
            uri, digest = storage.split_fingerprint(source.uri)
            licence = source.provenance.licence if source.provenance else ""
            yield AuditedSource(pool=source.name, split=source.split, uri=uri, digest=digest, licence=licence)


def _count_removed(pool: Mapping[str, Any], mix: TrainedMix) -> Removed:
    counts = next(
        (pools.counts[pool["name"]] for pools in mix.inputs.values() if pool["name"] in pools.counts), RowCounts()
    )
    return Removed(
        read=counts.read,
        kept=counts.kept,
        dropped=counts.dropped,
        changed=counts.changed,
        personal_data=counts.personal_data,
        consent=counts.consent,
        dropped_when_tokenized=pool["dropped"],
        truncated=pool["num_truncated"],
    )
