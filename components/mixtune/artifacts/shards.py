"""Shards on disk: tokenized records in training order, read by step in O(1).

A shards artifact is a manifest (`ShardsManifest`) beside `shard-<number>.arrow`: Arrow IPC files in which record batch
`i` holds the records of one global batch, so that step `s` is found by arithmetic alone. `docs/shards.md` shows how to
read them with pyarrow alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.pools import MixedPools
from mixtune.artifacts.typed_json import Manifest, read_artifact
from mixtune.errors import DataError
from mixtune.settings.chat import ChatSettings

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
class Drops:
    """Counts of a pool's records that were dropped or cut."""

    num_read: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    """Records by the reason for which they never enter a batch."""
    num_split: int = 0
    """Records that became several examples, each of which is drawn like a record,"""
    num_added: int = 0
    """and how many examples more there are than records."""
    lost: dict[str, int] = field(default_factory=dict)
    """Records that are learned without a part of theirs, by part; `turns`: some of their turns were dropped."""
    num_truncated: int = 0
    num_compared: int = 0
    """Records for which fastokens and the model's own tokenizer gave the same ids."""

    @property
    def num_dropped(self) -> int:
        """Records that never enter a batch."""
        return sum(self.dropped.values())


@dataclass(frozen=True, kw_only=True)
class PoolReceipt(Drops):
    """One pool's part of the mix: planned, and as the shards hold it."""

    name: str
    planned_share: float = 0.0
    """Of all global batches, 0 to 1."""
    num_records: int = 0
    """Drawn, repeats included."""
    num_tokens: int = 0
    num_loss_tokens: int = 0
    """Tokens to learn."""
    share_of_records: float = 0.0
    share_of_tokens: float = 0.0
    share_of_loss_tokens: float = 0.0
    pool_records: int = 0
    """Records that could be drawn."""
    unique_records: int = 0
    repeats: int = 0
    epochs: float = 0.0
    """Passes over the pool."""
    per_batch: tuple[int, int] = (0, 0)
    """Fewest and most records in a global batch."""
    worst_deviation: float = 0.0
    """Largest distance from the target after any step, in the mix's unit."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Records by their length in tokens, between powers of two: `< 64`."""


@dataclass(frozen=True, kw_only=True)
class StageReceipt:
    """Steps with the same shares, redistributed ones included."""

    first_step: int
    shares: tuple[float, ...]
    """By pool, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class WindowReceipt:
    """Shares of the pools within some steps, 0 to 1, by pool."""

    first_step: int
    num_steps: int
    records: tuple[float, ...]
    tokens: tuple[float, ...]
    loss_tokens: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class MixReceipt:
    """What was asked for and what the shards hold, in records, tokens and loss tokens."""

    num_steps: int = 0
    global_batch_size: int = 0
    mix_ratio: float = 0.0
    """Customer's planned share of all global batches, 0 to 1."""
    seed: int = 0
    unit: str = "records"
    """What shares count: `records`, `tokens` or `loss_tokens`."""
    bound: float = 0.0
    """No pool is further from its target, in the unit; over stages that give each pool a share, twice that of one."""
    stages: tuple[StageReceipt, ...] = ()
    num_tokens: int = 0
    num_loss_tokens: int = 0
    max_batch_tokens: int = 0
    """Of the largest global batch; 0: not known."""
    pools: tuple[PoolReceipt, ...] = ()
    """The customer's first."""
    windows: tuple[WindowReceipt, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences on what a reader must know of this mix."""

    def metrics(self) -> dict[str, float]:
        """Return the numbers of every pool as `mix/<pool>/<field>`."""
        return {
            f"mix/{pool.name}/{name}": float(value)
            for pool in self.pools
            for name, value in vars(pool).items()
            if isinstance(value, int | float)
        }


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """One file of consecutive steps."""

    file: str
    first_step: int
    num_steps: int


@dataclass(frozen=True, kw_only=True)
class ShardsManifest(Manifest):
    """A shards artifact."""

    KIND: ClassVar[str] = "shards"
    VERSION: ClassVar[int] = 1

    num_steps: int
    """Record batches in all: optimizer steps."""
    global_batch_size: int = 0
    """Records of a batch."""
    pools: tuple[str, ...]
    """Names, by index; the customer's first."""
    shards: tuple[ShardFile, ...]
    """In order."""
    num_sub_batches: int = 1
    """Equal parts of a global batch: the customer's share is exact in each if it can be, and nearly so if not."""
    loss_tokens: tuple[int, ...] = ()
    """Tokens to learn in every step: the divisor of its loss, where all weights are 1."""
    max_record_tokens: int = 0
    """Length of the longest record; 0: not known."""
    tokenizer_digest: str = ""
    tokenizer_backend: str = ""
    """`fastokens` or `tokenizers`."""
    chat_template: str = ""
    """The template in place of the model's own; empty: the model's own."""
    chat: ChatSettings = field(default_factory=ChatSettings)
    """How conversations are rendered."""
    train_on: tuple[str, ...] = ()
    """Roles whose turns are learned."""
    seed: int = 0
    mix_ratio: float = 0.0
    """Customer share of every global batch, 0 to 1; of the last stage, where there are several."""
    unit: str = "records"
    plan_digest: str = ""
    """Of the pool of every slot."""
    inputs: dict[str, MixedPools] = field(default_factory=dict)
    """The pools that they were made of: `customer`, `general`."""
    receipt: MixReceipt = MixReceipt()

    def article_tags(self) -> dict[str, object]:
        """Return those of the article's tags that shards decide."""
        return {
            "mix_ratio": self.mix_ratio,
            "seed": self.seed,
            "steps": self.num_steps,
            "tokenizer_version": self.tokenizer_digest,
            "dataset_version": self.digest,
        }


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
    manifest: ShardsManifest

    @property
    def num_steps(self) -> int:
        """Number of optimizer steps that the shards hold."""
        return self.manifest.num_steps

    @property
    def pools(self) -> list[str]:
        """Names of the pools, by index."""
        return list(self.manifest.pools)

    @property
    def digest(self) -> str:
        """Digest of the content, whatever folder it lies in: the run's `dataset_version`."""
        return self.manifest.digest

    @cached_property
    def _readers(self) -> list[tuple[ShardFile, pa.ipc.RecordBatchFileReader]]:
        return [
            (shard, pa.ipc.open_file(pa.memory_map(str(self.folder / shard.file)))) for shard in self.manifest.shards
        ]

    def batch(self, step: int) -> pa.RecordBatch:
        """Return the global batch of a step, 0-based, as an Arrow record batch.

        Raises:
            DataError: The shards hold no such step.
        """
        for shard, reader in self._readers:
            if shard.first_step <= step < shard.first_step + shard.num_steps:
                return reader.get_batch(step - shard.first_step)
        raise DataError(f"the shards hold steps 0 to {self.num_steps - 1}; step {step} was asked for")

    def lengths(self, step: int) -> list[int]:
        """Return the tokens of each record of a step's global batch, in their order."""
        lengths: list[int] = np.diff(self.batch(step).column("input_ids").offsets.to_numpy()).tolist()
        return lengths

    def step(self, step: int) -> list[TokenRecord]:
        """Return the records of the global batch of a step, in their order."""
        return list(token_records(self.batch(step)))

    def holdout(self) -> list[TokenRecord]:
        """Return the held-out general records; none where none were held out."""
        path = self.folder / HOLDOUT_FILE
        if not path.is_file():
            return []
        with pa.memory_map(str(path)) as source:
            return list(token_records(pa.ipc.open_file(source).get_batch(0)))


def token_records(batch: pa.RecordBatch) -> Iterator[TokenRecord]:
    """Yield the rows of a record batch as arrays, without copying the tokens."""
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
    manifest = read_artifact(ShardsManifest, path)
    local = storage.fetch(manifest.data_uri, folder)
    manifest.verify(str(local))
    return Shards(local, manifest)
