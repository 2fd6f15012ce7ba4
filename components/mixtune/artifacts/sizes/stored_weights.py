"""A model's sizes by the headers of its weights' files: exact for every architecture, without PyTorch or its code."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

from mixtune import storage
from mixtune.models import SCALE, find_stored_form, is_hub_name
from mixtune.settings.foreign import JsonObject
from mixtune.training_math import ACTIVE_EXPERTS, EXPERT_COUNTS

_TOWER = re.compile("vision|visual|audio|image|speech|siglip|multi_modal|projector|merger|connector|aligner|mm_")
_FURTHER = re.compile(r"(^|\.)(mtp|nextn|eagle)")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.")
_HEAD = re.compile(r"(^|\.)(lm_head|embed_out)\.|^((language_)?model\.)*(head|output)\.weight")
_EMBEDDING = re.compile("embed|wte|wpe|wpt")
_EXPERT = re.compile(r"\.experts\.")


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One tensor of a file."""

    name: str
    dtype: str
    """As safetensors call it, such as `BF16`."""
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class StoredSizes:
    """Numbers of values; those of layers that only predict further tokens ahead are left out."""

    parameters: int
    text: int
    """All but towers."""
    active: int
    """In the matrices that a token goes through, the head's among them."""
    tied: bool
    """Whether there is no head beside the embedding."""


def read_tensors(name: str, folder: Path) -> list[Tensor]:
    """Return the tensors of a base model by the headers of its files, here or on the hub; none where they are not."""
    repository, _, revision = storage.plain_uri(name).partition("@")
    try:
        from huggingface_hub import get_local_safetensors_metadata, get_safetensors_metadata

        if is_hub_name(f"{repository}@{revision}"):
            metadata = get_safetensors_metadata(repository, revision=revision)
        else:
            metadata = get_local_safetensors_metadata(folder)
    except Exception:  # the hub or the files give none: other checks say why
        return []
    return [
        Tensor(name=key, dtype=str(info.dtype), shape=tuple(info.shape))
        for file in metadata.files_metadata.values()
        for key, info in file.tensors.items()
    ]


def count_stored(tensors: list[Tensor], config: JsonObject) -> StoredSizes | None:
    """Return the sizes of a model with these tensors; None: there are none, or they are packed in an unknown form."""
    text = config.get("text_config") or config
    values = dict(_count_values(tensors, config))
    if not values:
        return None
    experts, used = (_first(text, names) for names in (EXPERT_COUNTS, ACTIVE_EXPERTS))
    shapes = {tensor.name: tensor.shape for tensor in tensors}
    own = {name: count for name, count in values.items() if not _TOWER.search(name)}
    heads = [name for name in own if _HEAD.search(name) and len(shapes[name]) == 2]
    embeddings = [name for name in own if _EMBEDDING.search(name) and name not in heads]
    tied = not heads or text.get("tie_word_embeddings", config.get("tie_word_embeddings")) is True
    active = 0.0
    for name in own.keys() - set(embeddings):
        shape = shapes[name]
        is_fused = len(shape) > 2 and shape[0] == experts and min(shape[1:]) > 1
        if _EXPERT.search(name) or is_fused:
            active += own[name] * min(1.0, used / experts) if experts and used else own[name]
        elif len(shape) == 2:
            active += own[name]
    if not heads:
        active += max([own[name] for name in embeddings if shapes[name][-1] == text.get("hidden_size")], default=0)
    twice = sum(own[name] for name in heads) if tied else 0
    return StoredSizes(
        parameters=sum(values.values()) - twice,
        text=sum(own.values()) - twice,
        active=round(active),
        tied=tied,
    )


def _count_values(tensors: list[Tensor], config: JsonObject) -> Iterator[tuple[str, int]]:
    """Yield the numbers in each tensor that the model has, of packed ones as many as are packed."""
    text, packed = config.get("text_config") or config, _packed(config)
    layers = text.get("num_hidden_layers") or 0
    for tensor in tensors:
        layer = _LAYER.search(tensor.name)
        beyond = layer and layers and int(layer[1]) >= layers and not _TOWER.search(tensor.name)
        if not (SCALE.search(tensor.name) or _FURTHER.search(tensor.name) or beyond):
            yield tensor.name, round(prod(tensor.shape) * packed.get(tensor.dtype, 1))


def _packed(config: JsonObject) -> Mapping[str, float]:
    """Return how many values are in one number of a file, by its type."""
    form = find_stored_form(config)
    groups = (form.get("config_groups") or {}).values()
    stated = [(group.get("weights") or {}).get("num_bits") for group in groups if isinstance(group, dict)]
    bits = form.get("bits") or next(filter(None, stated), None) or 4
    halves = 2 if config.get("expert_dtype") == "fp4" else 1
    return {"U8": 2, "I32": 32 / bits, "I8": halves} if form else {}


def _first(config: JsonObject, names: tuple[str, ...]) -> int:
    size = next((config[name] for name in names if config.get(name)), 0)
    return int(size[0] if isinstance(size, list) else size)
