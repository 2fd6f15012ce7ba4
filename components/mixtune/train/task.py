"""A training as one value: its settings, what it reads and where it writes; in a job's file, too."""

from dataclasses import dataclass, field
from typing import ClassVar

from mixtune.errors import ConfigError
from mixtune.settings.train import TrainSettings
from mixtune.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class TrainInputs:
    """What a training reads."""

    shards_path: str
    """Manifest of the shards, where this process finds it."""
    base_model: str
    shards_uri: str = ""
    """The same manifest's URI, for the pods of a job."""
    start_model: str = ""
    """The trained model that `restore` begins with, an adapter or all weights; empty: the base model."""


@dataclass(frozen=True, kw_only=True)
class TrainOutputs:
    """Where a training writes."""

    model_path: str
    """The model's manifest."""
    model_uri: str
    """The artifact's URI: weights and checkpoints lie beside it."""
    tracking: Tracking = field(default_factory=Tracking)


@dataclass(frozen=True, kw_only=True)
class TrainTask:
    """One task of a train component."""

    settings: TrainSettings
    inputs: TrainInputs
    outputs: TrainOutputs
    validation_steps: int = 0
    """Above 0: a validation run of that many steps instead of a training."""

    def __post_init__(self) -> None:
        if self.validation_steps < 0:
            raise ConfigError(f"validation_steps is 0 or more; got {self.validation_steps}")
        if bool(self.inputs.start_model) != bool(self.settings.restore):
            raise ConfigError(
                "train_options: restore belongs to the component restore, which begins with a trained model; run "
                "`mixtune run restore` on what this training leaves"
            )


@dataclass(frozen=True, kw_only=True)
class TrainJobFile:
    """What the processes of a job read: a JSON file, local or in S3, in which every place is a URI."""

    KIND: ClassVar[str] = "training job"
    VERSION: ClassVar[int] = 1

    task: TrainTask
    storage: dict[str, str] = field(default_factory=dict)
    """Options of `storage.configure_storage`."""
    gpus_per_node: int = 0
    """GPUs that each node was asked to have; a worker that sees fewer refuses. 0: none were."""
