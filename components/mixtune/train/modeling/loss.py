"""The loss of packed records: no record sees another, and the logits of a whole micro batch never exist at once."""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd.graph import save_on_cpu
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import ModelError
from mixtune.train.batches import PackedBatch, pack
from mixtune.train.modeling.kernels import PACKED_ATTENTION
from mixtune.train.modeling.sharding import gathered_root
from mixtune.training_math import LOGITS_AT_ONCE

PROBED_TOKENS = 64
"""Of each record that `probe` compares."""
PROBE_NATS = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""Largest gap between a token's loss and that of its record alone, by dtype of the arithmetic."""

PerToken = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, float32, (tokens, vocabulary), and ids, (tokens,), to a value by token, (tokens, ...)."""


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

    def __init__(self, causal: Any, dtype: torch.dtype, offload: bool = False) -> None:
        super().__init__()
        self.causal, self.dtype, self._offload = causal, dtype, offload

    def precision(self, device: torch.device) -> torch.autocast:
        """Return a context in which the model computes in its dtype."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def forward(self, packed: PackedBatch, per_token: PerToken = cross_entropies) -> torch.Tensor:
        """Return the cross entropy of every token to learn, float32, (loss tokens,), or another value by token."""
        with self.precision(packed.input_ids.device):
            return self._compute(packed, per_token)

    def _compute(self, packed: PackedBatch, per_token: PerToken) -> torch.Tensor:
        inputs: dict[str, Any] = {"input_ids": packed.input_ids[None], "position_ids": packed.position_ids[None]}
        if self.causal.config._attn_implementation in PACKED_ATTENTION:
            inputs |= {"cu_seq_lens_q": packed.cu_seqlens, "cu_seq_lens_k": packed.cu_seqlens}
            inputs |= {"max_length_q": packed.max_seqlen, "max_length_k": packed.max_seqlen}
        with save_on_cpu(packed.input_ids.is_cuda) if self._offload else nullcontext():
            out = self.causal.get_decoder()(**inputs, use_cache=False)
        # (loss tokens, hidden) state before each token to learn, which predicts it, and (loss tokens,) its id.
        hidden = out.last_hidden_state[0][packed.targets - 1]
        ids = packed.input_ids[packed.targets]
        size = max(1, LOGITS_AT_ONCE // self.causal.config.get_text_config().vocab_size)
        if len(ids) <= size:
            return self._chunk(hidden, ids, per_token)
        chunks = zip(hidden.split(size), ids.split(size), strict=True)
        return torch.cat([checkpoint(self._chunk, *chunk, per_token, use_reentrant=False) for chunk in chunks])

    def _chunk(self, hidden: torch.Tensor, ids: torch.Tensor, per_token: PerToken) -> torch.Tensor:
        logits = _scaled(self.causal.get_output_embeddings()(hidden), self.causal.config.get_text_config())
        return per_token(logits.float(), ids)


def _scaled(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """Apply what the model does with its logits: Cohere's factor, Granite's divisor, Gemma 2's soft cap."""
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


def probe(loss: PackedLoss, records: list[TokenRecord]) -> None:
    """Compare the losses of a few packed records with the model's own logits for each record alone.

    Args:
        loss: The model; one whose logits are made otherwise, or whose records see one another, is found here.
        records: Any; their first tokens are taken, all as tokens to learn.

    Raises:
        ModelError: They differ: this model cannot be trained.
    """
    device, tolerance = next(loss.parameters()).device, PROBE_NATS[loss.dtype]
    short = [
        TokenRecord(
            pool=record.pool,
            record_id=record.record_id,
            input_ids=record.input_ids[:PROBED_TOKENS],
            loss_mask=record.loss_mask[:PROBED_TOKENS] | 1,
            weight=1.0,
        )
        for record in records
    ]
    training = loss.training
    loss.eval()
    with torch.no_grad(), loss.precision(device):
        packed_losses = loss(pack(short).to(device))
        single = [pack([record]).input_ids.to(device) for record in short]
        with gathered_root(loss):
            logits = [loss.causal(input_ids=ids[None], use_cache=False).logits[0, :-1].float() for ids in single]
        pairs = zip(logits, single, strict=True)
        single_losses = torch.cat([cross_entropies(predictions, ids[1:]) for predictions, ids in pairs])
    loss.train(training)
    gap = float((packed_losses - single_losses).abs().max())
    if not gap <= tolerance:
        raise ModelError(
            f"{type(loss.causal).__name__}: packed records have other losses than each alone, by {gap:.2g} nats; "
            "this architecture lets records see one another, or scales its logits in a way that mixtune does not know"
        )
