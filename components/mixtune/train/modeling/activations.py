"""What a forward pass keeps for the backward one: everything, products and attention, or the layers' inputs alone."""

from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from mixtune.errors import ConfigError
from mixtune.inference.text_parts import count_model
from mixtune.interpolation import config_values
from mixtune.preflight.memory import RESERVE, choose_activations, num_shards, training_on_gpus
from mixtune.preflight.shape import Shape
from mixtune.settings.train import TrainSettings
from mixtune.train.distributed import ProcessGroup
from mixtune.train.modeling.kernels import PACKED_ATTENTION
from mixtune.training_math import MICRO_TOKENS

PRODUCTS = ("aten::mm", "aten::addmm", "aten::_grouped_mm")
LEAST_INNER = 128
"""Values of a sum in a product, below which it costs less to compute again than to keep: an adapter's B matrices."""


def keep_products(_context: Any, operation: Any, *args: Any, **_options: Any) -> CheckpointPolicy:
    """Say whether the result of an operation is kept; torch calls this for each one of a layer."""
    name = operation.name() if isinstance(operation, torch._ops.OpOverload) else str(operation)
    is_product = name.split(".")[0] in PRODUCTS
    inner = args[1 if "addmm" in name else 0].shape[-1] if is_product else 0
    is_attention = "_scaled_dot_product" in name or "flash_attn" in name or "varlen_attn" in name
    return CheckpointPolicy.MUST_SAVE if is_attention or inner >= LEAST_INNER else CheckpointPolicy.PREFER_RECOMPUTE


def set_activations(causal: Any, activations: str) -> None:
    """Let a model's layers keep all (`keep`), products and attention (`selective`), or only their inputs.

    Raises:
        ConfigError: The architecture can only keep them.
    """
    if activations == "keep":
        if causal.is_activation_checkpointing:
            causal.activation_checkpointing_disable()
        return
    if not causal.supports_gradient_checkpointing:
        name = type(causal).__name__
        raise ConfigError(f"activations: {name} of transformers can only keep them; leave activations empty")
    options: dict[str, Any] = {"use_reentrant": False}
    if activations == "selective":
        options["context_fn"] = partial(create_selective_checkpoint_contexts, keep_products)
    causal.activation_checkpointing_enable(options)


def fastest_activations(causal: Any, settings: TrainSettings, group: ProcessGroup, longest: int) -> str:
    """Return how a model on a GPU trains fastest within its memory, by the estimate of preflight.

    That is an estimate of dense models whose attention takes no mask: with any other, layers are recomputed. The model
    has the attention that it trains with; `longest` are the tokens of the longest record.
    """
    text = causal.config.get_text_config()
    states = {"linear_attention", "mamba", "conv", "recurrent"} & set(getattr(text, "layer_types", None) or ())
    if causal.config._attn_implementation not in PACKED_ATTENTION or states:
        return "recompute"
    shape = Shape.from_config(config_values(text), count_model(causal))
    tokens = max(settings.memory.max_tokens_per_gpu or MICRO_TOKENS, longest)
    shards = num_shards(shape, settings, group.local_size, group.size // group.local_size, group.memory_bytes)
    training = training_on_gpus(settings, tokens, shards=shards)
    return "recompute" if shape.experts else choose_activations(shape, training, RESERVE * group.memory_bytes)
