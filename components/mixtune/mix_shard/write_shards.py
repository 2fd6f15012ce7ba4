"""Shards in training order, gathered from tokenized pools by the plan."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.shards import SCHEMA, ShardFile
from mixtune.mix_shard.schedule import Plan, Slots
from mixtune.mix_shard.store import MASK_BYTES, ROW, Store
from mixtune.processes import start_processes

Job = tuple[int, int, int]
"""Number of a shard, its first step, its number of steps."""

SHARD_BYTES = 128 * 2**20
"""About the size of a shard."""
COMPRESSION = 3
"""About how much smaller zstd makes a shard."""
RECORD_BYTES = 48
"""About what a record takes in a shard beside its tokens: the other columns, and its part of a batch's description."""
STEPS_AT_ONCE = 64
PARALLEL_BYTES = 64 * 2**20
"""Bytes of shards below which one process writes them all."""


_target: "Target"
_stores: list[Store]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is written, from where, to where; it is sent to other processes."""

    plan: Plan
    scratch: Path
    """Folder of the tokenized pools, named by number."""
    data_uri: str
    shard_bytes: int = SHARD_BYTES

    def open_stores(self) -> list[Store]:
        """Open the tokenized pools."""
        return [Store(self.scratch, str(number)) for number in range(len(self.plan.pools))]


def steps_per_shard(plan: Plan, stores: Sequence[Store], shard_bytes: int) -> int:
    """Return the steps of one shard, by the mean length of the pools' records; the same for any number of writers."""
    return max(1, int(shard_bytes * plan.num_steps / max(1, _plan_bytes(plan, stores))))


def write_shards(
    target: Target, stores: Sequence[Store], num_writers: int = 0
) -> tuple[list[ShardFile], list[storage.FileEntry]]:
    """Write all shards, each of which appears when it is whole; leftovers of an attempt before are deleted first.

    The bytes are the same for any number of processes; 0: one per CPU if there is much to write.
    """
    plan = target.plan
    raw_bytes = target.shard_bytes * (COMPRESSION if storage.is_s3(target.data_uri) else 1)
    width = steps_per_shard(plan, stores, raw_bytes)
    firsts = range(0, plan.num_steps, width)
    jobs = [(number, first, min(width, plan.num_steps - first)) for number, first in enumerate(firsts)]
    if not num_writers:
        num_writers = (os.cpu_count() or 1) if _plan_bytes(plan, stores) > PARALLEL_BYTES else 1
    storage.delete(target.data_uri)
    shards, entries = [], []
    for (number, first, count), entry in zip(jobs, _run_jobs(target, stores, jobs, num_writers), strict=True):
        entries.append(entry)
        shards.append(ShardFile(file=entry.path, first_step=first, num_steps=count))
        print(f"shard {number}: steps {first} to {first + count - 1}, {entry.num_bytes:,} bytes", flush=True)
    return shards, entries


def _plan_bytes(plan: Plan, stores: Sequence[Store]) -> float:
    draws = plan.draws_before(plan.num_slots).tolist()
    means = [float(store.rows["length"].mean()) if len(store) else 0.0 for store in stores]
    return float(sum(count * (RECORD_BYTES + MASK_BYTES * mean) for count, mean in zip(draws, means, strict=True)))


def _run_jobs(
    target: Target, stores: Sequence[Store], jobs: list[Job], num_writers: int
) -> Iterator[storage.FileEntry]:
    if num_writers == 1 or len(jobs) == 1:
        for job in jobs:
            yield write_shard(target, stores, *job)
        return
    with start_processes(min(num_writers, len(jobs)), _start_writer, target) as pool:
        yield from pool.map(_write_in_process, jobs)


def _start_writer(target: Target) -> None:
    global _target, _stores
    _target, _stores = target, target.open_stores()


def _write_in_process(job: Job) -> storage.FileEntry:
    return write_shard(_target, _stores, *job)


def write_shard(
    target: Target, stores: Sequence[Store], number: int, first_step: int, num_steps: int
) -> storage.FileEntry:
    """Write one shard: a record batch per step. Compressed for S3, plain for a disk that is mapped."""
    plan, uri = target.plan, storage.join(target.data_uri, f"shard-{number:05}.arrow")
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
    """Return the records of some slots as an Arrow record batch."""
    pools, records = slots.pools[span], slots.records[span]
    rows = np.empty(len(pools), ROW)
    for index in np.unique(pools):
        mine = np.flatnonzero(pools == index)
        rows[mine] = stores[index].rows[records[mine]]
    # bounds: (records + 1,) where each record's tokens begin in ids and mask; every store reads into its own places
    bounds = np.concatenate([[0], np.cumsum(rows["length"])])
    ids, mask = np.empty(bounds[-1], np.int32), np.empty(bounds[-1], np.uint8)
    id_bytes, mask_bytes = ids.data.cast("B"), mask.data
    for pool, place, (start, end) in zip(
        pools.tolist(), rows["offset"].tolist(), pairwise(bounds.tolist()), strict=True
    ):
        stores[pool].read_into(place, id_bytes[4 * start : 4 * end], mask_bytes[start:end])
    offsets = pa.array(bounds.astype(np.int32))
    columns = [
        pa.array(pools),
        pa.Array.from_buffers(pa.binary(16), len(rows), [None, pa.py_buffer(rows["record_id"].tobytes())]),
        pa.ListArray.from_arrays(offsets, pa.array(ids)),
        pa.ListArray.from_arrays(offsets, pa.array(mask)),
        pa.array(rows["weight"]),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
