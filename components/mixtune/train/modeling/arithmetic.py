"""The arithmetic of a model by its own modules: experts that are used, attention by its kind."""

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mixtune.train.modeling.loss import find_head, find_text_modules
from mixtune.train.modeling.targets import find_experts
from mixtune.training_math import ACTIVE_EXPERTS, Attention


def count_active_values(causal: PreTrainedModel) -> int:
    """Return the values in the matrices that a token goes through, the head's among them, an adapter's not."""
    text, head = causal.config.get_text_config(), find_head(causal)
    active = next((value for name in ACTIVE_EXPERTS if (value := getattr(text, name, None))), 1)
    names = {id(module): name for name, module in causal.named_modules()}
    total = 0.0
    for module in [*find_text_modules(causal), *([] if head is None else [head])]:
        if isinstance(module, torch.nn.Linear | Conv1D) and ".lora_" not in names[id(module)]:
            total += module.weight.numel()
    for module in find_experts(causal):
        for value in module.parameters(recurse=False):
            if value.ndim == 3:
                total += value.numel() * min(1.0, active / len(value))
    return round(total)


def count_attention(causal: PreTrainedModel) -> Attention:
    """Return the width of attention over all layers; layers that keep a state have none."""
    text = causal.config.get_text_config()
    heads = getattr(text, "num_attention_heads", None) or 1
    width = heads * (getattr(text, "head_dim", None) or text.hidden_size // heads)
    layers = int(text.num_hidden_layers)
    kinds = [str(kind) for kind in getattr(text, "layer_types", None) or ["full_attention"] * layers]
    window = getattr(text, "sliding_window", None) or 0
    windowed = kinds.count("sliding_attention") if window else 0
    whole = sum("attention" in kind or kind == "hybrid" for kind in kinds) - kinds.count("linear_attention") - windowed
    return Attention(whole=whole * width, windowed=windowed * width, window=int(window))
