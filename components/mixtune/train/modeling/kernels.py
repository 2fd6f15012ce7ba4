"""The same arithmetic by faster code on GPUs: attention over packed records, fused norms, rotary embeddings and MLPs.

None of it has been run on a GPU yet; what goes to torch's attention is tested on a CPU.
"""

import importlib.util
import inspect
from typing import Any

import torch
from torch.nn import attention
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface, PreTrainedModel

from mixtune.errors import ConfigError, ModelError

VARLEN = "mixtune_varlen"
"""Name of `varlen_attention` among transformers' attention functions."""
PACKED_ATTENTION = (VARLEN, "flash_attention_2")
"""Attention functions that take the records' boundaries; all others get a mask."""
FLASH_PACKAGES = (("FA3", "flash_attn_interface", (9,)), ("FA4", "flash_attn.cute", (9, 10)))
"""torch's name of an implementation, the module that has it, and the compute capabilities that it is for."""
_varlen_calls = [0]
_TELLS_GROUPS = "enable_gqa" in inspect.signature(varlen_attn).parameters


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
        module: The attention layer.
        query: (rows, heads, tokens, width).
        key: (rows, key heads, tokens, width).
        value: As key, possibly narrower, as in multi-head latent attention.
        attention_mask: None.
        options: transformers' own: `scaling`, `sliding_window`, `cu_seq_lens_q` (int32, where records begin, and the
            end), `max_length_q`; without the last two, each row is one record.

    Returns:
        (rows, tokens, heads, width), and no weights.

    Raises:
        ModelError: The model's attention has what this one has not.
    """
    if not torch.compiler.is_compiling():  # a count would be a new graph every time
        _varlen_calls[0] += 1
    for name in ("softcap", "s_aux"):
        if options.get(name) is not None:
            raise ModelError(f"torch's varlen attention has no {name}, which this model needs; install flash-attn")
    starts, longest = options.get("cu_seq_lens_q"), options.get("max_length_q")
    if starts is None or longest is None:
        longest = query.shape[2]
        starts = longest * torch.arange(len(query) + 1, dtype=torch.int32, device=query.device)
    _check_chunks(module, longest)
    window = options.get("sliding_window")
    queries, keys, values = (part.transpose(1, 2).flatten(0, 1).to(value.dtype) for part in (query, key, value))
    # The kernel reads a head's numbers one after another; Inkling's, say, are a transposed product's.
    queries, keys, values = (part if part.stride(-1) == 1 else part.contiguous() for part in (queries, keys, values))
    width = values.shape[-1]
    if width < queries.shape[-1]:  # the kernel takes one width; zeros behind the values stay zeros
        values = torch.nn.functional.pad(values, (0, queries.shape[-1] - width))
    # torch 2.11 takes fewer key heads without being told, and has no such parameter.
    groups: dict[str, Any] = {"enable_gqa": query.shape[1] != key.shape[1]} if _TELLS_GROUPS else {}
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
        **groups,
    )
    return out.unflatten(0, (len(query), -1))[..., :width], None


def _check_chunks(module: torch.nn.Module, longest: int) -> None:
    """Check that no record is longer than what a layer sees at once, if that is a chunk; else a ModelError."""
    config = getattr(module, "config", None)
    kinds, chunk = (getattr(config, name, None) for name in ("layer_types", "attention_chunk_size"))
    if chunk and longest > chunk and kinds and kinds[module.layer_idx] == "chunked_attention":
        raise ModelError(
            f"torch's varlen attention knows no chunks: a record has {longest:,} tokens, and this model's layers see "
            f"chunks of {chunk:,}; lower max_length to that"
        )


AttentionInterface.register(VARLEN, varlen_attention)


def activate_flash() -> str:
    """Let torch's attention run by FlashAttention 3 or 4 if one is installed for this GPU; return its name, or ""."""
    major = torch.cuda.get_device_capability()[0] if torch.cuda.is_available() else 0
    for name, module, majors in FLASH_PACKAGES:
        if major not in majors or not importlib.util.find_spec(module.partition(".")[0]):
            continue
        try:
            if not importlib.util.find_spec(module):
                continue
            attention.activate_flash_attention_impl(name)
        except (ImportError, RuntimeError, ValueError) as error:
            print(f"{name} is installed and torch cannot take it ({error})", flush=True)
            continue
        return name
    return ""


def active_flash() -> str:
    """Return the name of the implementation that torch's attention runs by; empty: its own."""
    return attention.current_flash_attention_impl() or ""


def deactivate_flash() -> str:
    """Let torch's attention run by its own kernels again; return the name of what it ran by, empty: by those."""
    if name := active_flash():
        attention.restore_flash_attention_impl()
    return name


def num_varlen_calls() -> int:
    """Return how often a model has asked for `varlen_attention` in this process."""
    return _varlen_calls[0]


def fuse(causal: PreTrainedModel) -> None:
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
