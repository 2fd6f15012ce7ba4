"""Where a training runs: in the task's own process, or as a job on nodes of its own."""

from dataclasses import dataclass
from typing import Protocol

from mixtune import models, storage
from mixtune.errors import ConfigError, TrainingError
from mixtune.train.config import Places, TrainConfig

LAUNCHERS = ("", "process", "trainjob", "pytorchjob")


class Metrics(Protocol):
    """A KFP artifact of that kind, whose values the task's page shows."""

    path: str

    def log_metric(self, metric: str, value: float) -> None:
        """Show a value."""


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """What a step says of the nodes it wants."""

    launcher: str = ""
    """`process`, `trainjob` or `pytorchjob`; empty: `process` without nodes, else the platform's kind of job."""
    num_nodes: str = ""
    """Nodes of a job; empty or `0`: none."""
    gpus_per_node: str = ""
    """GPUs, and so processes, of each node; empty or `0`: one process without a GPU."""
    shards_uri: str = ""
    """URI of the shards' manifest, which the job's pods read."""

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            raise ConfigError(f"launcher is empty or one of {', '.join(LAUNCHERS[1:])}; got {self.launcher!r}")
        for name in ("num_nodes", "gpus_per_node"):
            if getattr(self, name) and not getattr(self, name).isdigit():
                raise ConfigError(f"{name} is empty or a whole number as text; got {getattr(self, name)!r}")
        if self.launcher == "process" and self.count:
            raise ConfigError(
                f"launcher 'process' trains in the task's own process; num_nodes is {self.num_nodes!r}: leave it "
                "empty, or leave launcher empty to train as a job"
            )
        if self.launcher in LAUNCHERS[2:] and not self.count:
            raise ConfigError(f"launcher {self.launcher!r} needs num_nodes, 1 or more; got {self.num_nodes!r}")

    @property
    def count(self) -> int:
        """Nodes of the job; 0: there is no job."""
        return int(self.num_nodes or 0)

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        return int(self.gpus_per_node or 0)


def train(config: TrainConfig, places: Places, nodes: Nodes) -> str:
    """Train here or on nodes of its own; the fingerprinted URI of the model's folder comes back.

    Raises:
        TrainingError: The training had to stop, here or in its job.
        ClusterError: The cluster refused or lost the job.
    """
    if not nodes.count:
        from mixtune.train.training import run_training  # a launcher never loads PyTorch

        return run_training(config, places)
    from mixtune.train.launcher.launching import run_job

    return run_job(config, places, nodes)


def train_or_report(
    config: TrainConfig, places: Places, nodes: Nodes, validated: str, on_error: str, metrics: Metrics
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
