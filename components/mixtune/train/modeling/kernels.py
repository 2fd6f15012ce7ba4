"""The same arithmetic by faster code on GPUs: attention over packed records, fused norms, rotary embeddings and MLPs.

None of it has been run on a GPU yet; what goes to torch's attention is tested on a CPU.
"""

import importlib.util
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from mixtune.errors import ConfigError, ModelError

VARLEN = "mixtune_varlen"
"""Name of `varlen_attention` among transformers' attention functions."""
PACKED_ATTENTION = (VARLEN, "flash_attention_2")
"""Attention functions that are told where records begin; all others get a mask."""


def choose_attention(config: Any, dtype: torch.dtype) -> str | None:
    """The attention function for a model's configuration; None: the model's own, with a mask of blocks.

    On a GPU flash-attention where it is installed, else torch's own varlen attention; neither computes in float32.
    """
    if not torch.cuda.is_available() or dtype == torch.float32:
        return None
    if importlib.util.find_spec("flash_attn"):
        return "flash_attention_2"
    return None if getattr(config.get_text_config(), "attn_logit_softcapping", None) else VARLEN


def varlen_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each packed record, by torch, without a mask in memory.

    Args:
        module: The layer.
        query: (1, heads, tokens, width)
        key: (1, key heads, tokens, width)
        value: (1, key heads, tokens, width)
        attention_mask: None.
        options: transformers' own: `scaling`, `sliding_window`, `cu_seq_lens_q` (int32, where records begin, and the
            end), `max_length_q`; without the last two, all tokens are one record.

    Returns:
        (1, tokens, heads, width), and no weights.

    Raises:
        ModelError: The model's attention has what this one has not.
    """
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise ModelError(f"torch's varlen attention has no {name}, which this model needs; install flash-attn")
    starts, longest = options.get("cu_seq_lens_q"), options.get("max_length_q")
    if starts is None or longest is None:
        longest = query.shape[2]
        starts = torch.tensor([0, longest], dtype=torch.int32, device=query.device)
    window = options.get("sliding_window")
    queries, keys, values = (part[0].transpose(0, 1).to(value.dtype) for part in (query, key, value))
    out: Any = varlen_attn(
        queries,
        keys,
        values,
        starts,
        starts,
        longest,
        longest,
        scale=options.get("scaling"),
        window_size=(window - 1 if window else -1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return out[None], None


AttentionInterface.register(VARLEN, varlen_attention)


def fuse(causal: Any) -> None:
    """Put Liger's kernels for norms, rotary embeddings and MLPs into a model (Hsu et al. 2024); the loss stays ours.

    Raises:
        ConfigError: No GPU, no liger-kernel, or none for this architecture.
    """
    if not torch.cuda.is_available():
        raise ConfigError("fused_kernels are for GPUs; leave them off here")
    if not importlib.util.find_spec("liger_kernel"):
        raise ConfigError("fused_kernels need liger-kernel; install mixtune[kernels], or leave them off")
    from liger_kernel.transformers import monkey_patch as liger

    kind = causal.config.model_type
    if kind not in liger.MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise ConfigError(f"liger-kernel has nothing for {kind}; leave fused_kernels off")
    liger._apply_liger_kernel_to_instance(causal, cross_entropy=False, fused_linear_cross_entropy=False)
