"""Tokenized pools on scratch disk: any record is one read away, memory holds none of them."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mixtune.errors import DataError
from mixtune.mix_shard.lengths import shorten
from mixtune.records import where

if TYPE_CHECKING:
    from mixtune.mix_shard.tokenizing import Tokenized

ROW = np.dtype([("offset", "<i8"), ("length", "<i4"), ("loss_tokens", "<i4"), ("weight", "<f4"), ("record_id", "V16")])
MASK_BYTES = 5
"""Bytes of a token on disk: its id (int32), then, after all ids of the record, its mask (uint8)."""


@dataclass(frozen=True, kw_only=True)
class Drops:
    """What became of a pool's records."""

    num_read: int
    dropped: dict[str, int]
    """Number of records by the reason for which they never enter a batch."""
    num_truncated: int = 0


class Store:
    """The tokenized records of a pool."""

    def __init__(self, folder: Path, name: str) -> None:
        self.rows: np.ndarray = _map_rows(folder / f"{name}.rows")
        self._tokens = open(folder / f"{name}.tokens", "rb")  # noqa: SIM115 - held open while batches are gathered

    def close(self) -> None:
        """Let go of the file."""
        self._tokens.close()

    def __len__(self) -> int:
        return len(self.rows)

    def read_into(self, index: int, ids: np.ndarray, mask: np.ndarray) -> None:
        """Read one record's tokens and mask into arrays of its length."""
        os.preadv(self._tokens.fileno(), [ids.view(np.uint8).data, mask.data], int(self.rows[index]["offset"]))


def write_store(
    folder: Path, name: str, records: Iterable["Tokenized"], max_length: int, too_long: str = "drop"
) -> Drops:
    """Write a pool's tokenized records; those that have nothing to learn are counted, not written.

    Args:
        folder: Where to.
        name: Of the files.
        records: Tokenized.
        max_length: Longest record in tokens.
        too_long: What becomes of longer ones: "drop", "truncate" (an answer stays whole), or "error".

    Raises:
        DataError: A record is longer, and `too_long` is "error".
    """
    dropped: Counter[str] = Counter()
    num_read = num_truncated = offset = 0
    with open(folder / f"{name}.rows", "wb") as rows, open(folder / f"{name}.tokens", "wb") as tokens:
        for item in records:
            num_read += 1
            ids, mask, problem = item.input_ids, item.loss_mask, item.problem
            if not problem and len(ids) > max_length:
                if too_long == "error":
                    raise DataError(
                        f"{where(item.record)}: {len(ids):,} tokens, max_length is {max_length:,}; raise it, or let "
                        "too_long be drop or truncate"
                    )
                cut = shorten(ids, mask, max_length) if too_long == "truncate" else None
                if cut:
                    ids, mask = cut
                    num_truncated += 1
                else:
                    problem = "longer than max_length"
            if problem:
                dropped[problem] += 1
                continue
            length = len(ids)
            row = (offset, length, int(mask[1:].sum()), 1.0, bytes.fromhex(item.record["id"]))
            rows.write(np.array(row, ROW).tobytes())
            tokens.write(ids.tobytes() + mask.tobytes())
            offset += MASK_BYTES * length
    return Drops(num_read=num_read, dropped=dict(sorted(dropped.items())), num_truncated=num_truncated)


def _map_rows(path: Path) -> np.ndarray:
    return np.memmap(path, ROW, "r") if path.stat().st_size else np.empty(0, ROW)
