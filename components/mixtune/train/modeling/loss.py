"""The loss of packed records: no record sees another, and the logits of a whole micro batch never exist at once."""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.autograd.graph import save_on_cpu
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import ModelError
from mixtune.train.batches import PackedBatch, pack
from mixtune.train.modeling.kernels import PACKED_ATTENTION
from mixtune.train.modeling.sharding import gathered_root
from mixtune.training_math import logits_at_once

PROBED_TOKENS = 512
"""Of each record that `probe` looks at: enough for a convolution or a state to carry something over a border."""
PROBE_NATS = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""Largest gap between a token's loss and the one by the model's own logits, by dtype of the arithmetic. Leaks between
records are found without any tolerance."""

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
        self.packs = True
        """Whether a row may hold several records; `probe` finds out."""

    @property
    def decoder(self) -> Any:
        """The model without its head."""
        decoder = self.causal.get_decoder()
        return self.causal.base_model if decoder is self.causal else decoder

    def precision(self, device: torch.device) -> torch.autocast:
        """Return a context in which the model computes in its dtype."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def forward(self, packed: PackedBatch, per_token: PerToken = cross_entropies) -> torch.Tensor:
        """Return the cross entropy of every token to learn, float32, (loss tokens,), or another value by token."""
        with self.precision(packed.input_ids.device):
            return self._compute(packed, per_token)

    def _compute(self, packed: PackedBatch, per_token: PerToken) -> torch.Tensor:
        inputs: dict[str, Any] = {"input_ids": packed.input_ids[None]}
        if self.packs:
            inputs["position_ids"] = packed.position_ids[None]
        if self.packs and self.causal.config._attn_implementation in PACKED_ATTENTION:
            inputs |= {"cu_seq_lens_q": packed.cu_seqlens, "cu_seq_lens_k": packed.cu_seqlens}
            inputs |= {"max_length_q": packed.max_seqlen, "max_length_k": packed.max_seqlen}
        with save_on_cpu(packed.input_ids.is_cuda) if self._offload else nullcontext():
            out = self.decoder(**inputs, use_cache=False)
        # (loss tokens, hidden) state before each token to learn, which predicts it, and (loss tokens,) its id.
        hidden = out.last_hidden_state[0][packed.targets - 1]
        ids = packed.input_ids[packed.targets]
        size = max(1, logits_at_once(gpu=ids.is_cuda) // self.causal.config.get_text_config().vocab_size)
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


def probe(loss: PackedLoss, records: list[TokenRecord]) -> str:
    """Find out whether this model keeps packed records apart, and whether its logits are made as `PackedLoss` does.

    Where records see one another, `loss.packs` is switched off: each is then a forward pass of its own.

    Args:
        loss: The model, with the attention and in the dtype that it trains with.
        records: Any, two at least; their first tokens are taken, all as tokens to learn.

    Returns:
        Why records are not packed; empty: they are.

    Raises:
        ModelError: A record has other losses than by the model's own logits: this model cannot be trained.
    """
    short = [
        replace(record, input_ids=ids, loss_mask=np.ones(len(ids), np.uint8), weight=1.0)
        for record, ids in ((record, record.input_ids[:PROBED_TOKENS]) for record in records)
    ]
    training = loss.training
    loss.eval()
    with torch.no_grad():
        reason = _find_leak(loss, short)
        tolerance = PROBE_NATS[loss.dtype]
        if not reason and not (gap := _gap_to_logits(loss, [short])) <= tolerance:
            reason = f"packed records have other losses than each alone, by {gap:.2g} nats"
        loss.packs = not reason
        if reason and not (gap := _gap_to_logits(loss, [[record] for record in short])) <= tolerance:
            raise ModelError(
                f"{type(loss.causal).__name__}: records have other losses than by the model's own logits, by {gap:.2g} "
                "nats; this architecture scales its logits in a way that mixtune does not know"
            )
    loss.train(training)
    return reason


def _find_leak(loss: PackedLoss, records: list[TokenRecord]) -> str:
    """Change one record at a time, lengths kept: every other record's losses must stay the same, bit by bit."""
    accepted = inspect.signature(loss.decoder.forward).parameters.values()
    if not any(item.name == "position_ids" or item.kind == item.VAR_KEYWORD for item in accepted):
        return "it takes no positions, by which packed records are told apart"
    before = _losses_by_record(loss, records)
    for changed, record in enumerate(records):
        ids = np.roll(np.arange(record.input_ids.max() + 1), 1)[record.input_ids].astype(record.input_ids.dtype)
        after = _losses_by_record(loss, [*records[:changed], replace(record, input_ids=ids), *records[changed + 1 :]])
        for number, (old, new) in enumerate(zip(before, after, strict=True)):
            if number != changed and not torch.equal(old, new):
                gap = float((old - new).abs().max())
                return f"packed records see one another: another record's tokens moved a loss by {gap:.2g} nats"
    return ""


def _losses_by_record(loss: PackedLoss, records: list[TokenRecord]) -> list[torch.Tensor]:
    packed = pack(records).to(next(loss.parameters()).device)
    losses: torch.Tensor = loss(packed)
    return [losses[packed.records == number] for number in range(len(records))]


def _gap_to_logits(loss: PackedLoss, groups: list[list[TokenRecord]]) -> float:
    """Return the largest gap, in nats, between losses of packed groups and those by the model's own logits."""
    device = next(loss.parameters()).device
    losses = torch.cat([loss(pack(group).to(device)) for group in groups])
    single = [torch.from_numpy(record.input_ids.astype(np.int64)).to(device) for group in groups for record in group]
    with loss.precision(device), gathered_root(loss):
        logits = [loss.causal(input_ids=ids[None], use_cache=False).logits[0, :-1].float() for ids in single]
    pairs = zip(logits, single, strict=True)
    return float((losses - torch.cat([cross_entropies(rows, ids[1:]) for rows, ids in pairs])).abs().max())
