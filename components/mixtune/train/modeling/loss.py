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
from mixtune.train.batches import Packed, pack
from mixtune.train.modeling.kernels import PACKED
from mixtune.train.modeling.sharding import gathered_root
from mixtune.training_math import LOGITS_AT_ONCE

PROBED_TOKENS = 64
"""Of each record that `probe` looks at."""
PROBE_NATS = {torch.float32: 1e-3, torch.bfloat16: 0.25}
"""A token's loss is nearer than this to that of its record alone, by dtype of the arithmetic."""

Reading = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Logits, float32, (tokens, vocabulary), and ids, (tokens,), to something by token, (tokens, ...)."""


def cross_entropies(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """The loss of each token, (tokens,)."""
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
        """A context in which the model computes in its dtype."""
        return torch.autocast(device.type, self.dtype, enabled=self.dtype != torch.float32)

    def forward(self, packed: Packed, read: Reading = cross_entropies) -> torch.Tensor:
        """Cross entropy of every token to learn, float32, (loss tokens,); or what else is read off its logits."""
        with self.precision(packed.input_ids.device):
            return self._read(packed, read)

    def _read(self, packed: Packed, read: Reading) -> torch.Tensor:
        places: dict[str, Any] = {"input_ids": packed.input_ids[None], "position_ids": packed.position_ids[None]}
        if self.causal.config._attn_implementation in PACKED:
            places |= {"cu_seq_lens_q": packed.starts, "cu_seq_lens_k": packed.starts}
            places |= {"max_length_q": packed.longest, "max_length_k": packed.longest}
        with save_on_cpu(packed.input_ids.is_cuda) if self._offload else nullcontext():
            out = self.causal.get_decoder()(**places, use_cache=False)
        hidden = out.last_hidden_state[0][packed.targets - 1]
        wanted = packed.input_ids[packed.targets]
        size = max(1, LOGITS_AT_ONCE // self.causal.config.get_text_config().vocab_size)
        if len(wanted) <= size:
            return self._chunk(hidden, wanted, read)
        chunks = zip(hidden.split(size), wanted.split(size), strict=True)
        return torch.cat([checkpoint(self._chunk, states, ids, read, use_reentrant=False) for states, ids in chunks])

    def _chunk(self, states: torch.Tensor, ids: torch.Tensor, read: Reading) -> torch.Tensor:
        logits = self.causal.get_output_embeddings()(states)
        return read(_scaled(logits, self.causal.config.get_text_config()).float(), ids)


def _scaled(logits: torch.Tensor, config: Any) -> torch.Tensor:
    """What a model does with its logits: Cohere's factor, Granite's divisor, Gemma 2's soft cap."""
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits


def probe(loss: PackedLoss, records: list[TokenRecord]) -> None:
    """Hold the losses of a few packed records against the model's own logits for each record alone.

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
        got = loss(pack(short).to(device))
        alone = [pack([record]).input_ids.to(device) for record in short]
        with gathered_root(loss):
            own = [(loss.causal(input_ids=ids[None], use_cache=False).logits[0, :-1], ids[1:]) for ids in alone]
        wanted = torch.cat([cross_entropy(logits.float(), ids, reduction="none") for logits, ids in own])
    loss.train(training)
    gap = float((got - wanted).abs().max())
    if not gap <= tolerance:
        raise ModelError(
            f"{type(loss.causal).__name__}: packed records have other losses than each alone, by {gap:.2g} nats; "
            "this architecture lets records see one another, or scales its logits in a way that mixtune does not know"
        )
