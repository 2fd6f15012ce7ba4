"""The loss of packed records: no record sees another, and the logits of a whole micro batch never exist at once."""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property
from itertools import repeat
from typing import Protocol, runtime_checkable

import torch
from torch.autograd.graph import save_on_cpu
from torch.distributed.fsdp import FSDPModule
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from mixtune.errors import ModelError
from mixtune.inference.text_parts import (
    find_decoder,
    find_growing,
    find_head,
    find_writer,
    forget_lengths,
    longest_shared,
)
from mixtune.train.batches import Layout, PackedBatch
from mixtune.train.modeling.kernels import PACKED_ATTENTION
from mixtune.training_math import logits_at_once

PerToken = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, float32, (tokens, vocabulary), and ids, (tokens,), to a value by token, (tokens, ...)."""


@runtime_checkable
class SplitPerToken(Protocol):
    """A `PerToken` that holds values by token of its own."""

    def split(self, size: int) -> Sequence[PerToken]:
        """Return one for each chunk of so many tokens."""


def cross_entropies(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return the loss of each token, (tokens,)."""
    return cross_entropy(logits, ids, reduction="none")


class PackedLoss(torch.nn.Module):
    """A causal language model as a function from packed records to the losses of their tokens.

    No attention mask is given and `use_cache` is off: only then does transformers keep packed records apart by their
    positions, or by where they begin. Logits are made in chunks, at the places that carry loss, and made again for the
    gradient.

    Args:
        causal: A model of transformers.
        dtype: Of the arithmetic; weights may be float32 all the same.
        offload: Keep what the backward pass needs of the layers in the host's memory.
    """

    def __init__(self, causal: PreTrainedModel, dtype: torch.dtype, offload: bool = False) -> None:
        super().__init__()
        self.causal, self.dtype, self._offload = causal, dtype, offload
        self._scales, self._growing = find_scales(causal), find_growing(causal)
        self.layout = Layout.PACKED if self.takes_positions else Layout.ROWS
        """How records lie in a forward pass; `probe` finds out."""

    @cached_property
    def decoder(self) -> PreTrainedModel:
        """The model without its head and its other towers."""
        return find_decoder(self.causal)

    @cached_property
    def num_rows(self) -> int:
        """Rows of the embedding; without one of the usual kind, the vocabulary's size."""
        rows = getattr(self.causal.get_input_embeddings(), "num_embeddings", None)
        return int(rows or self.causal.config.get_text_config().vocab_size)

    @cached_property
    def longest_shared(self) -> int:
        """Tokens of the longest record that may share a forward pass with others; 0: any."""
        return longest_shared(self.causal.config.get_text_config())

    @cached_property
    def _head(self) -> torch.nn.Module | None:
        return find_head(self.causal)

    @property
    def takes_positions(self) -> bool:
        """Whether the model takes positions, which separate packed records."""
        accepted = inspect.signature(self.decoder.forward).parameters.values()
        return any(item.name == "position_ids" or item.kind == item.VAR_KEYWORD for item in accepted)

    def precision(self, device: torch.device) -> torch.autocast:
        """Return a context in which the model computes in its dtype."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def forward(self, packed: PackedBatch, per_token: PerToken = cross_entropies) -> torch.Tensor:
        """Return the cross entropy of every token to learn, float32, (loss tokens,), or another value by token."""
        with self.precision(packed.input_ids.device):
            return self._compute(packed, per_token)

    def _compute(self, packed: PackedBatch, per_token: PerToken) -> torch.Tensor:
        forget_lengths(self._growing)
        with save_on_cpu(packed.input_ids.is_cuda) if self._offload else nullcontext():
            out = self.decoder(**self._inputs(packed), use_cache=False)
        before = packed.targets - 1
        if self.layout is Layout.ROWS:
            before = packed.places[before]
        # (loss tokens, hidden) state before each token to learn, which predicts it, and (loss tokens,) its id.
        hidden = out.last_hidden_state.flatten(0, 1)[before]
        ids = packed.input_ids[packed.targets]
        size = max(1, logits_at_once(gpu=ids.is_cuda) // self.causal.config.get_text_config().vocab_size)
        if len(ids) <= size:
            return self._chunk(hidden, ids, per_token)
        by_chunk = per_token.split(size) if isinstance(per_token, SplitPerToken) else repeat(per_token)
        chunks = zip(hidden.split(size), ids.split(size), by_chunk, strict=False)
        return torch.cat([checkpoint(self._chunk, *chunk, use_reentrant=False) for chunk in chunks])

    def _inputs(self, packed: PackedBatch) -> dict[str, object]:
        if self.layout is Layout.ROWS:
            rows = packed.input_ids.new_zeros(packed.num_records, packed.max_seqlen)
            rows.view(-1)[packed.places] = packed.input_ids
            return {"input_ids": rows}
        if self.layout is Layout.SINGLE:
            return {"input_ids": packed.input_ids[None]}
        inputs: dict[str, object] = {"input_ids": packed.input_ids[None], "position_ids": packed.position_ids[None]}
        if self.layout is Layout.BORDERS:
            inputs["seq_idx"] = packed.seq_idx
        if self.layout is Layout.BORDERS or self.causal.config._attn_implementation in PACKED_ATTENTION:
            inputs |= {"cu_seq_lens_q": packed.cu_seqlens, "cu_seq_lens_k": packed.cu_seqlens}
            inputs |= {"max_length_q": packed.max_seqlen, "max_length_k": packed.max_seqlen}
        return inputs

    def _chunk(self, hidden: torch.Tensor, ids: torch.Tensor, per_token: PerToken) -> torch.Tensor:
        if self._head is None:
            raise ModelError(f"{type(self.causal).__name__}: it has no head that makes logits")
        logits = self._head(hidden)
        for name, value in self._scales.items():
            logits = SCALES[name](logits, value)
        return per_token(logits.float(), ids)


SCALES: dict[str, Callable[[torch.Tensor, float], torch.Tensor]] = {
    "output_multiplier": lambda logits, factor: logits * factor,
    "logit_scale": lambda logits, factor: logits * factor,
    "lm_head_multiplier": lambda logits, factor: logits * factor,
    "logits_scaling": lambda logits, divisor: logits / divisor,
    "logits_mup_width_multiplier": lambda logits, divisor: logits / divisor,
    "final_logit_softcapping": lambda logits, cap: torch.tanh(logits / cap) * cap,
    "logits_soft_cap": lambda logits, cap: torch.tanh(logits / cap) * cap,
    "output_logit_soft_cap": lambda logits, cap: torch.tanh(logits / cap) * cap,
    "unpadded_vocab_size": lambda logits, size: logits[..., : int(size)],
}
"""By name in a configuration: what a model's forward pass does with its logits."""


@contextmanager
def evaluating(loss: PackedLoss) -> Iterator[None]:
    """While the block runs, the model is as it is evaluated, and no gradient is prepared."""
    training = loss.training
    loss.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        loss.train(training)


def evaluate_tokens(loss: PackedLoss, packed: PackedBatch, per_token: PerToken) -> torch.Tensor:
    """Return a value by token of the model as it is: nothing is learned, nothing is dropped."""
    with evaluating(loss):
        values: torch.Tensor = loss(packed, per_token)
    if isinstance(loss, FSDPModule):
        loss.reshard()  # which a backward pass would have done
    return values


def find_scales(causal: PreTrainedModel) -> dict[str, float]:
    """Return what this model's own class does with its logits: values of `SCALES`, where it reads them."""
    try:
        source = inspect.getsource(type(find_writer(causal)))
    except OSError:
        source = " ".join(SCALES)
    config = causal.config.get_text_config()
    values = {name: getattr(config, name, None) for name in SCALES if name in source}
    return {name: float(value) for name, value in values.items() if value}
