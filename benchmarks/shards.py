"""Shards: reading them against MosaicML streaming and a bare mapped Arrow file; memory of writing them.

python benchmarks/shards.py read SHARDS      (a manifest that `mix_shard` wrote, local)
python benchmarks/shards.py memory           (simulated pools, 10,000 to 10 million records)

`read` needs `mosaicml-streaming` beside mixtune.
"""

import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.artifacts.shards import Shards, ShardsManifest, open_shards, token_records
from mixtune.mix_shard.exposure import make_plan
from mixtune.mix_shard.receipt import make_receipt
from mixtune.mix_shard.store import MASK_BYTES, ROW, Drops, Store
from mixtune.mix_shard.write_shards import Target, write_shards
from mixtune.settings.mix import MixSettings

REPEATS = 5
SIMULATED = (10_000, 100_000, 1_000_000, 10_000_000)
TOKENS = 8
"""Of every simulated record."""


def read(path: str) -> None:
    shards = open_shards(path, Path("unused"))
    middle = int(shards.num_steps * 0.7)
    print(f"\n## Reading {shards.num_steps:,} steps of {shards.manifest.global_batch_size} records\n")
    print("| reader | seconds to the first batch | to a batch in the middle | Mtok per CPU-second |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_bare(shards, f"{folder}/bare.arrow")
        write_streaming(shards, f"{folder}/mds")
        readers: dict[str, Callable[[int], Iterator[np.ndarray]]] = {
            "a bare mapped Arrow file": lambda step: bare_batches(f"{folder}/bare.arrow", step),
            "mixtune's shards": lambda step: own_batches(shards.folder, shards.manifest, step),
            "mixtune's shards, opened with every SHA-256 checked": lambda step: checked_batches(path, step),
            "MosaicML streaming": lambda step: streaming_batches(f"{folder}/mds", step, shards),
        }
        for name, batches in readers.items():
            first, random = (min(wait(batches, step) for _ in range(REPEATS)) for step in (0, middle))
            speed = max(throughput(batches) for _ in range(3))
            print(f"| {name} | {first:.4f} | {random:.4f} | {speed / 1e6:.1f} |", flush=True)


def wait(batches: Callable[[int], Iterator[np.ndarray]], step: int) -> float:
    began = time.perf_counter()
    next(batches(step))
    return time.perf_counter() - began


def throughput(batches: Callable[[int], Iterator[np.ndarray]]) -> float:
    began = time.process_time()
    tokens = sum(len(batch) for batch in batches(0))
    return tokens / (time.process_time() - began)


def own_batches(folder: Path, manifest: ShardsManifest, step: int) -> Iterator[np.ndarray]:
    """Every batch's tokens as one array, as a trainer packs them; here and below."""
    shards = Shards(folder, manifest)
    for number in range(step, shards.num_steps):
        records = shards.step(number)
        yield np.concatenate([r.input_ids for r in records] + [r.loss_mask for r in records])[: total(records)]


def checked_batches(path: str, step: int) -> Iterator[np.ndarray]:
    shards = open_shards(path, Path("unused"))
    yield from own_batches(shards.folder, shards.manifest, step)


def total(records: list[Any]) -> int:
    return sum(len(record.input_ids) for record in records)


def write_bare(shards: Shards, path: str) -> None:
    """The same batches, two columns each, in one file."""
    schema = pa.schema([("input_ids", pa.list_(pa.int32())), ("loss_mask", pa.list_(pa.uint8()))])
    with pa.OSFile(path, "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for step in range(shards.num_steps):
            writer.write_batch(shards.batch(step).select(["input_ids", "loss_mask"]))


def bare_batches(path: str, step: int) -> Iterator[np.ndarray]:
    reader = pa.ipc.open_file(pa.memory_map(path))
    for number in range(step, reader.num_record_batches):
        batch = reader.get_batch(number)
        ids, mask = batch["input_ids"], batch["loss_mask"]
        yield np.concatenate([ids.values.to_numpy(), mask.values.to_numpy()])[: len(ids.values)]


def write_streaming(shards: Shards, folder: str) -> None:
    from streaming import MDSWriter

    with MDSWriter(out=folder, columns={"input_ids": "ndarray:int32", "loss_mask": "ndarray:uint8"}) as writer:
        for record in chain.from_iterable(token_records(shards.batch(step)) for step in range(shards.num_steps)):
            writer.write({"input_ids": record.input_ids, "loss_mask": record.loss_mask})


def streaming_batches(folder: str, step: int, shards: Shards) -> Iterator[np.ndarray]:
    from streaming import StreamingDataset

    size = shards.manifest.global_batch_size
    data = StreamingDataset(local=folder, batch_size=size, shuffle=False, num_canonical_nodes=1)
    if step:
        data.load_state_dict(
            {
                "epoch": 0,
                "sample_in_epoch": step * size,
                "num_canonical_nodes": 1,
                "shuffle_seed": data.shuffle_seed,
                "initial_physical_nodes": 1,
            }
        )
    batch: list[dict[str, np.ndarray]] = []
    for item in data:
        batch.append(item)
        if len(batch) == size:
            tokens = sum(len(one["input_ids"]) for one in batch)
            yield np.concatenate([one["input_ids"] for one in batch] + [one["loss_mask"] for one in batch])[:tokens]
            batch = []


def memory() -> None:
    print("\n## Memory of planning, receipt and writing, by number of records\n")
    print("| records | steps | peak of own memory, MB | with mapped files, MB | CPU seconds | shards, MB |")
    print("|---|---|---|---|---|---|")
    for size in SIMULATED:
        subprocess.run([sys.executable, __file__, "one", str(size)], check=True)


def one(size: int) -> None:
    """One row of the memory table: a customer's pool of most records and a general one, written in one epoch."""
    sizes = [size * 3 // 4, size // 4]
    with tempfile.TemporaryDirectory() as folder:
        for number, count in enumerate(sizes):
            simulate(Path(folder), str(number), count)
        sampler = Sampler()
        began = time.process_time()
        stores = [Store(Path(folder), str(number)) for number in range(2)]
        mix = MixSettings(customer_data_percent=75, weights={"general": Fraction(100)})
        drops = [Drops(), Drops()]
        plan = make_plan(mix, ["customer", "general"], stores, drops, Path(folder) / "plan")
        make_receipt(plan, stores, drops)
        target = Target(plan=plan, scratch=Path(folder), data_uri=f"{folder}/shards")
        sys.stdout, out = sys.stderr, sys.stdout
        _, entries = write_shards(target, stores, 1)
        sys.stdout = out
        seconds, own = time.process_time() - began, sampler.stop()
        whole = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        written = sum(entry.num_bytes for entry in entries) / 1e6
    print(f"| {size:,} | {plan.num_steps:,} | {own:.0f} | {whole:.0f} | {seconds:.0f} | {written:.0f} |", flush=True)


def simulate(folder: Path, name: str, count: int) -> None:
    """A tokenized pool of records of one length."""
    record = np.arange(TOKENS, dtype=np.int32).tobytes() + bytes(TOKENS // 2) + b"\1" * (TOKENS - TOKENS // 2)
    with open(folder / f"{name}.rows", "wb") as rows, open(folder / f"{name}.tokens", "wb") as tokens:
        for first in range(0, count, 2**16):
            part = np.zeros(min(2**16, count - first), ROW)
            part["offset"] = (first + np.arange(len(part))) * TOKENS * MASK_BYTES
            part["length"], part["loss_tokens"], part["weight"] = TOKENS, TOKENS - TOKENS // 2, 1
            part.tofile(rows)
            tokens.write(record * len(part))


class Sampler:
    """The most memory that a process has of its own, mapped files left out, looked at many times a second."""

    def __init__(self) -> None:
        self._most, self._stopped = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stopped.wait(0.02):
            lines = Path("/proc/self/status").read_text().splitlines()
            self._most = max(self._most, *(int(li.split()[1]) / 1024 for li in lines if li.startswith("RssAnon")))

    def stop(self) -> float:
        """MB."""
        self._stopped.set()
        self._thread.join()
        return self._most


if __name__ == "__main__":
    {"read": read, "memory": memory, "one": lambda size: one(int(size))}[sys.argv[1]](*sys.argv[2:])
