"""The component's two steps: what a shell hands over, made ready and run."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.comparison import FAILED, Comparison, DialVerdict, Overlap, TrainedMix
from mixtune.artifacts.judgments import Judgments
from mixtune.artifacts.pools import PoolInputs
from mixtune.artifacts.samples import Dial, DialPoint, Samples, read_samples
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.compare.comparison_page import summarize, write_comparison
from mixtune.compare.contamination import check_contamination
from mixtune.compare.judge import run as judge_run
from mixtune.compare.mlflow_log import log_comparison
from mixtune.compare.paired_samples import compare_samples, without_candidate
from mixtune.report.outputs import Outputs
from mixtune.settings.from_dict import Options


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
    earlier_path: str = ""
    """Manifest of the samples of the model that the candidate was restored from; empty: it was not."""
    allow_overlap: bool = False
    """Go on although a benchmark's item is in the training data word for word."""
    same: bool = False
    """The candidate is the base's model in another form, and ought to be the same."""
    limits: Options = field(default_factory=dict)
    tracking: Options = field(default_factory=dict)
    storage: Options = field(default_factory=dict)


def run_comparison(inputs: CompareInputs, outputs: Outputs) -> Comparison:
    """Compare two samples artifacts, write the reports and log everything to MLflow."""
    storage.configure_storage(inputs.storage)
    base, candidate = read_samples(inputs.base_path), read_samples(inputs.candidate_path)
    shards = read_artifact(ShardsManifest, inputs.shards_path) if inputs.shards_path else None
    judgments = judge_run.read_judgments(inputs.judgments_path, base, candidate) if inputs.judgments_path else None
    comparison = _compare(base, candidate, shards, judgments, inputs)
    write_comparison(comparison, html=outputs.html_path, markdown=outputs.markdown_path)
    write_artifact(outputs.json_path, comparison)
    print(f"compare: {comparison.verdict}; {summarize(comparison)}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("comparison.json", "report.html", "summary.md")]
        for file, uri in zip(files, (outputs.json_path, outputs.html_path, outputs.markdown_path), strict=True):
            storage.copy(uri, str(file))
        log_comparison(inputs.tracking, comparison, {"base": base, "candidate": candidate}, shards, judgments, files)
    return comparison


def _compare(
    base: Samples, candidate: Samples, shards: ShardsManifest | None, judgments: Judgments | None, inputs: CompareInputs
) -> Comparison:
    mix = describe_mix(shards)
    if candidate.failed:
        return without_candidate(base, candidate.failed, mix)
    limits, judged = dict(inputs.limits), None
    if judgments:
        judged = judge_run.judge_axis(judgments, float(limits.pop(judge_run.AXIS, judge_run.DEFAULT_LIMIT)))
    overlaps = _find_overlaps(base, inputs)
    comparison = compare_samples(base, candidate, limits, mix=mix, judged=judged, same=inputs.same)
    points = read_artifact(Dial, inputs.dial_path).points if inputs.dial_path else ()
    dial = tuple(_compare_dial_point(point, base, limits) for point in points)
    if not inputs.earlier_path:
        return replace(comparison, contamination=overlaps, dial=dial)
    earlier = _compare_dial_point(DialPoint(strength=1.0, samples=inputs.earlier_path), base, limits)
    return replace(comparison, contamination=overlaps, earlier=(*dial, earlier))


def _compare_dial_point(point: DialPoint, base: Samples, limits: Mapping[str, object]) -> DialVerdict:
    """Return the verdict on the candidate at one strength; where it was not evaluated, the reason."""
    if point.reason:
        return DialVerdict(strength=point.strength, verdict=FAILED, reason=point.reason)
    comparison = compare_samples(base, read_samples(point.samples), limits)
    return DialVerdict(strength=point.strength, verdict=comparison.verdict, axes=comparison.axes).without_details()


def describe_mix(shards: ShardsManifest | None) -> TrainedMix | None:
    """Return what a comparison says of the data that the candidate was trained on; None without shards."""
    if not shards:
        return None
    return TrainedMix(
        digest=shards.digest,
        mix_ratio=shards.mix_ratio,
        seed=shards.seed,
        num_steps=shards.num_steps,
        global_batch_size=shards.global_batch_size,
        receipt=shards.receipt,
        inputs={name: PoolInputs.of(pools) for name, pools in shards.inputs.items()},
    )


def _find_overlaps(samples: Samples, inputs: CompareInputs) -> tuple[Overlap, ...]:
    if not inputs.shards_path:
        return ()
    with tempfile.TemporaryDirectory() as folder:
        return check_contamination(samples, inputs.shards_path, Path(folder), allow=inputs.allow_overlap)
