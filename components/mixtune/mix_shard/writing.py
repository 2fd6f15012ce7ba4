"""Shards in training order, gathered from tokenized pools by the plan."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune import storage
from mixtune.mix_shard.plan import Plan, Slots
from mixtune.mix_shard.store import Store
from mixtune.shards import SCHEMA

SHARD_BYTES = 128 * 2**20
"""About the size of a shard, before compression."""
STEPS_AT_ONCE = 64


def steps_per_shard(plan: Plan, stores: Sequence[Store]) -> int:
    """Steps of one shard, by the mean length of the pools' records; the same for any number of writers."""
    mean = sum(
        float(pool.share) * float(store.rows["length"].mean())
        for pool, store in zip(plan.pools, stores, strict=True)
        if pool.share > 0
    )
    return max(1, int(SHARD_BYTES / (5 * mean * plan.global_batch_size)))


def write_shards(
    plan: Plan, stores: Sequence[Store], data: str
) -> tuple[list[storage.FileEntry], list[dict[str, Any]]]:
    """Write all shards; the files, and the manifest's `shards`, come back."""
    width = steps_per_shard(plan, stores)
    entries, listed = [], []
    for number, first in enumerate(range(0, plan.num_steps, width)):
        count = min(width, plan.num_steps - first)
        entries.append(write_shard(plan, stores, storage.join(data, f"shard-{number:05}.arrow"), first, count))
        listed.append({"file": entries[-1].path, "first_step": first, "num_steps": count})
        print(f"shard {number}: steps {first} to {first + count - 1}, {entries[-1].num_bytes:,} bytes", flush=True)
    return entries, listed


def write_shard(plan: Plan, stores: Sequence[Store], uri: str, first_step: int, num_steps: int) -> storage.FileEntry:
    """Write one shard: a record batch per step. Compressed for S3, plain for a disk that is mapped."""
    options = pa.ipc.IpcWriteOptions(compression="zstd" if storage.is_s3(uri) else None)
    width, end = plan.global_batch_size, first_step + num_steps
    with storage.open_write(uri) as stream, pa.ipc.new_file(stream, SCHEMA, options=options) as writer:
        for first in range(first_step, end, STEPS_AT_ONCE):
            count = min(STEPS_AT_ONCE, end - first)
            slots = plan.slots(first, count)
            for step in range(count):
                writer.write_batch(gather(slots, slice(step * width, (step + 1) * width), stores))
    return stream.entry(Path(uri).name)


def gather(slots: Slots, span: slice, stores: Sequence[Store]) -> pa.RecordBatch:
    """The records of some slots as an Arrow record batch."""
    pools, records = slots.pools[span], slots.records[span]
    rows = np.array(
        [stores[pool].rows[record] for pool, record in zip(pools, records, strict=True)], stores[0].rows.dtype
    )
    offsets = np.concatenate([[0], np.cumsum(rows["length"])]).astype(np.int32)
    ids, mask = np.empty(offsets[-1], np.int32), np.empty(offsets[-1], np.uint8)
    for number, (pool, record) in enumerate(zip(pools, records, strict=True)):
        part = slice(offsets[number], offsets[number + 1])
        stores[pool].read_into(int(record), ids[part], mask[part])
    columns = [
        pa.array(pools),
        pa.array([value.tobytes() for value in rows["record_id"]], pa.binary(16)),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids)),
        pa.ListArray.from_arrays(pa.array(offsets), pa.array(mask)),
        pa.array(rows["weight"]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
