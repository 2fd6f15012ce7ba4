"""Micro batches of a global batch, and the loss of one: packed without padding, no document sees another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from mixtune.shards import TokenRecord

LOSS_CHUNK = 1024
"""Positions whose logits are held at once: the whole batch's never are."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """Records one behind the other, as one row."""

    input_ids: torch.Tensor
    """int64, (tokens,)"""
    position_ids: torch.Tensor
    """int64, (tokens,): they start again at 0 with every record, which is what keeps records apart."""
    targets: torch.Tensor
    """int64, (loss tokens,): places of the tokens to learn."""
    weights: torch.Tensor
    """float32, (loss tokens,)"""
    pools: torch.Tensor
    """int64, (loss tokens,): pool of each token to learn."""


def micro_batches(records: Sequence[TokenRecord], max_tokens: int) -> Iterator[list[TokenRecord]]:
    """The records in their order, as many together as `max_tokens` allows."""
    batch: list[TokenRecord] = []
    total = 0
    for record in records:
        if batch and total + len(record.input_ids) > max_tokens:
            yield batch
            batch, total = [], 0
        batch.append(record)
        total += len(record.input_ids)
    if batch:
        yield batch


def pack(records: Sequence[TokenRecord]) -> Packed:
    """Records as one row."""
    lengths = [len(record.input_ids) for record in records]
    positions = np.concatenate([np.arange(length) for length in lengths])
    mask = np.concatenate([record.loss_mask for record in records]).astype(bool) & (positions > 0)
    row = np.repeat(np.arange(len(records)), lengths)[mask]
    return Packed(
        input_ids=torch.from_numpy(np.concatenate([record.input_ids for record in records]).astype(np.int64)),
        position_ids=torch.from_numpy(positions),
        targets=torch.from_numpy(np.flatnonzero(mask)),
        weights=torch.from_numpy(np.array([record.weight for record in records], np.float32)[row]),
        pools=torch.from_numpy(np.array([record.pool for record in records])[row]),
    )


def token_losses(model: Any, packed: Packed) -> torch.Tensor:
    """Cross entropy of every token to learn, float32, (loss tokens,).

    No attention mask is given and `use_cache` is off: only then does transformers keep packed records apart by their
    positions. Logits are made in chunks, at the places that carry loss, and made again for the gradient.
    """
    trunk, head = model.get_decoder(), model.get_output_embeddings()
    out = trunk(input_ids=packed.input_ids[None], position_ids=packed.position_ids[None], use_cache=False)
    hidden = out.last_hidden_state[0][packed.targets - 1]
    wanted = packed.input_ids[packed.targets]

    def chunk_loss(states: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return cross_entropy(head(states).float(), ids, reduction="none")

    if len(wanted) <= LOSS_CHUNK:
        return chunk_loss(hidden, wanted)
    chunks = zip(hidden.split(LOSS_CHUNK), wanted.split(LOSS_CHUNK), strict=True)
    return torch.cat([checkpoint(chunk_loss, states, ids, use_reentrant=False) for states, ids in chunks])
