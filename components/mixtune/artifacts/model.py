"""A model artifact: what a training leaves beside its weights, or the reason why it left none."""

from dataclasses import asdict, dataclass
from typing import ClassVar

from mixtune import storage
from mixtune.artifacts.typed_json import Manifest, read_artifact
from mixtune.errors import DataError
from mixtune.settings.train import TrainSettings

_FAILED = "failed: "
_OUTPUT = "model"
"""Name of a training's output; the model's files lie beside its manifest in `data/model`."""


@dataclass(frozen=True)
class TrainedModel:
    """The model that a training left."""

    uri: str
    """Fingerprinted URI of its folder; empty: a validation run, which keeps none."""

    def __str__(self) -> str:
        return self.uri


@dataclass(frozen=True)
class FailedTraining:
    """A training that left no model, where that may not end the run: the next steps report it."""

    reason: str

    def __str__(self) -> str:
        return f"{_FAILED}{self.reason}"


def parse_model(text: str) -> TrainedModel | FailedTraining:
    """Return what the text output of a training component means; `str` makes that text."""
    return FailedTraining(text.removeprefix(_FAILED)) if text.startswith(_FAILED) else TrainedModel(text)


@dataclass(frozen=True, kw_only=True)
class TrainingFigures:
    """Measurements of a whole training, or of a validation run."""

    num_steps: int
    kept_step: int
    """Step whose weights are kept."""
    first_loss: float
    final_loss: float
    mean_tokens_per_second: float
    """Over all processes; the first step is left out, kernels are compiled in it."""
    tokens_per_second_per_gpu: float
    num_processes: int
    num_gpus: int
    seconds: float
    peak_memory_bytes: float
    """Of one process."""
    packed: bool = True
    """Whether a forward pass holds several records; false: this architecture lets packed ones see one another."""
    base_general_nll: float | None = None
    """NLL of held-out general records under the base model, nats a token; None: none were held out."""
    first_batch_loss: float | None = None
    """Mean loss of the first global batch before a validation run's steps, nats; None: a training, as for all below."""
    first_batch_loss_after: float | None = None
    largest_micro_batch_tokens: int | None = None
    """No micro batch of the training has more; `peak_memory_bytes` is of this one."""
    memory_limit_bytes: float | None = None
    """What the process's GPU has; on a CPU, what the machine or the pod has."""
    bytes_per_token: float | None = None
    """By which the peak grows with a micro batch."""

    def metrics(self) -> dict[str, float]:
        """Return what was measured, by name."""
        return {name: float(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ModelManifest(Manifest):
    """What the artifact says of a model; a validation run's has figures and no files."""

    KIND: ClassVar[str] = "model"
    VERSION: ClassVar[int] = 1

    settings: TrainSettings | None = None
    base_model: str = ""
    shards: str = ""
    """Digest of the shards."""
    figures: TrainingFigures | None = None
    failed: str = ""
    """Why there is no model; empty: there is one."""


def read_model(path: str) -> ModelManifest:
    """Read a model's manifest.

    Raises:
        DataError: There is none, or it is none of a model.
    """
    if not storage.file_exists(path):
        raise DataError(
            f"{path}: no manifest; the step that makes this model has not finished, or its cached result has expired: "
            "then submit the run with --no-cache"
        )
    return read_artifact(ModelManifest, path)


def find_manifest(model_uri: str) -> ModelManifest | None:
    """Return the manifest of a model by the URI that its training returned; None where it has none beside it."""
    folder, _, output = storage.split_fingerprint(model_uri)[0].rpartition("/data/")
    path = storage.join(folder, _OUTPUT)
    return read_model(path) if output == _OUTPUT and storage.file_exists(path) else None
