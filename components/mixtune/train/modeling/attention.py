"""Which attention a model trains with: the fastest that takes it, found out by trying, before the training begins.

No list of architectures says which kernels a model needs: head widths, soft caps, sinks and packages change with every
version. So a model is loaded with the fastest attention that transformers lets it have, and runs a few tokens forward
and backward; where that fails it gets the next one, and the reason is printed.
"""

from dataclasses import replace
from pathlib import Path

import torch
from transformers import PreTrainedModel
from transformers.utils.import_utils import is_flash_attn_2_available

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import ConfigError, MixtuneError, ModelError
from mixtune.interpolation import load_pretrained
from mixtune.train.batches import Layout, pack
from mixtune.train.modeling import kernels
from mixtune.train.modeling.dropout import RecordDropout
from mixtune.train.modeling.kernels import VARLEN
from mixtune.train.modeling.loss import PackedLoss

FLASH = "flash_attention_2"
OWN = ("sdpa", "eager")
"""transformers' own, of which every model has one: exact, with a mask of blocks over packed records."""
TRIED_TOKENS = 16
"""Of each record that is tried: no kernel's limits depend on more."""


def attention_names(dtype: torch.dtype) -> tuple[str, ...]:
    """Return the attention functions to try, fastest first; empty: a model's own default is the only one.

    On a GPU flash-attention where version 2 is installed, else torch's own varlen attention; neither computes in
    float32. FlashAttention 4 has the same package name and is not taken for it; where torch runs by it, or by 3, its
    varlen attention is the fastest.
    """
    if not torch.cuda.is_available() or dtype == torch.float32:
        return ()
    packed = (FLASH, VARLEN) if is_flash_attn_2_available() else (VARLEN,)
    return (*(reversed(packed) if kernels.active_flash() else packed), *OWN)


def load_with_attention(folder: Path, dtype: torch.dtype | str, names: tuple[str, ...]) -> PreTrainedModel:
    """Load a causal language model with the first attention that transformers lets it have, else the default.

    Raises:
        ModelError: It takes none, with the reason of each.
    """
    if not names:
        return load_pretrained(folder, dtype=dtype)
    reasons = []
    for name in names:
        try:
            causal = load_pretrained(folder, dtype=dtype, attn_implementation=name)
        except (ImportError, ValueError, KeyError) as error:
            reasons.append(f"{name}: {_first_line(error)}")
            continue
        actual = causal.config._attn_implementation
        if actual != name:
            reasons.append(f"{name}: transformers would take {actual} for it")
        elif name == VARLEN and not causal._can_set_attn_implementation():
            # It would get no mask, and would not ask for the function either.
            reasons.append(f"{name}: it computes attention by code of its own")
        else:
            return causal
    raise ModelError(f"{folder.name}: transformers loads it with no attention function ({'; '.join(reasons)})")


def settle_attention(loss: PackedLoss, records: list[TokenRecord], names: tuple[str, ...]) -> list[str]:
    """Run a few tokens forward and backward, with the next attention wherever the present one cannot take the model.

    All processes call this alike, with a record at least, the model on its device, whole or sharded. Of the names,
    fastest first, the present attention is one; without any nothing is tried. Returned is a line for every one that
    failed.

    Raises:
        ModelError: None can.
    """
    if not names:
        return []
    present = str(loss.causal.config._attn_implementation)
    rest = names[names.index(present) + 1 :] if present in names else ()
    lines = []
    while reason := _try_attention(loss, records):
        by = kernels.deactivate_flash() if present != FLASH else ""
        lines.append(f"{type(loss.causal).__name__} cannot train with {present}{by and f' by {by}'} ({reason})")
        if by:
            continue  # the same, by torch's own kernels
        while rest:
            present, *others = rest
            rest = tuple(others)
            try:
                loss.causal.set_attn_implementation(present)
                if loss.causal.config._attn_implementation == present:
                    break
                lines.append(f"{type(loss.causal).__name__} does not let {present} be set")
            except (ImportError, ValueError) as error:
                lines.append(f"{type(loss.causal).__name__} cannot have {present} ({_first_line(error)})")
        else:
            raise ModelError("; ".join(lines))
    return lines


def _try_attention(loss: PackedLoss, records: list[TokenRecord]) -> str:
    num_calls = kernels.num_varlen_calls()
    if reason := try_training(loss, records):
        return reason
    is_varlen = loss.causal.config._attn_implementation == VARLEN
    return "it does not ask for it" if is_varlen and kernels.num_varlen_calls() == num_calls else ""


def try_training(loss: PackedLoss, records: list[TokenRecord]) -> str:
    """Return why a few tokens cannot be trained on; empty: they can. No gradient stays."""
    short = [
        replace(record, input_ids=record.input_ids[:TRIED_TOKENS], loss_mask=record.loss_mask[:TRIED_TOKENS] | 1)
        for record in records
    ]
    training = loss.training
    loss.train()  # layers keep or compute again as in a training
    for dropout in {part.dropout for part in loss.modules() if isinstance(part, RecordDropout)}:
        in_rows, lengths = loss.layout is Layout.ROWS, [len(record.input_ids) for record in short]
        dropout.begin_micro_batch(range(len(short)), lengths, in_rows=in_rows)
    try:
        losses: torch.Tensor = loss(pack(short).to(next(loss.parameters()).device))
        losses.sum().backward()
    except (torch.OutOfMemoryError, ConfigError):
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, NotImplementedError, ImportError, MixtuneError) as error:
        return f"{type(error).__name__}: {_first_line(error)}"
    finally:
        loss.train(training)
        for value in loss.parameters():
            value.grad = None
    return ""


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
