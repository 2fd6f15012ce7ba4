"""Pools on disk: named sets of sanitized records, in splits.

A pools artifact is a manifest (`kind: pools`) beside a folder of `<pool>/<split>-<part>.jsonl.zst`, one record a
line. `pools` in the manifest lists, per pool, its category and its splits:

    {"name": "reasoning", "splits": {"train": {"num_records": 900, "files": ["reasoning/train-00000.jsonl.zst"]},
                                     "holdout": {"num_records": 100, "files": [...]}}}

Splits: `train`, `validation`, `test` (the customer's held-out set), `holdout` (general records kept back, on which
forgetting is measured).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from mixtune import storage
from mixtune.errors import DataError
from mixtune.records import Record

SPLITS = ("train", "validation", "test", "holdout")
RECORDS_PER_FILE = 500_000
_TOGETHER = 2**16
"""Bytes that are compressed at once."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A part of a pool."""

    num_records: int
    files: tuple[str, ...]
    """Paths relative to the artifact's data folder, in order."""


@dataclass(frozen=True, kw_only=True)
class Pool:
    """A named set of records."""

    name: str
    splits: dict[str, Split] = field(default_factory=dict)

    def num_records(self, split: str) -> int:
        """Number of records in a split; 0 where there is none."""
        return self.splits[split].num_records if split in self.splits else 0


@dataclass(frozen=True, kw_only=True)
class Pools:
    """A pools artifact, opened."""

    data_uri: str
    pools: tuple[Pool, ...]
    manifest: dict[str, Any]

    def __getitem__(self, name: str) -> Pool:
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise DataError(f"no pool {name!r}; there are {', '.join(pool.name for pool in self.pools)}")

    def records(self, name: str, split: str) -> Iterator[Record]:
        """The records of a pool's split, in their order."""
        for path in self[name].splits[split].files if split in self[name].splits else ():
            yield from read_records(storage.join(self.data_uri, path))

    @property
    def digest(self) -> str:
        """What these pools are, whatever folder they lie in."""
        return storage.manifest_digest(self.manifest)


def read_pools(path: str) -> Pools:
    """Open a pools artifact by its manifest, and check that its files are whole.

    Raises:
        DataError: No manifest, or files that are missing, cut or changed.
    """
    manifest = storage.read_manifest(path, "pools")
    storage.verify(manifest)
    pools = tuple(
        Pool(
            name=item["name"],
            splits={
                split: Split(num_records=int(part["num_records"]), files=tuple(part["files"]))
                for split, part in item["splits"].items()
            },
        )
        for item in manifest["pools"]
    )
    return Pools(data_uri=manifest["data_uri"], pools=pools, manifest=manifest)


def read_records(uri: str) -> Iterator[Record]:
    """The records of one file of a pool."""
    return map(orjson.loads, read_lines(uri))


def read_lines(uri: str) -> Iterator[bytes]:
    """The lines of one file of a pool, each with one record."""
    with storage.open_read(uri) as stream, pa.CompressedInputStream(stream, "zstd") as lines:
        rest = b""
        while block := lines.read(storage.BLOCK_BYTES):
            *whole, rest = (rest + block).split(b"\n")
            yield from whole


def write_records(uri: str, records: Iterable[Record]) -> storage.FileEntry:
    """Write records to one file of a pool; the same records give the same bytes."""
    with storage.open_write(uri) as stream, pa.CompressedOutputStream(stream, "zstd") as lines:
        block = bytearray()
        for record in records:
            block += record_line(record)
            if len(block) >= _TOGETHER:
                lines.write(block)
                block = bytearray()
        lines.write(block)
    return stream.entry(uri.rsplit("/", 1)[-1])


def record_line(record: Record) -> bytes:
    """One record as a line of JSON, keys sorted."""
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)


def pool_summary(pools: Iterable[Pool]) -> list[dict[str, Any]]:
    """Pools as the manifest's `pools` list."""
    return [
        {
            "name": pool.name,
            "splits": {
                split: {"num_records": part.num_records, "files": list(part.files)}
                for split, part in sorted(pool.splits.items())
            },
        }
        for pool in pools
    ]
