"""Micro batches of a global batch: who takes which records, packed without padding."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from mixtune.artifacts.shards import TokenRecord


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
    starts: torch.Tensor
    """int32, (records + 1,): where records begin, and the end."""
    longest: int
    """Tokens of the longest record."""

    def to(self, device: torch.device) -> "Packed":
        """The same on a device."""
        found = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in found.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


def plan_micro_batches(
    lengths: Sequence[int], max_tokens: int, num_parts: int = 1, even_tokens: int = 2**15
) -> list[list[int]]:
    """Cut a global batch into micro batches of about the same cost; whoever takes them, the cut is the same.

    Their number is `num_parts` times a power of two, so that processes share them evenly. Records go, the dearest
    first, to the cheapest micro batch that has room (longest processing time first, Graham 1969).

    Args:
        lengths: Tokens per record.
        max_tokens: Of a micro batch at most; a longer record is one of its own.
        num_parts: Micro batches at least, where there are as many records.
        even_tokens: Length at which attention costs as much as everything else does.

    Returns:
        The indices of the records of each micro batch, in their order.
    """
    count = num_parts
    while count * max_tokens < sum(lengths):
        count *= 2
    micros: list[list[int]] = [[] for _ in range(min(count, len(lengths)))]
    used, load = [0] * len(micros), [0.0] * len(micros)
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fits = [place for place, tokens in enumerate(used) if not tokens or tokens + lengths[index] <= max_tokens]
        if not fits:
            fits = [len(micros)]
            micros.append([])
            used.append(0)
            load.append(0.0)
        place = min(fits, key=lambda number: (load[number], number))
        micros[place].append(index)
        used[place] += lengths[index]
        load[place] += cost(lengths[index], even_tokens)
    return [sorted(micro) for micro in micros]


def cost(length: int, even_tokens: int) -> float:
    """What a record costs, in tokens: its matrices grow with the length, its attention with the length's square."""
    return length * (1 + length / even_tokens)


def spread(costs: Sequence[float], num_ranks: int) -> list[list[int]]:
    """Micro batches by rank: the dearest first, each to the rank that has least to do of those that have a place left.

    Every rank has as many places: no rank takes more than one micro batch more than it would in equal shares.
    """
    ranks: list[list[int]] = [[] for _ in range(num_ranks)]
    load = [0.0] * num_ranks
    places = -(-len(costs) // num_ranks)
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        rank = min((number for number in range(num_ranks) if len(ranks[number]) < places), key=lambda n: (load[n], n))
        ranks[rank].append(index)
        load[rank] += costs[index]
    return [sorted(own) for own in ranks]


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
        starts=torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)),
        longest=max(lengths),
    )
