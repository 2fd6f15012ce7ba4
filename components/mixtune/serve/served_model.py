"""What is served: a base model and the adapter beside it, or whole weights, and what their files say of it."""

from dataclasses import dataclass, field, replace

from mixtune import models, storage
from mixtune.errors import ConfigError, ModelError
from mixtune.serve.model_config import ModelConfig, read_config
from mixtune.settings.foreign import read_known
from mixtune.settings.serving import ServeSettings

SERVED = ("s3://", "pvc://", "hf://")
"""Where a cluster finds a model."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """What of an adapter's `adapter_config.json` decides whether vLLM can serve it."""

    peft_type: str = ""
    r: int = 0
    rank_pattern: dict[str, int] = field(default_factory=dict)
    use_dora: bool = False
    modules_to_save: list[str] | None = None

    @property
    def rank(self) -> int:
        """The largest of its ranks."""
        return max([self.r, *self.rank_pattern.values()])


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that a cluster can load."""

    name: str
    """As requests name it."""
    base_uri: str
    """Where the cluster finds the base model, with its digest where that is known; or the whole tuned model."""
    config: ModelConfig
    """Of the base model, or of the whole tuned model."""
    weight_bytes: int
    """Of its safetensors files."""
    download_bytes: int
    """Of everything that lies there, the adapter included."""
    adapter_uri: str = ""
    """Where the cluster finds the adapter; empty: whole weights."""
    rank: int = 0
    """Of the adapter."""

    @property
    def lora_rank(self) -> int:
        """The smallest `--max-lora-rank` that takes the adapter."""
        return next(rank for rank in models.LORA_RANKS if rank >= self.rank)

    @property
    def base_name(self) -> str:
        """As requests name the plain base model, which is served beside its adapter."""
        return f"{self.name}-base" if self.adapter_uri else self.name


def read_served_model(name: str, model_uri: str, base_model: str, settings: ServeSettings) -> ServedModel:
    """Look at the files of a tuned model, and at its base's, from where an adapter's weights are read.

    Raises:
        ModelError: There is no model, or an adapter that vLLM cannot serve.
        ConfigError: The cluster could not find it where it is.
    """
    plain = storage.check_fingerprint(model_uri)
    if settings.merged:
        plain = storage.join(plain, models.MERGED)
        if not storage.file_exists(storage.join(plain, "config.json")):
            raise ModelError(f"{plain}: no merged model; train with lora_options.merge, or leave `merged` out")
    if not storage.file_exists(storage.join(plain, "adapter_config.json")):
        where = settings.tuned_uri or (plain if settings.merged else model_uri)
        return read_whole_model(name, plain, _servable(where, "tuned_uri"))
    adapter = read_adapter(plain)
    base = storage.check_fingerprint(base_model)
    whole = read_whole_model(name, base, _servable(settings.base_uri or base_model, "base_uri"))
    return replace(
        whole,
        download_bytes=whole.download_bytes + sum(entry.num_bytes for entry in storage.list_files(plain)),
        adapter_uri=_servable(settings.tuned_uri or model_uri, "tuned_uri"),
        rank=adapter.rank,
    )


def read_adapter(folder: str) -> AdapterConfig:
    """Read an adapter's configuration; a ModelError where vLLM cannot serve it."""
    path = storage.join(folder, "adapter_config.json")
    adapter = read_known(AdapterConfig, storage.read_json(path), path)
    reason = ""
    if adapter.peft_type != "LORA":
        reason = f"its peft_type is {adapter.peft_type or 'missing'}"
    elif adapter.use_dora:
        reason = "it is a DoRA adapter"
    elif adapter.modules_to_save:
        reason = f"it holds whole modules ({', '.join(adapter.modules_to_save)})"
    elif not 0 < adapter.rank <= models.LORA_RANKS[-1]:
        reason = f"its rank is {adapter.rank}, the largest is {models.LORA_RANKS[-1]}"
    if reason:
        raise ModelError(
            f"{folder}: vLLM serves plain LoRA, and {reason}; train with lora_options.merge, serve `merged`"
        )
    return adapter


def read_whole_model(name: str, folder: str, where: str = "") -> ServedModel:
    """Look at a model of whole weights in a folder, which the cluster finds there, or `where` it is for the cluster.

    Raises:
        ModelError: There is no model.
    """
    entries = storage.list_files(folder)
    weights = [entry.num_bytes for entry in entries if entry.path.endswith(".safetensors") and "/" not in entry.path]
    if not weights:
        raise ModelError(f"{folder}: no .safetensors file in it; vLLM is given safetensors only")
    return ServedModel(
        name=name,
        base_uri=where or folder,
        config=read_config(folder),
        weight_bytes=sum(weights),
        download_bytes=sum(entry.num_bytes for entry in entries),
    )


def _servable(uri: str, setting: str) -> str:
    if not uri.startswith(SERVED):
        raise ConfigError(
            f"{uri}: a cluster cannot load it from there; copy it to s3:// and say where by {setting} "
            f"({', '.join(SERVED)})"
        )
    return uri
