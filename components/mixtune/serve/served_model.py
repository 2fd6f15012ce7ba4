"""What is served: a base model and the adapter beside it, or whole weights, and what their files say of it."""

from dataclasses import dataclass, replace

from mixtune import models, storage
from mixtune.artifacts.model import ADAPTER_FILE, AdapterConfig
from mixtune.errors import ConfigError, ModelError
from mixtune.serve.model_config import ModelConfig, read_config
from mixtune.settings.serving import ServeSettings

WEIGHTS = "adapter_model.safetensors"
SERVED = ("s3://", "pvc://", "hf://")
"""Where a cluster finds a model."""


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
    """Of its safetensors files, the adapter's included."""
    download_bytes: int
    """Of everything that lies there, the adapter included."""
    adapter_uri: str = ""
    """Where the cluster finds the adapter; empty: whole weights."""
    rank: int = 0
    """Of the adapter."""
    lora_rank: int = 0
    """The smallest `--max-lora-rank` that takes it."""

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
    if not storage.file_exists(storage.join(plain, ADAPTER_FILE)):
        where = settings.tuned_uri or (plain if settings.merged else model_uri)
        return read_whole_model(name, plain, _servable(where, "tuned_uri"))
    adapter = read_adapter(plain)
    base = storage.check_fingerprint(base_model)
    whole = read_whole_model(name, base, _servable(settings.base_uri or base_model, "base_uri"))
    files = {entry.path: entry.num_bytes for entry in storage.list_files(plain)}
    return replace(
        whole,
        weight_bytes=whole.weight_bytes + files.get(WEIGHTS, 0),
        download_bytes=whole.download_bytes + sum(files.values()),
        adapter_uri=_servable(settings.tuned_uri or model_uri, "tuned_uri"),
        rank=adapter.rank,
        lora_rank=adapter.room,
    )


def read_adapter(folder: str) -> AdapterConfig:
    """Read an adapter's configuration; a ModelError where vLLM cannot serve it."""
    adapter = AdapterConfig.read(folder)
    if reason := adapter.refused_by_vllm():
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
