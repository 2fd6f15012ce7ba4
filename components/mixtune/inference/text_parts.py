"""The parts of a model that write text, found on its own modules, and the sizes and the arithmetic that they have."""

import torch
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mixtune.artifacts.sizes.attention_layers import read_mixing
from mixtune.errors import ModelError
from mixtune.interpolation import config_values, layer_configs
from mixtune.training_math import ACTIVE_EXPERTS, EXPERT_COUNTS, Attention, ModelSizes

_COUNTS = (*EXPERT_COUNTS, "zero_expert_num")


def find_writer(causal: PreTrainedModel) -> PreTrainedModel:
    """Return the model that makes logits of text: this one, or the causal language model that it is wrapped around."""
    models = [part for part in causal.modules() if isinstance(part, PreTrainedModel)]
    return next((part for part in models if part.get_output_embeddings() is not None), causal)


def find_head(causal: PreTrainedModel) -> torch.nn.Module | None:
    """Return what makes logits of a model's hidden states; None: nothing does."""
    head: torch.nn.Module | None = find_writer(causal).get_output_embeddings()
    return head


def find_decoder(causal: PreTrainedModel) -> PreTrainedModel:
    """Return the part of a causal language model that makes hidden states of text: all but its head and its towers.

    Raises:
        ModelError: It has none.
    """
    for decoder in (causal.get_decoder(), causal.base_model, getattr(causal, "model", None)):
        if isinstance(decoder, PreTrainedModel) and decoder is not causal:
            return decoder if decoder.get_output_embeddings() is None else find_decoder(decoder)
    raise ModelError(f"{type(causal).__name__}: it has no decoder under its head; mixtune cannot train it")


def find_text_modules(causal: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the modules of a model's decoder of text: neither its head nor models within, such as image tokenizers."""
    decoder, embedding = find_decoder(causal), causal.get_input_embeddings()
    models = [part for part in decoder.modules() if isinstance(part, PreTrainedModel) and part is not decoder]
    towers = [part for part in models if all(module is not embedding for module in part.modules())]
    outside = {id(module) for part in towers for module in part.modules()} | {id(find_head(causal))}
    return [module for module in decoder.modules() if id(module) not in outside]


def find_used_modules(causal: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the modules that text goes through: those of its decoder, and the head."""
    head = find_head(causal)
    return [*find_text_modules(causal), *([] if head is None else [head])]


def find_experts(causal: PreTrainedModel) -> list[torch.nn.Module]:
    """Return the modules of a model that hold the matrices of several experts."""
    counts = count_experts(causal)
    return [module for module in find_text_modules(causal) if fused_experts(module, counts)]


def count_experts(causal: PreTrainedModel) -> set[int]:
    """Return the numbers of experts that a layer may have."""
    layers = layer_configs(causal.config.get_text_config())
    counts = {value for key in _COUNTS for text in layers if isinstance(value := getattr(text, key, None), int)}
    return counts | {sum(counts)}  # those that do nothing may lie in the same tensor


def fused_experts(module: torch.nn.Module, counts: set[int]) -> list[str]:
    """Return the parameters of a module that hold a matrix for each expert."""
    if isinstance(module, torch.nn.modules.conv._ConvNd | torch.nn.Embedding):
        return []
    own = module.named_parameters(recurse=False)
    return [key for key, value in own if value.ndim == 3 and value.shape[0] in counts and min(value.shape[1:]) > 1]


def longest_shared(text: PreTrainedConfig) -> int:
    """Return the tokens of the longest sequence that may share a forward pass with others of any length; 0: any.

    Some rotary embeddings turn otherwise throughout a pass in which a text is longer than the model's first ones.
    """
    rope = getattr(text, "rope_parameters", None) or {}
    by_layer = [item for item in (rope, *rope.values()) if isinstance(item, dict)]
    longest = {"dynamic": "max_position_embeddings", "longrope": "original_max_position_embeddings"}
    names = [(item, longest.get(str(item.get("rope_type")))) for item in by_layer]
    return min((item.get(name) or getattr(text, name) for item, name in names if name), default=0)


def find_growing(causal: torch.nn.Module) -> list[torch.nn.Module]:
    """Return the rotary embeddings that remember the longest text of earlier passes; see `forget_lengths`."""
    return [part for part in causal.modules() if "dynamic" in str(getattr(part, "rope_type", ""))]


def forget_lengths(ropes: list[torch.nn.Module]) -> None:
    """Turn rotary embeddings back to the model's first ones: a pass must not depend on those before it."""
    for rope in ropes:
        first = rope.original_max_seq_len
        for name in [key for key in vars(rope) if key.endswith("max_seq_len_cached") and getattr(rope, key) > first]:
            kind = name.removesuffix("max_seq_len_cached")
            angles = getattr(rope, f"{kind}original_inv_freq").to(getattr(rope, f"{kind}inv_freq").device)
            rope.register_buffer(f"{kind}inv_freq", angles, persistent=False)
            setattr(rope, name, first)


def count_model(causal: PreTrainedModel) -> ModelSizes:
    """Return the sizes of a model; an adapter in it counts as parameters of it, and not as active values."""
    text, parts = causal.config.get_text_config(), find_used_modules(causal)
    layers, names = layer_configs(text), {id(module): name for name, module in causal.named_modules()}
    used = next((value for name in ACTIVE_EXPERTS for layer in layers if (value := getattr(layer, name, None))), 1)
    matrices = [part for part in parts if isinstance(part, torch.nn.Linear | Conv1D)]
    experts = [value for part in find_experts(causal) for value in part.parameters(recurse=False) if value.ndim == 3]
    active = sum(part.weight.numel() for part in matrices if ".lora_" not in names[id(part)])
    return ModelSizes(
        parameters=sum(value.numel() for value in causal.parameters()),
        text=sum({id(value): value.numel() for part in parts for value in part.parameters(recurse=False)}.values()),
        active=round(active + sum(value.numel() * min(1.0, used / len(value)) for value in experts)),
        attention=_count_attention(text),
    )


def _count_attention(text: PreTrainedConfig) -> Attention:
    """Return the width of attention over all layers; of layers of unknown kinds, as if they saw the whole record."""
    try:
        return read_mixing(config_values(text)).attention
    except ModelError:
        return Attention(whole=len(layer_configs(text)) * int(getattr(text, "hidden_size", None) or 0))
