"""Which part of a model's weights a training reaches, by kind of weight."""

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from mixtune.artifacts.model import Reach
from mixtune.inference.text_parts import find_head, find_used_modules
from mixtune.train.modeling.targets import ROUTERS

KINDS = {
    "shared experts": ("shared_expert", "shared_experts", "shared_mlp"),
    "experts": ("experts", "input_linear", "output_linear"),
    "states": ("mamba", "mixer", "linear_attn", "conv", "short_conv", "recurrent", "rg_lru", "temporal_block", "kda"),
    "attention": ("self_attn", "attn", "attention", "self_attention", "self_attn_layer", "self_attention_layer"),
    "MLP": ("mlp", "ffn", "feed_forward", "block_sparse_moe", "fc1", "fc2", "dense_h_to_4h", "shared_transformer"),
}
"""By kind of weight: parts of names that tell it."""
IN_MIXERS = {"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "MLP": ("up_proj", "down_proj")}
"""By kind: the last parts of its names where a model calls the states, the attention or the MLP of a layer `mixer`."""


def adapter_reach(model: PeftModel) -> Reach:
    """Return which share of a model's weights an adapter works on, of all and by kind."""
    layers: list[Any] = [layer for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    adapted = {
        id(getattr(layer.get_base_layer(), getattr(layer, "parameter_name", "weight")))
        for layer in layers
        if any(value.requires_grad for value in layer.parameters())
    }
    base: Any = model.get_base_model()
    return _reach(base, {name for name, value in base.named_parameters() if id(value) in adapted})


def weights_reach(causal: PreTrainedModel) -> Reach:
    """Return which share of a model's weights full tuning changes, of all and by kind."""
    return _reach(causal, {name for name, value in causal.named_parameters() if value.requires_grad})


def _reach(causal: PreTrainedModel, reached: set[str]) -> Reach:
    sizes: dict[str, list[int]] = {}
    inside = {id(value) for module in find_used_modules(causal) for value in module.parameters(recurse=False)}
    head = find_head(causal)
    rows = [module for module in causal.modules() if isinstance(module, torch.nn.Embedding) or module is head]
    embeddings = {id(value) for module in rows for value in module.parameters()}
    for name, value in causal.named_parameters():
        if ".lora_" in name or ".osf_" in name:
            continue
        kind = "embeddings and head" if id(value) in embeddings else _kind(name)
        size = sizes.setdefault(kind if id(value) in inside else "other towers", [0, 0])
        size[0] += value.numel() if name in reached else 0
        size[1] += value.numel()
    total = sum(whole for _, whole in sizes.values())
    return Reach(
        share=sum(part for part, _ in sizes.values()) / total,
        by_kind={kind: part / whole for kind, (part, whole) in sizes.items()},
    )


def _kind(name: str) -> str:
    parts = [part for part in name.split(".") if part != "base_layer"]
    if len(parts) > 1 and parts[-2] in ROUTERS and not any(part in KINDS["shared experts"] for part in parts[:-2]):
        return "routers"
    general = next((kind for kind, names in KINDS.items() if any(part in names for part in parts)), "norms and others")
    if general == "states" and "mixer" in parts:
        return next((kind for kind, names in IN_MIXERS.items() if parts[-2] in names), general)
    return general
