"""The component's two steps: what a shell hands over, made ready and run."""

import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from mixtune import storage
from mixtune.artifacts.pools import PoolInputs, mixed_pools
from mixtune.artifacts.samples import Samples, read_samples
from mixtune.compare import summary
from mixtune.compare.comparison import Comparison, Turned, compare_samples, without_candidate
from mixtune.compare.contamination import Overlap, check_contamination
from mixtune.compare.judge import run as judge_run
from mixtune.compare.mlflow_log import publish
from mixtune.models import FAILED


@dataclass(frozen=True, kw_only=True)
class CompareInputs:
    """What `compare` reads."""

    base_path: str
    """Manifest of the base model's samples."""
    candidate_path: str
    """Manifest of the candidate's samples."""
    shards_path: str = ""
    """Manifest of the shards; empty: not given."""
    judgments_path: str = ""
    """What `judge` wrote; empty: no judge."""
    dial_path: str = ""
    """What `sweep_dial` wrote; empty: nothing was turned down."""
    allow_overlap: bool = False
    """Go on although a benchmark's item is in the training data word for word."""
    limits: dict[str, Any] = field(default_factory=dict)
    tracking: dict[str, Any] = field(default_factory=dict)
    storage: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class CompareOutputs:
    """Where `compare` writes."""

    comparison_path: str
    report_path: str
    summary_path: str


def run_comparison(inputs: CompareInputs, outputs: CompareOutputs) -> Comparison:
    """Compare two samples artifacts, write the reports and log everything to MLflow."""
    storage.use(inputs.storage)
    base, candidate = read_samples(inputs.base_path), read_samples(inputs.candidate_path)
    shards = storage.read_manifest(inputs.shards_path, "shards") if inputs.shards_path else None
    judgments = judge_run.read_judgments(inputs.judgments_path, base, candidate) if inputs.judgments_path else None
    comparison = _compared(base, candidate, shards, judgments, inputs)
    storage.write_json(outputs.comparison_path, comparison.as_json())
    summary.write_comparison(comparison, html=outputs.report_path, markdown=outputs.summary_path)
    print(f"compare: {comparison.verdict}; {summary.summary(comparison)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("comparison.json", "report.html", "summary.md")]
        for file, uri in zip(files, (outputs.comparison_path, outputs.report_path, outputs.summary_path), strict=True):
            with storage.open_read(uri) as stream:
                file.write_bytes(stream.read())
        publish(inputs.tracking, comparison, {"base": base, "candidate": candidate}, shards, judgments, files)
    return comparison


def _compared(
    base: Samples,
    candidate: Samples,
    shards: dict[str, Any] | None,
    judgments: dict[str, Any] | None,
    inputs: CompareInputs,
) -> Comparison:
    if reason := candidate.manifest.get("failed", ""):
        return without_candidate(base, reason, mix_of(shards))
    overlaps = _contamination(base, inputs)
    limits, judged = dict(inputs.limits), None
    if judgments:
        judged = judge_run.judged_axis(judgments, float(limits.pop(judge_run.AXIS, judge_run.DEFAULT_LIMIT)))
    found = compare_samples(base, candidate, limits, contamination=overlaps, mix=mix_of(shards), judged=judged)
    swept = storage.read_manifest(inputs.dial_path, "dial")["turned"] if inputs.dial_path else []
    return replace(found, dial=[_turned(one, base, limits) for one in swept])


def _turned(one: dict[str, Any], base: Samples, limits: dict[str, Any]) -> Turned:
    """The candidate at one strength; where it was not evaluated, with the reason."""
    if "reason" in one:
        return Turned(strength=one["strength"], verdict=FAILED, reason=one["reason"])
    found = compare_samples(base, read_samples(one["samples"]), limits)
    axes = [replace(axis, slices=[], flips=[], confusion={}) for axis in found.axes]
    return Turned(strength=one["strength"], verdict=found.verdict, axes=axes)


def mix_of(shards: dict[str, Any] | None) -> dict[str, Any]:
    """What a comparison says of the data that the candidate was trained on; empty without shards."""
    if not shards:
        return {}
    kept = ("seed", "mix_ratio", "num_steps", "global_batch_size", "code_version", "receipt")
    pools = mixed_pools(shards)
    terms = {pool: asdict(terms) for part in pools.values() for pool, terms in part.terms.items()}
    told = {key: shards[key] for key in kept if key in shards}
    return {
        "digest": storage.manifest_digest(shards),
        **told,
        "inputs": {name: asdict(PoolInputs.of(part)) for name, part in pools.items()},
        **({"provenance": terms} if terms else {}),
    }


def _contamination(samples: Samples, inputs: CompareInputs) -> list[Overlap]:
    if not inputs.shards_path:
        return []
    with tempfile.TemporaryDirectory() as folder:
        return check_contamination(samples, inputs.shards_path, Path(folder), allow=inputs.allow_overlap)
