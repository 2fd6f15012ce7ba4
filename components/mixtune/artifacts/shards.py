"""Shards on disk: tokenized records in training order, read by step in O(1).

A shards artifact is a manifest (`kind: shards`) beside `shard-<number>.arrow`: Arrow IPC files in which record batch
`i` holds the records of one global batch, so that step `s` is found by arithmetic alone. Columns, the manifest's keys,
and how to read them with pyarrow alone are in `docs/shards.md`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune import storage
from mixtune.errors import DataError

HOLDOUT_FILE = "holdout.arrow"
SCHEMA = pa.schema(
    [
        ("pool", pa.uint16()),
        ("record_id", pa.binary(16)),
        ("input_ids", pa.list_(pa.int32())),
        ("loss_mask", pa.list_(pa.uint8())),
        ("weight", pa.float32()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """One tokenized record of a global batch."""

    pool: int
    """Index into the manifest's pools."""
    record_id: str
    input_ids: np.ndarray
    """int32, (length,)"""
    loss_mask: np.ndarray
    """uint8, (length,): 1 where the token is one to learn; the first is always 0, nothing predicts it."""
    weight: float

    @property
    def num_loss_tokens(self) -> int:
        """Number of tokens whose prediction carries loss."""
        return int(self.loss_mask[1:].sum())


@dataclass(frozen=True)
class Shards:
    """A shards artifact, opened on local disk."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps that the shards hold."""
        return int(self.manifest["num_steps"])

    @property
    def pools(self) -> list[str]:
        """Names of the pools, by index."""
        return list(self.manifest["pools"])

    @property
    def digest(self) -> str:
        """What these shards are, whatever folder they lie in: the run's `dataset_version`."""
        return storage.manifest_digest(self.manifest)

    @cached_property
    def _readers(self) -> list[tuple[int, int, Any]]:
        opened = []
        for shard in self.manifest["shards"]:
            reader = pa.ipc.open_file(pa.memory_map(str(self.folder / shard["file"])))
            opened.append((int(shard["first_step"]), int(shard["num_steps"]), reader))
        return opened

    def batch(self, step: int) -> pa.RecordBatch:
        """The global batch of a step, 0-based, as an Arrow record batch.

        Raises:
            DataError: The shards hold no such step.
        """
        for first, count, reader in self._readers:
            if first <= step < first + count:
                return reader.get_batch(step - first)
        raise DataError(f"the shards hold steps 0 to {self.num_steps - 1}; step {step} was asked for")

    def step(self, step: int) -> list[TokenRecord]:
        """The records of the global batch of a step, in their order."""
        return list(token_records(self.batch(step)))

    def holdout(self) -> list[TokenRecord]:
        """The held-out general records; none where none were held out."""
        path = self.folder / HOLDOUT_FILE
        if not path.is_file():
            return []
        with pa.memory_map(str(path)) as source:
            return list(token_records(pa.ipc.open_file(source).get_batch(0)))


def token_records(batch: pa.RecordBatch) -> Iterator[TokenRecord]:
    """The rows of a record batch as arrays, without copying the tokens."""
    ids, mask = batch.column("input_ids"), batch.column("loss_mask")
    bounds = ids.offsets.to_numpy().tolist()
    tokens, flags = ids.values.to_numpy(), mask.values.to_numpy()
    pools, weights = batch.column("pool").to_pylist(), batch.column("weight").to_pylist()
    for row, record_id in enumerate(batch.column("record_id").to_pylist()):
        span = slice(bounds[row], bounds[row + 1])
        yield TokenRecord(
            pool=pools[row],
            record_id=record_id.hex(),
            input_ids=tokens[span],
            loss_mask=flags[span],
            weight=weights[row],
        )


def open_shards(path: str, folder: Path) -> Shards:
    """Open a shards artifact by its manifest; its files are fetched to `folder` if they are not local.

    Raises:
        DataError: No manifest, or files that are missing, cut or changed.
    """
    manifest = storage.read_manifest(path, "shards")
    local = storage.fetch(manifest["data_uri"], folder)
    storage.verify(manifest, str(local))
    return Shards(local, manifest)
