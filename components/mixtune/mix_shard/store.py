"""Tokenized pools on scratch disk: any record is one read away, memory holds none of them."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixtune.artifacts.shards import Drops
from mixtune.chat.refused_share import NO_WEIGHT, TOO_LONG
from mixtune.errors import DataError
from mixtune.mix_shard.lengths import shorten
from mixtune.records import where

if TYPE_CHECKING:
    from mixtune.chat.tokenizer import Tokenized

ROW = np.dtype([("offset", "<i8"), ("length", "<i4"), ("loss_tokens", "<i4"), ("weight", "<f4"), ("record_id", "V16")])
MASK_BYTES = 5
"""Bytes of a token on disk: its id (int32), then, after all ids of the record, its mask (uint8)."""


class Store:
    """The tokenized records of a pool."""

    def __init__(self, folder: Path, name: str) -> None:
        rows = folder / f"{name}.rows"
        self.rows: np.ndarray = np.memmap(rows, ROW, "r") if rows.stat().st_size else np.empty(0, ROW)
        self._tokens = open(folder / f"{name}.tokens", "rb")  # noqa: SIM115 - held open while batches are gathered

    def close(self) -> None:
        """Close the file."""
        self._tokens.close()

    def __len__(self) -> int:
        return len(self.rows)

    def read_into(self, offset: int, ids: memoryview, mask: memoryview) -> None:
        """Read the tokens and mask at a row's offset into buffers of their length, in bytes."""
        os.preadv(self._tokens.fileno(), [ids, mask], offset)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Consecutive records of a pool, tokenized."""

    rows: np.ndarray
    """ROW, (records kept,); offsets count from the part's beginning."""
    tokens: bytes
    """Ids and masks of the records kept, one behind the other."""
    drops: Drops


def make_part(examples: Iterable["Tokenized"], max_length: int, too_long: str = "drop") -> Part:
    """Return the part that tokenized records become; those that cannot be learned from are counted."""
    builder = _PartBuilder(max_length, too_long)
    for example in examples:
        builder.add(example)
    return builder.build()


class _PartBuilder:
    """Gathers the examples of a part, and counts what becomes of its records."""

    def __init__(self, max_length: int, too_long: str) -> None:
        self._max_length, self._too_long = max_length, too_long
        self._rows, self._tokens, self._offset = list[tuple[object, ...]](), list[bytes](), 0
        self._dropped, self._lost = Counter[str](), Counter[str]()
        self._num_read = self._num_truncated = self._num_split = 0
        self._of_record: list[str] = []  # of the last record's examples, reasons; empty for those that stay

    def add(self, example: "Tokenized") -> None:
        """Add an example, or count why it is left out."""
        if not example.number:
            self._end_record()
            self._num_read += 1
            self._lost.update(example.lost)
        ids, mask, problem = self._fit(example)
        self._of_record.append(problem)
        if problem:
            return
        mask_bytes, weight = mask.tobytes(), float(example.record.get("weight", 1.0))
        self._rows.append((self._offset, len(ids), mask_bytes.count(1, 1), weight, bytes.fromhex(example.record["id"])))
        self._tokens += [ids.tobytes(), mask_bytes]
        self._offset += MASK_BYTES * len(ids)

    def build(self) -> Part:
        """Return the part."""
        self._end_record()
        drops = Drops(
            num_read=self._num_read,
            dropped=dict(self._dropped),
            num_split=self._num_split,
            num_added=len(self._rows) - self._num_read + self._dropped.total(),
            lost=dict(self._lost),
            num_truncated=self._num_truncated,
        )
        return Part(rows=np.array(self._rows, ROW), tokens=b"".join(self._tokens), drops=drops)

    def _fit(self, example: "Tokenized") -> tuple[np.ndarray, np.ndarray, str]:
        """Return an example's tokens and mask, cut to the length where they may be, or why it is left out."""
        ids, mask, problem = example.input_ids, example.loss_mask, example.problem
        if not problem and float(example.record.get("weight", 1.0)) == 0:
            problem = NO_WEIGHT
        if problem or len(ids) <= self._max_length:
            return ids, mask, problem
        if self._too_long == "error":
            count = f"{len(ids):,} tokens, max_length is {self._max_length:,}"
            raise DataError(f"{where(example.record)}: {count}; raise it, or let too_long be drop or truncate")
        shortened = shorten(ids, mask, self._max_length) if self._too_long == "truncate" else None
        if not shortened:
            return ids, mask, TOO_LONG
        self._num_truncated += 1
        return *shortened, ""

    def _end_record(self) -> None:
        """Count what became of a record whose examples are all there."""
        reasons = [reason for reason in self._of_record if reason]
        if reasons and len(reasons) == len(self._of_record):
            self._dropped[reasons[0]] += 1
        elif reasons:
            self._lost["turns"] += 1
        self._num_split += len(self._of_record) - len(reasons) > 1
        self._of_record = []


def write_store(folder: Path, name: str, parts: Iterable[Part]) -> Drops:
    """Write a pool's parts, in their order, to `<name>.rows` and `<name>.tokens`; return what was dropped from all."""
    drops, offset = Drops(), 0
    with open(folder / f"{name}.rows", "wb") as rows, open(folder / f"{name}.tokens", "wb") as tokens:
        for part in parts:
            part.rows["offset"] += offset
            part.rows.tofile(rows)
            tokens.write(part.tokens)
            offset += len(part.tokens)
            drops = _sum(drops, part.drops)
    return drops


def _sum(first: Drops, second: Drops) -> Drops:
    """Return the counts of both; reasons and parts in alphabetical order."""
    others, totals = vars(second), dict(vars(first))
    for name, value in totals.items():
        other = others[name]
        totals[name] = (
            value + other if isinstance(value, int) else dict(sorted((Counter(value) + Counter(other)).items()))
        )
    return Drops(**totals)
