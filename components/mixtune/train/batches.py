"""Micro batches of a global batch, and the loss of one: packed without padding, no document sees another."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from mixtune.shards import TokenRecord

LOGITS_AT_ONCE = 2**25
"""Logits that are held at once (128 MiB in float32): a whole batch's never are."""


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
    rows: torch.Tensor
    """int64, (loss tokens,): index in the global batch of the record that each token to learn belongs to."""

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        return Packed(**{item.name: getattr(self, item.name).to(device) for item in fields(self)})


def plan_micro_batches(
    lengths: Sequence[int], max_tokens: int, num_ranks: int = 1, even_tokens: int = 2**15
) -> list[list[list[int]]]:
    """Spread the records of a global batch over ranks and micro batches; every rank computes the same plan.

    Records go, the dearest first, to the rank that has least to do; within a rank, the longest first, to the first
    micro batch that has room. Only sums change with the plan, not what is summed.

    Args:
        lengths: Tokens per record.
        max_tokens: Of a micro batch at most; a longer record is one of its own.
        num_ranks: Processes.
        even_tokens: Length at which attention costs as much as everything else does.

    Returns:
        For every rank its micro batches, each the indices of its records in their order.
    """
    ranks: list[list[int]] = [[] for _ in range(num_ranks)]
    load = [0.0] * num_ranks
    longest_first = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    for index in longest_first:
        rank = min(range(num_ranks), key=lambda number: (load[number], number))
        ranks[rank].append(index)
        load[rank] += lengths[index] * (1 + lengths[index] / even_tokens)
    return [_fill(own, lengths, max_tokens) for own in ranks]


def _fill(longest_first: list[int], lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    micros: list[list[int]] = []
    room: list[int] = []
    for index in longest_first:
        place = next((number for number, left in enumerate(room) if lengths[index] <= left), len(micros))
        if place == len(micros):
            micros.append([])
            room.append(max_tokens)
        micros[place].append(index)
        room[place] -= lengths[index]
    return [sorted(micro) for micro in micros]


def pack(records: Sequence[TokenRecord], indices: Sequence[int] | None = None) -> Packed:
    """Records as one row; `indices` are their places in the global batch, 0, 1, ... if not given."""
    lengths = [len(record.input_ids) for record in records]
    positions = np.concatenate([np.arange(length) for length in lengths])
    mask = np.concatenate([record.loss_mask for record in records]).astype(bool) & (positions > 0)
    row = np.repeat(np.arange(len(records)), lengths)[mask]
    places = np.arange(len(records)) if indices is None else np.array(indices)
    return Packed(
        input_ids=torch.from_numpy(np.concatenate([record.input_ids for record in records]).astype(np.int64)),
        position_ids=torch.from_numpy(positions),
        targets=torch.from_numpy(np.flatnonzero(mask)),
        weights=torch.from_numpy(np.array([record.weight for record in records], np.float32)[row]),
        rows=torch.from_numpy(places[row]),
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

    size = max(1, LOGITS_AT_ONCE // model.config.get_text_config().vocab_size)
    if len(wanted) <= size:
        return chunk_loss(hidden, wanted)
    chunks = zip(hidden.split(size), wanted.split(size), strict=True)
    return torch.cat([checkpoint(chunk_loss, states, ids, use_reentrant=False) for states, ids in chunks])
