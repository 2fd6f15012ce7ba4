"""The door of both train shells: train here or as a job of the cluster, and say a failure as the shell was asked to."""

from typing import Protocol

from mixtune import models, storage
from mixtune.errors import ConfigError, TrainingError
from mixtune.settings.job import NodeSettings
from mixtune.settings.train import TrainSettings
from mixtune.train.config import Places


class Metrics(Protocol):
    """A KFP artifact of that kind, whose values the task's page shows."""

    path: str

    def log_metric(self, metric: str, value: float) -> None:
        """Show a value."""


def train(config: TrainSettings, places: Places, nodes: NodeSettings) -> str:
    """Train here or on nodes of its own; the fingerprinted URI of the model's folder comes back.

    Raises:
        TrainingError: The training had to stop, here or in its job.
        ClusterError: The cluster refused or lost the job.
    """
    if not nodes.count:
        from mixtune.train.run import run_training  # a launcher never loads PyTorch

        return run_training(config, places)
    from mixtune.train.launcher.launch import run_job

    return run_job(config, places, nodes)


def train_or_report(
    config: TrainSettings, places: Places, nodes: NodeSettings, validated: str, on_error: str, metrics: Metrics
) -> str:
    """Train as `train` does; where a failure may not end the run, `failed: <reason>` comes back instead.

    Args:
        config: How.
        places: What is read and written.
        nodes: Where it runs.
        validated: What the validation run returned; its failure is passed on, and nothing is trained.
        on_error: `raise` or `report`.
        metrics: Gets the figures of the model's manifest, wherever the training ran.

    Raises:
        ConfigError: `on_error` is neither.
        TrainingError: As `train`, with `raise`.
    """
    if on_error not in ("raise", "report"):
        raise ConfigError(f"on_error is raise or report; got {on_error!r}")
    try:
        if validated.startswith(models.FAILED):
            raise TrainingError(validated.removeprefix(f"{models.FAILED}: "))
        trained = train(config, places, nodes)
    except TrainingError as error:
        if on_error == "raise":
            raise
        print(f"no model: {error}", flush=True)
        target = storage.data_uri(places.model_uri, "model")
        storage.write_manifest(places.model_path, {"kind": "model", "failed": str(error)}, target, [])
        trained = f"{models.FAILED}: {error}"
    figures = storage.read_json(places.model_path).get("figures", {})
    for name, value in figures.items():
        metrics.log_metric(name, value)
    storage.write_json(metrics.path, figures)  # KFP's local cache forgets a task of whose artifacts one has no file
    return trained
