"""The door of both train shells: train here or as a job of the cluster, and report a failure as the shell is told."""

import os
from typing import Protocol

from mixtune import storage
from mixtune.artifacts.model import FailedTraining, ModelManifest, TrainedModel, parse_model, read_model
from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import ConfigError, TrainingError
from mixtune.settings.job import NodeSettings
from mixtune.train.task import TrainTask


class Metrics(Protocol):
    """A KFP artifact of that kind, whose values the task's page shows."""

    path: str

    def log_metric(self, metric: str, value: float) -> None:
        """Show a value."""


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


def train_or_report(task: TrainTask, nodes: NodeSettings, validated: str, on_error: str, metrics: Metrics) -> str:
    """Train as `train` does; where a failure may not end the run, return it as text instead.

    Args:
        task: How, of what, and where to.
        nodes: Where it runs.
        validated: What the validation run returned; its failure is passed on, and nothing is trained.
        on_error: `raise` or `report`.
        metrics: Gets the figures of the model's manifest, wherever the training ran.

    Returns:
        A `TrainedModel`, or with `report` a `FailedTraining`, as text.

    Raises:
        ConfigError: `on_error` is neither.
        TrainingError: As `train`, with `raise`.
    """
    if on_error not in ("raise", "report"):
        raise ConfigError(f"on_error is raise or report; got {on_error!r}")
    outcome: TrainedModel | FailedTraining
    try:
        validation = parse_model(validated)
        if isinstance(validation, FailedTraining):
            raise TrainingError(validation.reason)
        outcome = train(task, nodes)
    except TrainingError as error:
        if on_error == "raise":
            raise
        print(f"no model: {error}", flush=True)
        outcome = FailedTraining(str(error))
        folder = storage.data_uri(task.outputs.model_uri, "model")
        write_artifact(task.outputs.model_path, ModelManifest(failed=outcome.reason, data_uri=folder))
    manifest = read_model(task.outputs.model_path)
    figures = manifest.figures.metrics() if manifest.figures else {}
    for name, value in figures.items():
        metrics.log_metric(name, value)
    storage.write_json(metrics.path, figures)  # KFP's local cache forgets a task of whose artifacts one has no file
    return str(outcome)
