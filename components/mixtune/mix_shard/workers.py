"""Pools to tokenized stores, in one process or several: the bytes are the same for any number."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.pools import PoolsManifest, read_lines
from mixtune.artifacts.shards import Drops
from mixtune.chat.encoding import Disagreement
from mixtune.chat.tokenizer import BATCH_RECORDS, ChatTokenizer
from mixtune.mix_shard.store import Part, make_part, write_store
from mixtune.processes import start_processes
from mixtune.records import read_record
from mixtune.settings.mix import TokenSettings

PART_BYTES = 4 * 2**20
"""Bytes of records at which a part ends, if it has not as many as it may."""
PARALLEL_RECORDS = 200_000
"""Records below which one process tokenizes them all."""
PROGRESS_RECORDS = 100_000


@dataclass(frozen=True, kw_only=True)
class TokenizeJob:
    """How pools are tokenized; it is sent to other processes."""

    folder: Path
    """Of the model whose tokenizer is used."""
    settings: TokenSettings
    template: str = ""
    """Jinja chat template; empty: the model's own."""
    scratch: Path
    """Folder of the stores, named by the pool's number."""
    num_workers: int = 0
    """Processes; 0: one per CPU if there is much to tokenize."""


@dataclass(frozen=True, kw_only=True)
class TokenizedPools:
    """The result of tokenizing all pools."""

    backend: str
    """The library that encoded: `fastokens` or `tokenizers`."""
    drops: list[Drops]
    """By pool."""


def tokenize_pools(job: TokenizeJob, sources: Sequence[tuple[PoolsManifest, str]]) -> TokenizedPools:
    """Tokenize the training records of pools, with fastokens as long as it agrees with the model's own tokenizer.

    The job's scratch folder gets a store per pool, named by the pool's number in `sources`.

    Raises:
        DataError: A record is longer than `max_length`, and that is an error.
        ModelError: The tokenizer cannot be used.
    """
    try:
        return _tokenize_pools(job, sources, fast=True)
    except Disagreement:
        print("fastokens gives other ids than the model's own tokenizer; once more with the latter", flush=True)
        return _tokenize_pools(job, sources, fast=False)


def _tokenize_pools(job: TokenizeJob, sources: Sequence[tuple[PoolsManifest, str]], *, fast: bool) -> TokenizedPools:
    worker = _Worker(job, fast=fast)
    print(f"tokenizing with {worker.tokenizer.encoder.backend}", flush=True)
    num_records = sum(pools[name].num_records("train") for pools, name in sources)
    num_workers = job.num_workers or ((os.cpu_count() or 1) if num_records > PARALLEL_RECORDS else 1)
    drops = []
    with ExitStack() as running:
        if num_workers > 1:
            processes = running.enter_context(start_processes(num_workers, _start_worker, job, fast))
        for number, (pools, name) in enumerate(sources):
            print(f"pool {name}: tokenizing {pools[name].num_records('train'):,} records", flush=True)
            batches = _batches(pools, name)
            parts = _in_order(processes, batches, 2 * num_workers) if num_workers > 1 else map(worker.part, batches)
            drops.append(write_store(job.scratch, str(number), _with_progress(name, parts)))
    return TokenizedPools(backend=worker.tokenizer.encoder.backend, drops=drops)


def _with_progress(name: str, parts: Iterable[Part]) -> Iterator[Part]:
    num_records = 0
    for part in parts:
        before, num_records = num_records, num_records + part.drops.num_read
        if before // PROGRESS_RECORDS < num_records // PROGRESS_RECORDS:
            print(f"pool {name}: {num_records:,} records tokenized", flush=True)
        yield part


def _batches(pools: PoolsManifest, name: str) -> Iterator[list[bytes]]:
    """Yield the lines of a pool's training records, as many at once as a part has."""
    split = pools[name].splits.get("train")
    batch: list[bytes] = []
    num_bytes = 0
    for file in split.files if split else ():
        for line in read_lines(storage.join(pools.data_uri, file)):
            batch.append(line)
            num_bytes += len(line)
            if len(batch) == BATCH_RECORDS or num_bytes > PART_BYTES:
                yield batch
                batch, num_bytes = [], 0
    if batch:
        yield batch


def _in_order(processes: ProcessPoolExecutor, batches: Iterable[list[bytes]], ahead: int) -> Iterator[Part]:
    """Yield parts in the order of their batches, `ahead` of them under way at once."""
    batches = iter(batches)
    pending: deque[Future[Part]] = deque(processes.submit(_part_in_process, batch) for batch in islice(batches, ahead))
    while pending:
        yield pending.popleft().result()
        pending.extend(processes.submit(_part_in_process, batch) for batch in islice(batches, 1))


class _Worker:
    """A process with its own tokenizer."""

    def __init__(self, job: TokenizeJob, *, fast: bool) -> None:
        self.tokenizer = ChatTokenizer(job.folder, job.settings, job.template, fast=fast)

    def part(self, lines: list[bytes]) -> Part:
        """Return the part that lines of records become."""
        before, settings = self.tokenizer.encoder.num_compared, self.tokenizer.settings
        tokenized = self.tokenizer.tokenize_batch([read_record(line) for line in lines])
        part = make_part(tokenized, settings.max_length, settings.too_long)
        return replace(part, drops=replace(part.drops, num_compared=self.tokenizer.encoder.num_compared - before))


_worker: _Worker


def _start_worker(job: TokenizeJob, fast: bool) -> None:
    global _worker
    os.environ["TOKENIZERS_PARALLELISM"], os.environ["RAYON_NUM_THREADS"] = "false", "1"
    _worker = _Worker(job, fast=fast)


def _part_in_process(lines: list[bytes]) -> Part:
    return _worker.part(lines)
