"""What a run came to, on its parent run in MLflow: the list of runs then says it without opening any."""

from typing import TypeAlias

from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS, Comparison
from mixtune.artifacts.grid import Candidate
from mixtune.artifacts.model import find_manifest
from mixtune.artifacts.run_report import RunReport, find_recommendation, list_candidates
from mixtune.settings.train import TrainSettings
from mixtune.tracking import NOTE, Run

Values: TypeAlias = dict[str, object]


def track_outcome(parent: Run, pipeline: str, report: RunReport) -> None:
    """Log mix, method and scores as parameters, metrics and tags of a run's parent, and what was decided as its note.

    Values are the recommended candidate's, else the only one's; of several mixes all are said. The parent may keep
    nothing.
    """
    candidates, recommended = list_candidates(report), find_recommendation(report)
    chosen = [item for item in candidates if recommended and item.comparison.model_uri == recommended.model_uri]
    best = chosen[0] if chosen else candidates[0] if len(candidates) == 1 else None
    params: Values = {"pipeline": pipeline, "candidates": len(candidates)}
    tags: Values = _mixes(candidates)
    if best:
        manifest = find_manifest(best.comparison.model_uri)
        settings = manifest.settings if manifest else None
        params |= _params(best, settings)
        if manifest and manifest.base_model:
            params["base_model"] = storage.plain_uri(manifest.base_model)
        tags |= settings.article_tags() if settings else {}
        parent.log_metrics(_metrics(best.comparison))
    if not isinstance(report, Comparison):
        tags[NOTE] = f"**{report.verdict}**: {report.reason}"
    parent.log_params(params)
    parent.set_tags(tags)


def _mixes(candidates: tuple[Candidate, ...]) -> Values:
    """Return the article's tags on the mix, of all candidates, each value once."""
    mixes = [item.comparison.mix for item in candidates if item.comparison.mix]
    names = {"mix_ratio": [f"{mix.mix_ratio:g}" for mix in mixes], "steps": [str(mix.num_steps) for mix in mixes]}
    return {name: ", ".join(dict.fromkeys(values)) for name, values in names.items() if values}


def _params(candidate: Candidate, settings: TrainSettings | None) -> Values:
    comparison = candidate.comparison
    params: Values = {"base_model": comparison.identity["base"].base_model} if "base" in comparison.identity else {}
    if mix := comparison.mix:
        params |= {"customer_data_percent": mix.percent, "seed": mix.seed, "steps": mix.num_steps}
        params["global_batch_size"] = mix.global_batch_size
    if settings:
        params |= {"method": settings.method, "learning_rate": settings.learning_rate}
        if settings.method == "lora":
            params |= {"lora_rank": settings.lora_rank, "lora_alpha": settings.lora_alpha}
    return params


def _metrics(comparison: Comparison) -> dict[str, float]:
    """Return the score and the difference of every axis, the customer's gain, and the worst general loss.

    A loss is in allowed losses of its axis: 1 is all that it may lose.
    """
    metrics: dict[str, float] = {}
    for axis in comparison.axes:
        metrics[axis.axis] = axis.measure.candidate
        metrics[f"{axis.axis}_change"] = axis.measure.change.difference
        if axis.axis == CUSTOMER_AXIS:
            metrics["gain"] = axis.measure.benefit.difference
    general = [axis for axis in comparison.axes if axis.axis != CUSTOMER_AXIS and axis.limit]
    losses = [-axis.measure.benefit.difference / axis.limit for axis in general]
    return {**metrics, **({"worst_general_loss": max(losses)} if losses else {})}
