"""Micro batches of a global batch: which rank takes which records, packed without padding."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from typing import Any

import numpy as np
import torch

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import DataError

MOST_PADDING = 0.25
"""Share of a micro batch of rows that may be padding."""


class Layout(StrEnum):
    """How the records of a micro batch lie in a forward pass."""

    PACKED = "packed"
    """One behind the other in one row."""
    BORDERS = "borders"
    """The same, and the model's kernels for states and convolutions get each record's start."""
    ROWS = "rows"
    """Each in a row of its own, padded on the right: nothing that is causal sees what comes behind."""
    SINGLE = "single"
    """One record."""

    @property
    def is_packed(self) -> bool:
        """Whether there is one row, without padding."""
        return self in (Layout.PACKED, Layout.BORDERS)


@dataclass(frozen=True, kw_only=True)
class PackedBatch:
    """Records one behind the other, as one row."""

    input_ids: torch.Tensor
    """int64, (tokens,)"""
    position_ids: torch.Tensor
    """int64, (tokens,): they start again at 0 with every record, which is what keeps records apart."""
    targets: torch.Tensor
    """int64, (loss tokens,): places of the tokens to learn."""
    weights: torch.Tensor
    """float32, (loss tokens,)"""
    records: torch.Tensor
    """int64, (loss tokens,): index in the global batch of the record that each token to learn belongs to."""
    cu_seqlens: torch.Tensor
    """int32, (records + 1,): where records begin, and the end."""
    max_seqlen: int
    """Tokens of the longest record."""

    @property
    def num_records(self) -> int:
        """Number of records."""
        return len(self.cu_seqlens) - 1

    @property
    def places(self) -> torch.Tensor:
        """int64, (tokens,): where each token lies in rows of `max_seqlen`, one record a row, laid end to end."""
        lengths = self.cu_seqlens.diff()
        row = torch.arange(len(lengths), device=lengths.device).repeat_interleave(lengths)
        return row * self.max_seqlen + self.position_ids

    @property
    def seq_idx(self) -> torch.Tensor:
        """int32, (1, tokens): number of each token's record."""
        lengths = self.cu_seqlens.diff()
        numbers = torch.arange(len(lengths), dtype=torch.int32, device=lengths.device)
        return numbers.repeat_interleave(lengths)[None]

    def to(self, device: torch.device) -> "PackedBatch":
        """Return the same on a device."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        moved: dict[str, Any] = {name: v.to(device) for name, v in values.items() if isinstance(v, torch.Tensor)}
        return replace(self, **moved)


def plan_micro_batches(
    lengths: Sequence[int], max_tokens: int, num_parts: int = 1, crossover_length: int = 2**15
) -> list[list[int]]:
    """Cut a global batch into micro batches of about the same cost, the same ones whichever ranks take them.

    Records go, the costliest first, to the cheapest micro batch that has room (longest processing time first, Graham
    1969).

    Args:
        lengths: Tokens of each record.
        max_tokens: Of a micro batch; a longer record is one of its own.
        num_parts: Of this, times a power of two, is their number, so that ranks share them evenly; less with fewer
            records.
        crossover_length: Tokens at which attention costs as much as all else does.

    Returns:
        The indices of the records of each micro batch, in their order.
    """
    count = num_parts
    while count * max_tokens < sum(lengths):
        count *= 2
    micro_batches: list[list[int]] = [[] for _ in range(min(count, len(lengths)))]
    tokens, load = [0] * len(micro_batches), [0.0] * len(micro_batches)
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fits = [place for place, used in enumerate(tokens) if not used or used + lengths[index] <= max_tokens]
        if not fits:
            fits = [len(micro_batches)]
            micro_batches.append([])
            tokens.append(0)
            load.append(0.0)
        place = min(fits, key=lambda number: (load[number], number))
        micro_batches[place].append(index)
        tokens[place] += lengths[index]
        load[place] += record_cost(lengths[index], crossover_length)
    return [sorted(indices) for indices in micro_batches]


def largest_micro_batch(
    batches: Iterable[Sequence[int]],
    max_tokens: int,
    num_parts: int = 1,
    crossover_length: int = 2**15,
    layout: Layout = Layout.PACKED,
) -> list[int]:
    """Return the lengths of the records of the largest micro batch that global batches of such lengths are cut into.

    The rest is as for `plan_micro_batches`.
    """
    largest: list[int] = []
    # A micro batch holds no more than its batch, max_tokens or one record: what cannot be larger is not cut.
    for lengths in sorted(batches, key=sum, reverse=True):
        if min(sum(lengths), max(max_tokens, *lengths)) <= sum(largest):
            continue
        for indices in plan_layout(layout, lengths, max_tokens, num_parts, crossover_length):
            if sum(lengths[index] for index in indices) > sum(largest):
                largest = [lengths[index] for index in indices]
    return largest


def plan_rows(lengths: Sequence[int], max_tokens: int, num_parts: int = 1) -> list[list[int]]:
    """Cut a global batch into micro batches of rows of about the same length, padding counted as tokens.

    Number and limits are as for `plan_micro_batches`, and so is what is returned.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    while True:
        micro_batches: list[list[int]] = []
        for index in order:
            rows = [*micro_batches[-1], index] if micro_batches else []
            padded = len(rows) * lengths[rows[0]] if rows else 0
            tokens = sum(lengths[item] for item in rows)
            if rows and padded <= max_tokens and tokens >= (1 - MOST_PADDING) * padded:
                micro_batches[-1] = rows
            else:
                micro_batches.append([index])
        if len(micro_batches) >= min(num_parts, len(lengths)):
            return [sorted(indices) for indices in micro_batches]
        max_tokens //= 2


def plan_layout(
    layout: Layout,
    lengths: Sequence[int],
    max_tokens: int,
    num_parts: int = 1,
    crossover_length: int = 2**15,
    longest_shared: int = 0,
) -> list[list[int]]:
    """Cut a global batch into micro batches for a layout; see `plan_micro_batches`.

    Records longer than `longest_shared`, if that is not 0, are micro batches of their own.
    """
    alone = [index for index, length in enumerate(lengths) if 0 < longest_shared < length]
    shared = [index for index, length in enumerate(lengths) if not 0 < longest_shared < length]
    rest = [lengths[index] for index in shared]
    if layout is Layout.ROWS:
        parts = plan_rows(rest, max_tokens, num_parts)
    else:
        size = 1 if layout is Layout.SINGLE else max_tokens
        parts = plan_micro_batches(rest, size, num_parts, crossover_length)
    return [*([shared[place] for place in part] for part in parts), *([index] for index in alone)]


def record_cost(length: int, crossover_length: int) -> float:
    """Return what a record costs, in tokens: matrices grow with the length, attention with the length's square."""
    return length * (1 + length / crossover_length)


def assign_to_ranks(costs: Sequence[float], num_ranks: int) -> list[list[int]]:
    """Return the micro batches of each rank: the costliest first, each to the least loaded rank with a place left.

    Every rank has as many places: no rank takes more than one micro batch more than it would in equal shares.
    """
    ranks: list[list[int]] = [[] for _ in range(num_ranks)]
    load = [0.0] * num_ranks
    places = -(-len(costs) // num_ranks)
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        rank = min((number for number in range(num_ranks) if len(ranks[number]) < places), key=lambda n: (load[n], n))
        ranks[rank].append(index)
        load[rank] += costs[index]
    return [sorted(numbers) for numbers in ranks]


def check_ids(records: Sequence[TokenRecord], num_rows: int) -> None:
    """Check that every token has a row of the embedding; a DataError names the record of one that has not."""
    for record in records:
        if (largest := int(record.input_ids.max(initial=0))) >= num_rows:
            raise DataError(
                f"record {record.record_id}: token {largest} has no row of the embedding, which has {num_rows:,}; the "
                "tokenizer has more tokens than the model: enlarge the embedding (resize_token_embeddings) and save "
                "the model, or take the records out"
            )


def pack(records: Sequence[TokenRecord], indices: Sequence[int] | None = None) -> PackedBatch:
    """Pack records, at least one, into one row; `indices` are their places in the global batch, 0, 1, ... if None."""
    lengths = [len(record.input_ids) for record in records]
    # (tokens,) places within each record, and whether the token is one to learn: nothing predicts a record's first.
    positions = np.concatenate([np.arange(length) for length in lengths])
    mask = np.concatenate([record.loss_mask for record in records]).astype(bool) & (positions > 0)
    # (loss tokens,) number of the record here, which `places` maps to its place in the global batch.
    row = np.repeat(np.arange(len(records)), lengths)[mask]
    places = np.arange(len(records)) if indices is None else np.array(indices)
    return PackedBatch(
        input_ids=torch.from_numpy(np.concatenate([record.input_ids for record in records]).astype(np.int64)),
        position_ids=torch.from_numpy(positions),
        targets=torch.from_numpy(np.flatnonzero(mask)),
        weights=torch.from_numpy(np.array([record.weight for record in records], np.float32)[row]),
        records=torch.from_numpy(places[row]),
        cu_seqlens=torch.from_numpy(np.cumsum([0, *lengths], dtype=np.int32)),
        max_seqlen=max(lengths),
    )
