"""What an adapter on `all-linear` works on: every matrix of the text decoder, fused experts among them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from peft import LoraConfig
from peft.utils.transformers_weight_conversion import (
    convert_peft_adapter_state_dict_for_transformers,
    convert_peft_config_for_transformers,
)
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mixtune.inference.text_parts import count_experts, find_text_modules, fused_experts

ROUTERS = ("gate", "router", "gate_network", "wg", "classifier", "shared_expert_gate")
"""Names of the layers that choose experts, or say how much of a shared one is taken."""
MAMBA_TYPES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
"""Model types in which PEFT refuses an adapter on `out_proj`: fused kernels read past it."""
NO_GRADIENT = (
    "embed_tokens_extend", "visual_projection", "altup", "indexer", "encoder_attn", "crossattention", "dt_proj",
)  # fmt: skip
"""Parts that no gradient would reach: what reads images, what only chooses which keys are read, attention to an encoder
that text has not, and a matrix of Mamba whose weight is read past an adapter."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What an adapter is put on, in PEFT's terms: endings of names that fit nothing else in the model."""

    modules: list[str]
    """Linear layers."""
    parameters: list[str]
    """Matrices that are no layers of their own (fused experts), and layers that PEFT would take for older names."""


def find_targets(causal: PreTrainedModel, exclude: str | list[str] | None = None) -> Targets:
    """Return every matrix of a model's text decoder.

    Left alone are routers, whose few weights decide which experts learn; what lies outside of the decoder of text, such
    as a vision tower, and the head; the output of Mamba's layers, which its fused kernels read past an adapter;
    convolutions and per-layer vectors; and what is excluded by endings of names, or a regular expression for whole
    ones.
    """
    inside = {id(module) for module in find_text_modules(causal)}
    counts = count_experts(causal)
    linear, owners = [], {}
    for name, module in causal.named_modules():
        if id(module) not in inside or _is_left_alone(causal, name, counts) or is_named(name, exclude):
            continue
        if isinstance(module, torch.nn.Linear | Conv1D):
            linear.append(name)
        elif keys := fused_experts(module, counts):
            owners[name] = keys
    linear = _loaded_by_name(causal, linear, "")
    inner = _loaded_by_name(causal, [name for name, keys in owners.items() if len(keys) > 1], "base_layer.")
    outer = [name for name in _loaded_by_name(causal, list(owners), "") if len(owners[name]) == 1 or name in inner]
    fused = [f"{name}.{key}" for name in outer for key in owners[name]]
    renamed = {leaf for leaf in {_leaf(name) for name in linear} if _is_renamed(causal, leaf)}
    renamed |= {_leaf(name) for name in linear if "Grouped" in type(causal.get_submodule(name)).__name__}
    modules = [name for name in linear if _leaf(name) not in renamed]
    weights = [f"{name}.weight" for name in linear if _leaf(name) in renamed]
    return Targets(
        modules=_shortest_endings(modules, (name for name, _ in causal.named_modules())),
        parameters=_shortest_endings([*fused, *weights], (name for name, _ in causal.named_parameters())),
    )


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _is_left_alone(causal: PreTrainedModel, name: str, counts: set[int]) -> bool:
    parts = name.split(".")
    if any(part in NO_GRADIENT for part in parts) or "router" in parts[-2:]:
        return True
    if causal.config.model_type in MAMBA_TYPES and parts[-1] == "out_proj":
        return True
    # a dense layer's own `gate` is as wide as the layer; one that chooses experts has an output for each
    width = getattr(causal.get_submodule(name), "out_features", None)
    return any(part in ROUTERS for part in parts[-2:]) and (width is None or width == 1 or width in counts)


def is_named(name: str, option: str | list[str] | None) -> bool:
    """Return whether PEFT takes an option for a name: a regular expression for all of it, or endings."""
    if isinstance(option, str):
        return bool(re.fullmatch(option, name))
    return any(name == ending or name.endswith(f".{ending}") for ending in option or [])


def _loaded_by_name(causal: PreTrainedModel, names: list[str], inner: str) -> list[str]:
    """Return the modules whose adapter PEFT finds again when it loads it.

    It renames keys as transformers renames those of older checkpoints. Some names do not survive that, and the adapter
    would be left out without an error. Adapters of several parameters are nested: `inner` stands between a module's
    name and its adapter's.
    """
    keys = {f"base_model.model.{name}.{inner}lora_A.weight": name for name in names}
    state = {key: torch.zeros(1, 1) for key in keys}
    loaded = convert_peft_adapter_state_dict_for_transformers(causal, LoraConfig(), state)
    return [name for key, name in keys.items() if key in loaded]


def _is_renamed(causal: PreTrainedModel, leaf: str) -> bool:
    """Return whether PEFT takes a layer's name for that of an expert as older versions of transformers had it."""
    config = LoraConfig(target_modules=[leaf])
    try:
        convert_peft_config_for_transformers(config, causal, None)
    except ValueError:  # it misses another part of the same expert
        return True
    return not config.target_modules


def _shortest_endings(names: Iterable[str], all_names: Iterable[str]) -> list[str]:
    """Return the shortest endings that fit these names, layer numbers left out, and none of the others."""
    targets = set(names)
    others = {ending for name in all_names if name not in targets for ending in _endings(name)}
    return sorted({next((ending for ending in _endings(name) if ending not in others), name) for name in targets})


def _endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts) - 1, -1, -1)]
