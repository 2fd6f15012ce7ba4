"""A comparison in MLflow: what every step of the run left in its manifest, cached steps included."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from mixtune import storage, tracking
from mixtune.artifacts.comparison import Comparison
from mixtune.artifacts.judgments import Judgments
from mixtune.artifacts.samples import Samples
from mixtune.artifacts.shards import ShardsManifest
from mixtune.compare.comparison_page import summarize
from mixtune.compare.judge.run import calibration_metrics, share_preferences
from mixtune.report.pool_report import make_pages

PARAMETERS = ("seed", "global_batch_size", "num_steps", "mix_ratio", "planned_share", "version")
"""Names of values that were asked for, not counted."""


def log_comparison(
    options: Mapping[str, object],
    comparison: Comparison,
    sides: dict[str, Samples],
    shards: ShardsManifest | None,
    judgments: Judgments | None,
    files: list[Path],
) -> None:
    """Log the comparison, both evaluations, the judge and the data steps as child runs of the pipeline's run.

    `options` are the `tracking` parameter; `sides` the samples of `base` and `candidate`; `files` the report's.
    """
    where = tracking.Tracking.from_options(options)
    mix_ratio = shards.mix_ratio if shards else None
    names = {"base": "evaluate-base", "candidate": tracking.point_name("evaluate-candidate", mix_ratio)}
    subjects = {side: storage.manifest_digest(asdict(identity)) for side, identity in comparison.identity.items()}
    subject = subjects["candidate"]
    for side, samples in sides.items():
        with tracking.task_run(where, names[side], subjects[side], samples.seconds) as run:
            run.log_params(_flat({"identity": asdict(samples.identity)}))
            axes = samples.axes.items()
            run.log_metrics({f"{name}/{key}": value for name, axis in axes for key, value in axis.scores.items()})
            run.log_metrics(slice_metrics(comparison, side))
    if shards:
        publish_data(where, shards)
    if judgments:
        with tracking.task_run(where, tracking.point_name("judge", mix_ratio), subject) as run:
            run.log_params(_flat({"judge": asdict(judgments.judge), "axis": judgments.axis}))
            run.log_metrics({**calibration_metrics(judgments.calibration), **share_preferences(judgments)})
    with tracking.task_run(where, tracking.point_name("compare", mix_ratio), subject) as run:
        for axis in comparison.axes:
            change, scores = axis.measure.change, {"base": axis.measure.base, "candidate": axis.measure.candidate}
            bounds = {"difference": change.difference, "lower": change.lower, "upper": change.upper}
            values = {**scores, **bounds, "limit": axis.limit}
            run.log_metrics({f"{axis.axis}/{key}": value for key, value in values.items()})
            run.set_tags({f"verdict.{axis.axis}": axis.verdict})
        run.log_metrics({f"contamination/{overlap.axis}": overlap.exact for overlap in comparison.contamination})
        for point in comparison.dial:
            scores = {f"{axis.axis}/turned_down": axis.measure.candidate for axis in point.axes}
            run.log_metrics(scores, round(100 * point.strength))
        run.set_tags({"verdict": comparison.verdict})
        for file in files:
            run.log_artifact(file)
        if run.run_id:
            tags = tracking.article_tags(shards.article_tags(), where) if shards else {}
            note = {tracking.NOTE: f"**{comparison.verdict}**: {summarize(comparison)}"}
            run.parent.set_tags({**tags, "verdict": comparison.verdict, **note})


def slice_metrics(comparison: Comparison, side: str) -> dict[str, float]:
    """Return the share of right items by subject or label as `<axis>/subject/<name>`, of axes that have several."""
    return {
        tracking.as_name(f"{axis.axis}/subject/{group.name}"): group.base if side == "base" else group.candidate
        for axis in comparison.axes
        if len(axis.details.subgroups) > 1 and axis.measure.higher_is_better
        for group in axis.details.subgroups
    }


def publish_data(where: tracking.Tracking, shards: ShardsManifest) -> None:
    """Log what sanitize and mix_shard left in the shards' manifest, with a report page for each pool artifact."""
    for name, pools in shards.inputs.items():
        with tracking.task_run(where, f"sanitize-{name}") as run:
            _log_values(run, _flat({**asdict(pools), "details": {}}))
            if pools.details:
                for file, text in zip(("sanitize.html", "sanitize.md"), make_pages(pools), strict=True):
                    run.log_text(file, text)
    with tracking.task_run(where, tracking.point_name("mix-shard", shards.mix_ratio), shards.digest) as run:
        totals = asdict(replace(shards.receipt, pools=(), windows=()))
        metrics = {tracking.as_name(name): value for name, value in shards.receipt.metrics().items()}
        _log_values(run, {**_flat({"receipt": totals, "num_steps": shards.num_steps}), **metrics})


def _log_values(run: tracking.Run, values: Mapping[str, object]) -> None:
    """Log figures as metrics, and what was asked for as parameters."""
    numbers = {}
    for key, value in values.items():
        parts = key.split("/")
        is_parameter = "rules" in parts or parts[-1] in PARAMETERS or isinstance(value, bool)
        if isinstance(value, int | float) and not is_parameter:
            numbers[key] = value
    run.log_metrics(numbers)
    run.log_params({key: value for key, value in values.items() if key not in numbers})


def _flat(value: object, name: str = "") -> dict[str, object]:
    """Return nested values under names joined with `/`; lists as text."""
    if isinstance(value, dict):
        flat: dict[str, object] = {}
        for key, item in value.items():
            flat.update(_flat(item, f"{name}/{key}" if name else str(key)))
        return flat
    return {tracking.as_name(name): value if isinstance(value, int | float | str) else str(value)}
