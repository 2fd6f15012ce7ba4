"""Tokenized pools on scratch disk: any record is one read away, memory holds none of them."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixtune.errors import DataError
from mixtune.mix_shard.lengths import shorten
from mixtune.records import where

if TYPE_CHECKING:
    from mixtune.chat.tokenizer import Tokenized

ROW = np.dtype([("offset", "<i8"), ("length", "<i4"), ("loss_tokens", "<i4"), ("weight", "<f4"), ("record_id", "V16")])
MASK_BYTES = 5
"""Bytes of a token on disk: its id (int32), then, after all ids of the record, its mask (uint8)."""


@dataclass(frozen=True, kw_only=True)
class Drops:
    """Counts of a pool's records that were dropped or cut."""

    num_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Number of records by the reason for which they never enter a batch."""
    num_truncated: int = 0
    num_compared: int = 0
    """Records for which fastokens and the model's own tokenizer gave the same ids."""

    def __add__(self, other: "Drops") -> "Drops":
        return Drops(
            num_read=self.num_read + other.num_read,
            dropped=dict(sorted((Counter(self.dropped) + Counter(other.dropped)).items())),
            num_truncated=self.num_truncated + other.num_truncated,
            num_compared=self.num_compared + other.num_compared,
        )


class Store:
    """The tokenized records of a pool."""

    def __init__(self, folder: Path, name: str) -> None:
        self.rows: np.ndarray = _map_rows(folder / f"{name}.rows")
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


def make_part(records: Iterable["Tokenized"], max_length: int, too_long: str = "drop") -> Part:
    """Return the part that tokenized records become; those that cannot be learned from are counted.

    Args:
        records: Consecutive ones of a pool.
        max_length: Longest record in tokens.
        too_long: As in `TokenSettings`.

    Raises:
        DataError: A record is longer, and `too_long` is "error".
    """
    dropped: Counter[str] = Counter()
    num_read = num_truncated = offset = 0
    rows, tokens = [], []
    for record, ids, mask, problem in records:
        num_read += 1
        weight = float(record.get("weight", 1.0))
        if not problem and weight == 0:
            problem = "weight 0"
        if not problem and len(ids) > max_length:
            if too_long == "error":
                raise DataError(
                    f"{where(record)}: {len(ids):,} tokens, max_length is {max_length:,}; raise it, or let "
                    "too_long be drop or truncate"
                )
            shortened = shorten(ids, mask, max_length) if too_long == "truncate" else None
            if shortened:
                ids, mask = shortened
                num_truncated += 1
            else:
                problem = "longer than max_length"
        if problem:
            dropped[problem] += 1
            continue
        mask_bytes = mask.tobytes()
        rows.append((offset, len(ids), mask_bytes.count(1, 1), weight, bytes.fromhex(record["id"])))
        tokens += [ids.tobytes(), mask_bytes]
        offset += MASK_BYTES * len(ids)
    drops = Drops(num_read=num_read, dropped=dict(dropped), num_truncated=num_truncated)
    return Part(rows=np.array(rows, ROW), tokens=b"".join(tokens), drops=drops)


def write_store(folder: Path, name: str, parts: Iterable[Part]) -> Drops:
    """Write a pool's parts, in their order, to `<name>.rows` and `<name>.tokens`; return what was dropped from all."""
    drops, offset = Drops(), 0
    with open(folder / f"{name}.rows", "wb") as rows, open(folder / f"{name}.tokens", "wb") as tokens:
        for part in parts:
            part.rows["offset"] += offset
            part.rows.tofile(rows)
            tokens.write(part.tokens)
            offset += len(part.tokens)
            drops += part.drops
    return drops


def _map_rows(path: Path) -> np.ndarray:
    return np.memmap(path, ROW, "r") if path.stat().st_size else np.empty(0, ROW)
