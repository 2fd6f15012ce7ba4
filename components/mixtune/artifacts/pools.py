"""Pools on disk: named sets of sanitized records, in splits, and what sanitize did to them.

A pools artifact is a manifest (`PoolsManifest`) beside a folder of `<pool>/<split>-<part>.jsonl.zst`, one record a
line. Splits: `train`, `validation`, `test` (the customer's held-out set), `holdout` (general records kept back, on
which forgetting is measured).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

import orjson
import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.provenance import Terms
from mixtune.artifacts.typed_json import Manifest, read_artifact
from mixtune.errors import DataError
from mixtune.records import Record, dump_json, read_record
from mixtune.settings.sanitize import SanitizeSettings

SPLITS = ("train", "validation", "test", "holdout")
_BLOCK_BYTES = 2**16
"""Bytes that are compressed at once."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source of `sanitize`: which files became records of which pool."""

    name: str
    """Of the pool."""
    uri: str
    """With the digest of the files, `uri#digest`, where the run fingerprinted them."""
    split: str = "train"
    """`train` or `test`."""
    provenance: Terms | None = None
    """None where the files were not imported by `import_pool`."""


@dataclass(frozen=True, kw_only=True)
class RowCounts:
    """Rows of one pool, as sanitize counted them."""

    read: int = 0
    kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """By reason."""
    changed: dict[str, int] = field(default_factory=dict)
    """By rule."""
    control_tokens: dict[str, int] = field(default_factory=dict)
    """Occurrences of the base model's control tokens in texts."""
    personal_data: dict[str, int] = field(default_factory=dict)
    """Findings by kind."""
    consent: dict[str, int] = field(default_factory=dict)
    """Records by verdict: granted, withheld, missing."""
    schemas: tuple[str, ...] = ()
    unusable: dict[str, int] = field(default_factory=dict)
    """Rows dropped as `unreadable`, by why."""
    unread_fields: dict[str, int] = field(default_factory=dict)
    """Rows by the name of a field that is there, not empty, and not read."""


@dataclass(frozen=True, kw_only=True)
class NearCopy:
    """A record that was dropped as a near-duplicate."""

    at: str
    """File and line."""
    similarity: float
    """Jaccard similarity to the record that was kept, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A record, and those that were dropped as its near-duplicates."""

    kept: str
    dropped: tuple[NearCopy, ...]


@dataclass(frozen=True, kw_only=True)
class PoolDetails:
    """What a report shows of one pool beside its counts."""

    examples: dict[str, tuple[tuple[str, str, str], ...]] = field(default_factory=dict)
    """By rule: place, text before and text after, personal data hidden."""
    near_duplicates: tuple[Cluster, ...] = ()
    """The first of them."""
    num_conflicts: int = 0
    """Pairs of nearly equal questions with different answers."""
    conflicts: tuple[tuple[str, str], ...] = ()
    """Places of the first of them."""
    label_words_in_question: int = 0
    languages: dict[str, int] = field(default_factory=dict)
    """Guessed in a sample."""
    tokens: int = 0
    proved: int = 0
    """Records whose only control ids are those of the chat template."""
    lost: dict[str, int] = field(default_factory=dict)
    """Records that the chat template leaves a part of out, as the settings allow, by part."""
    copies_of_refused: int = 0
    control_ids: int = 0


@dataclass(frozen=True, kw_only=True)
class PoolInputs:
    """Where pools come from and what sanitize did, as a comparison and the audit record keep it."""

    inputs: tuple[Source, ...] = ()
    counts: dict[str, RowCounts] = field(default_factory=dict)
    """By pool, as are all dictionaries of the pools; a pool that sanitize did not make has none."""
    rules: SanitizeSettings = field(default_factory=SanitizeSettings)

    @classmethod
    def of(cls, pools: "PoolInputs") -> Self:
        """Return the part of a larger description that this class holds."""
        return cls(**{item.name: getattr(pools, item.name) for item in fields(cls)})  # a digest is no field there

    @property
    def terms(self) -> dict[str, Terms]:
        """Source and licence of each imported pool, by pool."""
        return {source.name: source.provenance for source in self.inputs if source.provenance}


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
        """Return the number of records in a split; 0 where there is none."""
        return self.splits[split].num_records if split in self.splits else 0


@dataclass(frozen=True, kw_only=True)
class PoolsContent(PoolInputs):
    """All that a pools manifest says but its files; the report on sanitize is made of it."""

    pools: tuple[Pool, ...] = ()
    labels: dict[str, dict[str, dict[str, int]]] = field(default_factory=dict)
    """By pool: records by split (or `read`: before any was dropped) and label."""
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)
    """By pool: records by number of characters."""
    details: dict[str, PoolDetails] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MixedPools(PoolsContent):
    """The pools that a mix was made of, as the shards' manifest keeps them."""

    digest: str = ""
    """Of the pools' manifest."""


@dataclass(frozen=True, kw_only=True)
class PoolsManifest(PoolsContent, Manifest):
    """A pools artifact."""

    KIND: ClassVar[str] = "pools"
    VERSION: ClassVar[int] = 1

    def __getitem__(self, name: str) -> Pool:
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise DataError(f"no pool {name!r}; there are {', '.join(pool.name for pool in self.pools)}")

    def records(self, name: str, split: str) -> Iterator[Record]:
        """Yield the records of a pool's split, in their order."""
        for path in self[name].splits[split].files if split in self[name].splits else ():
            yield from read_records(storage.join(self.data_uri, path))


def read_pools(path: str) -> PoolsManifest:
    """Open a pools artifact by its manifest, and check that its files are whole.

    Raises:
        DataError: No manifest, or files that are missing, cut or changed.
    """
    if not storage.exists(path):
        raise DataError(
            f"{path}: no manifest; the step that makes these pools has not finished, or its cached result has expired: "
            "then submit the run with --no-cache"
        )
    manifest = read_artifact(PoolsManifest, path)
    manifest.verify()
    return manifest


def read_records(uri: str) -> Iterator[Record]:
    """Yield the records of one file of a pool."""
    return map(read_record, read_lines(uri))


def read_lines(uri: str) -> Iterator[bytes]:
    """Yield the lines of one file of a pool, each with one record."""
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
            block += dump_json(record, orjson.OPT_APPEND_NEWLINE)
            if len(block) >= _BLOCK_BYTES:
                lines.write(block)
                block = bytearray()
        lines.write(block)
    return stream.entry(uri.rsplit("/", 1)[-1])
