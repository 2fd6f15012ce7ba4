"""Models: what is known of a base model without its weights, and what a training leaves, or why it left nothing.

The table of model types is a measurement, by `benchmarks/architectures.py`, under one version of transformers.
"""

import json
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import ClassVar

from mixtune import models, storage
from mixtune.artifacts.typed_json import Manifest, read_artifact
from mixtune.errors import DataError
from mixtune.interpolation import read_config
from mixtune.settings.chat import ChatSettings
from mixtune.settings.foreign import read_known
from mixtune.settings.train import TrainSettings

ADAPTER_FILE = "adapter_config.json"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks that vLLM can be started with (`--max-lora-rank`)."""
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
class Reach:
    """Which part of the base model's weights a training works on."""

    share: float
    """Of all weights, 0 to 1."""
    by_kind: dict[str, float]
    """Of the weights of each kind (attention, experts, embeddings and head ...), 0 to 1."""

    def line(self) -> str:
        """Return it in words."""
        kinds = sorted(self.by_kind.items(), key=lambda item: (-item[1], item[0]))
        reached = ", ".join(kind if share > 0.995 else f"{kind} {share:.0%}" for kind, share in kinds if share)
        frozen = ", ".join(kind for kind, share in kinds if not share)
        return f"{self.share:.0%} of the weights: {reached}" + (f"; frozen: {frozen}" if frozen else "")


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
class LossCurve:
    """A loss over a training, in as many points as a page shows."""

    name: str
    """Of the pool; or of what is held out."""
    steps: tuple[int, ...]
    """1-based; 0: before the first."""
    losses: tuple[float, ...]
    """At these steps, nats a token; a pool's are means of the steps up to the next point."""
    held_out: bool = False
    """Whether the records are evaluated alone, and never learned."""


@dataclass(frozen=True, kw_only=True)
class Restoration:
    """A trained model drawn back towards its base: from what, and how far, on held-out general records."""

    model_uri: str
    """The trained model that it began with."""
    base_nll: float | None = None
    """Of the base model, nats a token; None, as for all below: no records were held out."""
    nll_before: float | None = None
    nll_after: float | None = None
    kl_before: float | None = None
    """From the base model's predictions, nats a token, a lower bound."""
    kl_after: float | None = None


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
    reach: Reach | None = None
    """Which weights the training works on."""
    chat: ChatSettings = field(default_factory=ChatSettings)
    """How the conversations that it learned are rendered: ask it alike."""
    curves: tuple[LossCurve, ...] = ()
    """Of the pools, and of the held-out general records; where a training was taken up, from there on."""
    restoration: Restoration | None = None
    """None: a training from the base model."""
    failed: str = ""
    """Why there is no model; empty: there is one."""

    def metrics(self) -> dict[str, float]:
        """Return all that was measured, by name."""
        restored = asdict(self.restoration) if self.restoration else {}
        further = {name: value for name, value in restored.items() if isinstance(value, float)}
        return {**(self.figures.metrics() if self.figures else {}), **further}


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What of an adapter's configuration decides whether vLLM takes it, known before it is trained, too."""

    peft_type: str = ""
    r: int = 0
    rank_pattern: dict[str, int] = field(default_factory=dict)
    use_dora: bool = False
    modules_to_save: list[str] | None = None

    @classmethod
    def read(cls, folder: str) -> "AdapterConfig":
        """Read that of a folder, local or in S3."""
        path = storage.join(folder, ADAPTER_FILE)
        return read_known(cls, storage.read_json(path), path)

    @classmethod
    def planned(cls, settings: TrainSettings) -> "AdapterConfig":
        """Return that of the adapter that a training with `method` lora will write."""
        options = settings.lora_options
        if options.use_osf:
            return cls(peft_type="OSF")
        factor = 2 if options.changes_base else 1  # it is written as its difference to where it began
        return cls(
            peft_type="LORA",
            r=factor * settings.lora_rank,
            rank_pattern={name: factor * rank for name, rank in options.rank_pattern.items()},
            use_dora=options.use_dora,
        )

    @property
    def rank(self) -> int:
        """The largest of its ranks."""
        return max([self.r, *self.rank_pattern.values()])

    @property
    def room(self) -> int:
        """The smallest `--max-lora-rank` that takes it; 0: none does."""
        return next((room for room in LORA_RANKS if room >= self.rank), 0)

    def refused_by_vllm(self) -> str:
        """Return why vLLM does not take it; empty: it does."""
        if self.peft_type != "LORA":
            return f"its peft_type is {self.peft_type or 'missing'}"
        if self.use_dora:
            return "it is a DoRA adapter"
        if self.modules_to_save:
            return f"it holds whole modules ({', '.join(self.modules_to_save)})"
        if not 0 < self.rank <= LORA_RANKS[-1]:
            return f"its rank is {self.rank}, the largest is {LORA_RANKS[-1]}"
        return ""


@dataclass(frozen=True, kw_only=True)
class AdapterShape:
    """What PEFT's `adapter_config.json` says of an adapter's size."""

    kind: str
    """PEFT's name, such as `LORA`."""
    rank: int
    alpha: int

    @classmethod
    def find(cls, folder: str) -> "AdapterShape | None":
        """Return the shape of the adapter in a folder, local or `s3://`; None where it holds none."""
        path = storage.join(folder.rstrip("/"), ADAPTER_FILE)
        if not storage.file_exists(path):
            return None
        config = storage.read_json(path)
        return cls(
            kind=str(config.get("peft_type")), rank=int(config.get("r", 0)), alpha=int(config.get("lora_alpha", 0))
        )


def read_model(path: str) -> ModelManifest:
    """Read a model's manifest; a DataError where there is none, or it is none of a model."""
    if not storage.file_exists(path):
        raise DataError(
            f"{path}: no manifest; the step that makes this model has not finished, or its cached result has expired: "
            "then submit the run with --no-cache"
        )
    return read_artifact(ModelManifest, path)


def find_manifest(model_uri: str) -> ModelManifest | None:
    """Return the manifest of a model by the URI that its training returned; None where it has none beside it."""
    folder, _, output = storage.plain_uri(model_uri).rpartition("/data/")
    path = storage.join(folder, _OUTPUT)
    return read_model(path) if output == _OUTPUT and storage.file_exists(path) else None


FILE = Path(__file__).with_name("architectures.json")
_LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len")
NOT_TRIED = "not tried"
"""What `refused` begins with where no tiny model could be made."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """A model type, as tried with a tiny model of random weights."""

    layout: str = ""
    """How records lie in a forward pass, `packed`, `rows` or `single`; empty: it does not train."""
    refused: str = ""
    """Why it does not train; empty: it does."""
    partly: dict[str, str] = field(default_factory=dict)
    """By method, `lora` or `sft`: why it does not train by that one."""
    reach: dict[str, float] = field(default_factory=dict)
    """By kind of weight: the share that an adapter on `all-linear` works on, 0 to 1, of the tiny model."""
    positions: bool = False
    """Whether positions are learned, so that a longer record than the model has positions for fails."""
    gap: float = 0.0
    """Float32: the largest difference of a token's loss from that of a plain forward over its record alone, in parts
    of the loss, or in nats where that is below one; before and after training."""
    rounding: float = 0.0
    """Where the gap is above one in a million: by how much that plain forward differs from itself in float64."""
    gpu_layout: str = ""
    """As `layout`, by the rules of a GPU, where other attention is taken; empty: not tried."""
    gpu_attention: str = ""
    """transformers' name of the attention that it trains with there, in an image without flash-attn."""

    @property
    def is_tried(self) -> bool:
        """Whether there was a tiny model to try."""
        return not self.refused.startswith(NOT_TRIED)


@cache
def read_architectures() -> dict[str, Architecture]:
    """Return the table by model type."""
    rows = json.loads(FILE.read_text())["types"]
    return {name: Architecture(**row) for name, row in rows.items()}


def tried_with() -> str:
    """Return the version of transformers that the table was measured under."""
    return str(json.loads(FILE.read_text())["transformers"])


@dataclass(frozen=True, kw_only=True)
class BaseModel:
    """What `config.json` and `tokenizer.json` say of a model."""

    folder: Path
    model_type: str
    """transformers' name of the architecture."""
    max_length: int
    """Tokens that the model takes; 0: not known."""
    vocab_size: int
    """Rows of the embedding; 0: not known."""
    is_composite: bool
    """Whether it has other towers beside the decoder of text."""
    class_name: str
    """transformers' class of it, by its configuration; empty: not said."""
    quantized: str
    """How its weights are stored, such as `fp8`; empty: as numbers that can be trained."""

    @classmethod
    def read(cls, folder: Path) -> "BaseModel":
        """Read a model's folder."""
        config = read_config(str(folder))
        text = config.get("text_config") or config
        stored = models.find_stored_form(config)
        return cls(
            folder=folder,
            model_type=str(config.get("model_type", "unknown")),
            max_length=next((int(text[name]) for name in _LENGTHS if text.get(name)), 0),
            vocab_size=int(text.get("vocab_size") or 0),
            is_composite="text_config" in config,
            class_name=str((config.get("architectures") or [""])[0]),
            quantized=str(stored.get("quant_method", "quantized")) if stored else "",
        )

    @property
    def architecture(self) -> Architecture | None:
        """The row of its type in the table of architectures; None: there is none."""
        return read_architectures().get(self.model_type)

    def tokens_beyond_embedding(self) -> dict[str, int]:
        """Return the tokens, with their ids, that have no row of the embedding, where `tokenizer.json` lists them."""
        file = self.folder / "tokenizer.json"
        if not self.vocab_size or not file.is_file():
            return {}
        tokenizer = storage.read_json(str(file))
        ids = {item["content"]: int(item["id"]) for item in tokenizer.get("added_tokens") or []}
        vocabulary = (tokenizer.get("model") or {}).get("vocab") or {}
        listed = vocabulary if isinstance(vocabulary, dict) else {item[0]: row for row, item in enumerate(vocabulary)}
        return {token: number for token, number in {**listed, **ids}.items() if number >= self.vocab_size}
