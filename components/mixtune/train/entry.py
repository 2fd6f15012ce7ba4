"""Entry points of the components: train here or as a job of the cluster, and report a failure as `on_error` says."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.model import (
    AdapterShape,
    FailedTraining,
    LossCurve,
    ModelManifest,
    TrainedModel,
    parse_model,
    read_model,
)
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.errors import ConfigError, TrainingError
from mixtune.preflight.findings import Findings
from mixtune.preflight.mixed_checks import Mixed, run_mixed_preflight
from mixtune.report.charts import Curve, curves
from mixtune.report.metrics_artifact import Metrics, write_metrics
from mixtune.report.pages import key_value_table, note, page, with_section, write_text
from mixtune.settings.job import NodeSettings
from mixtune.settings.train import TrainSettings
from mixtune.train.task import TrainTask


@dataclass(frozen=True, kw_only=True)
class TrainPage:
    """The page of a training task: the checks of its data, where they are its business, then what was measured."""

    path: str
    train_options: Mapping[str, object]
    tracking: Mapping[str, object]
    storage: Mapping[str, object]

    def check_data(self, task: TrainTask, nodes: NodeSettings, on_error: str) -> None:
        """Check the mixed data before a model is loaded or a GPU is asked for, and write the page's first part.

        Raises:
            ConfigError: At least one check failed; with `report` it is a TrainingError.
        """
        mixed = Mixed(manifest=read_artifact(ShardsManifest, task.inputs.shards_path))
        run = mixed.run_settings(
            task.inputs.base_model,
            task.settings.method,
            train_options=self.train_options,
            num_nodes=nodes.num_nodes,
            gpus_per_node=nodes.gpus_per_node,
            tracking=dict(self.tracking),
            storage=dict(self.storage),
        )
        try:
            further = {"adapter": partial(check_adapter, task.inputs.base_model, task.settings)}
            run_mixed_preflight(mixed, run, self.path, {} if task.settings.restore else further)
        except ConfigError as error:
            if on_error == "raise":
                raise
            raise TrainingError(" ".join(str(error).splitlines())) from error

    def write_figures(self, task: TrainTask, manifest: ModelManifest, *, checked: bool) -> None:
        """Write what a training came to, or why there is no model; behind the checks, where there are any."""
        title = f"Validation run of {task.validation_steps} steps" if task.validation_steps else "Training"
        reason = f"<p>No model: {escape(manifest.failed)}</p>" if manifest.failed else ""
        shown = {name.removesuffix("_bytes"): _readable(name, value) for name, value in manifest.metrics().items()}
        figures = f"{reason}{_plot_losses(manifest.curves)}{key_value_table(shown)}"
        if checked:
            checks = Path(self.path).read_text(encoding="utf-8")
            write_text(self.path, with_section(checks, title, figures))
        else:
            write_text(self.path, page(title, f"<h1>{title}</h1>{figures}"))


def check_adapter(base_model: str, settings: TrainSettings | None) -> Findings:
    """Make the adapter on the base model without its weights, where it is not the usual one; else load no PyTorch."""
    if not settings or settings.method != "lora" or settings.lora_options == TrainSettings.lora_options:
        return
    from mixtune.train.modeling import adapters

    adapters.check_adapter(models.fetch_model(base_model, weights=False), settings)
    yield "pass", "lora_options fit the base model"


def _plot_losses(losses: Sequence[LossCurve]) -> str:
    """Return the loss of every pool and of what is held out as a plot; empty where nothing was trained."""
    if not losses:
        return ""
    lines = [
        Curve(name=curve.name, points=tuple(zip(curve.steps, curve.losses, strict=True)), dashed=curve.held_out)
        for curve in losses
    ]
    lead = "A pool's points are means of the steps up to the next one. Dashed: records that are never learned."
    first = min(curve.steps[0] for curve in losses if not curve.held_out)
    taken_up = f" The training was taken up at step {first}." if first > 1 else ""
    return f"<h3>Loss by pool</h3>{note(lead + taken_up)}{curves(lines, 'nats a token', form='.3g')}"


def _readable(name: str, value: float) -> str:
    """Return a figure as people read it: bytes as gigabytes, a whole number without a point."""
    if name.endswith("_bytes"):
        return f"{value / 1e9:.2f} GB"
    return f"{value:,.0f}" if value.is_integer() else f"{value:,.4g}"


OF_ADAPTERS = ("lora_plus_ratio", "merge", "lora_dropout")
"""Of `lora_options`, what is not decided when an adapter is made."""


def restore_settings(model_uri: str, options: Mapping[str, object], **parameters: object) -> TrainSettings:
    """Return the settings of a restoration by options of `train` and `restore`; an adapter's rank and scaling are kept.

    `parameters` are `method`, `learning_rate` and `seed`.

    Raises:
        ConfigError: An option that does not fit the model, or is out of its range.
    """
    trained = parse_model(model_uri)
    if isinstance(trained, FailedTraining) or not trained.uri:
        raise ConfigError(f"model_uri: there is no model to restore; got {model_uri!r}")
    adapter = AdapterShape.find(storage.plain_uri(trained.uri))
    if adapter and adapter.kind != "LORA":
        raise ConfigError(
            f"{model_uri}: an adapter of type {adapter.kind}; restore takes LoRA adapters, or all weights"
        )
    if (expected := "lora" if adapter else "sft") != parameters["method"]:
        what = "an adapter" if adapter else "all weights"
        raise ConfigError(f"{model_uri} holds {what}: method is {expected}, got {parameters['method']!r}")
    settings = TrainSettings.from_options({**options, "restore": options.get("restore") or {}}, **parameters)
    if not adapter:
        return settings
    own = {"lora_rank": adapter.rank, "lora_alpha": adapter.alpha}
    if other := [name for name, value in own.items() if options.get(name, value) != value]:
        raise ConfigError(f"train_options: {other[0]} is {options[other[0]]}, of this adapter it is {own[other[0]]}")
    further = options.get("lora_options")
    if isinstance(further, Mapping) and (fixed := sorted(set(further) - set(OF_ADAPTERS))):
        raise ConfigError(f"lora_options: {fixed[0]} says how an adapter is made, and this one is; leave it out")
    return replace(settings, lora_rank=adapter.rank, lora_alpha=adapter.alpha)


def run_here(task: TrainTask) -> TrainedModel:
    """Train, or validate, in this process and those that torchrun started with it."""
    if task.validation_steps:
        from mixtune.train.validation import run_validation

        return run_validation(task)
    from mixtune.train.run import run_training

    return run_training(task)


def train(task: TrainTask, nodes: NodeSettings) -> TrainedModel:
    """Train here, or on nodes of its own; a launcher never loads PyTorch.

    Raises:
        TrainingError: The training had to stop, here or in its job.
        ClusterError: The cluster refused or lost the job.
    """
    if not nodes.count:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            print("this pod is stopped without notice: what a stop leaves is the newest checkpoint", flush=True)
        return run_here(task)
    from mixtune.train.launcher.launch import run_job

    return run_job(task, nodes)


def train_or_report(
    task: TrainTask, nodes: NodeSettings, validated: str, on_error: str, metrics: Metrics, where: TrainPage
) -> str:
    """Train as `train` does; where a failure may not end the run (`on_error` is `report`), return it as text instead.

    `validated` is what the validation run returned; its failure is passed on, and nothing is trained. `metrics` gets
    the figures of the model's manifest, wherever the training ran. A validation run checks its data first.

    Returns:
        A `TrainedModel`, or a `FailedTraining`, as text.

    Raises:
        ConfigError: `on_error` is neither `raise` nor `report`; or, with `raise`, the data does not pass its checks.
        TrainingError: As `train`, with `raise`.
    """
    if on_error not in ("raise", "report"):
        raise ConfigError(f"on_error is raise or report; got {on_error!r}")
    outcome: TrainedModel | FailedTraining
    checked = False
    try:
        validation = parse_model(validated)
        if isinstance(validation, FailedTraining):
            raise TrainingError(validation.reason)
        if task.validation_steps or task.settings.restore:
            checked = True
            where.check_data(task, nodes, on_error)
        outcome = train(task, nodes)
    except TrainingError as error:
        if on_error == "raise":
            raise
        print(f"no model: {error}", flush=True)
        outcome = FailedTraining(str(error))
        folder = storage.data_uri(task.outputs.model_uri, "model")
        write_artifact(task.outputs.model_path, ModelManifest(failed=outcome.reason, data_uri=folder))
    manifest = read_model(task.outputs.model_path)
    write_metrics(metrics, manifest.metrics())
    where.write_figures(task, manifest, checked=checked)
    return str(outcome)
