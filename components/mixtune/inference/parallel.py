"""Parts spread over the GPUs of a pod: one process each, every one with the whole model.

What a part holds and how it is batched does not depend on who scores it, so neither do its rows.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from typing import Any

import torch

from mixtune import storage
from mixtune.artifacts.samples import Part, write_part
from mixtune.errors import ConfigError, DataError
from mixtune.processes import SPAWN, start_processes

Loader = Callable[[str], Any]
"""Makes an engine on a device, such as `cuda:1`; picklable."""

REPORT_SECONDS = 10.0

_engine: Any = None
_device = ""

PROGRESS = "_progress.json"
"""Says which evaluation the parts beside it belong to; hidden from listings by its name."""


def score_parts(parts: Sequence[Part], folder: str, load: Loader, devices: Sequence[str]) -> None:
    """Score parts and write each as it is done.

    Args:
        parts: What is to be scored.
        folder: URI of the samples' data folder.
        load: Makes the engine; called once per device, and not at all without parts.
        devices: One process each; a single one needs no process of its own.
    """
    total = sum(part.num_items for part in parts)
    done, told, started = 0, time.perf_counter(), time.perf_counter()
    for part in _scored(parts, folder, load, devices):
        done += part.num_items
        if time.perf_counter() - told > REPORT_SECONDS or done == total:
            told = time.perf_counter()
            print(f"{done} of {total} items, {part.axis}, {told - started:.1f} s", flush=True)


def find_devices(device: str, gpus_per_model: int = 1) -> list[str]:
    """The places that share the work, one model each: every GPU, or group of GPUs, for `cuda`; else what is named.

    A group is numbers joined by commas, as `CUDA_VISIBLE_DEVICES` has them.

    Raises:
        ConfigError: The machine has fewer GPUs than one model takes.
    """
    if device != "cuda":
        return [device]
    count = torch.cuda.device_count()
    if count < gpus_per_model:
        raise ConfigError(f"gpus_per_model is {gpus_per_model}, but there are {count} GPUs")
    firsts = range(0, count - gpus_per_model + 1, gpus_per_model)
    return [",".join(str(first + number) for number in range(gpus_per_model)) for first in firsts]


def _scored(parts: Sequence[Part], folder: str, load: Loader, devices: Sequence[str]) -> Iterator[Part]:
    if len(devices) == 1 or len(parts) < 2:
        engine = load("cuda" if devices[0][0].isdigit() else devices[0]) if parts else None
        for part in parts:
            write_part(storage.join(folder, part.path), part.score(engine))
            yield part
        return
    places = SPAWN.Queue()
    for device in devices:
        places.put(device)
    with start_processes(len(devices), _take_device, places) as pool:
        running = {pool.submit(_score, part, folder, load): part for part in parts}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _take_device(places: Any) -> None:
    """Take a place; a group of GPUs is all that this process will ever see of them."""
    global _device
    _device = places.get()
    if _device[0].isdigit():
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible(_device)
        _device = "cuda"


def _visible(group: str) -> str:
    """A group's GPUs among those that this process was given."""
    given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return ",".join(given[int(number)] if given else number for number in group.split(","))


def _score(part: Part, folder: str, load: Loader) -> None:
    global _engine
    if _engine is None:
        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        _engine = load(_device)
    write_part(storage.join(folder, part.path), part.score(_engine))


def begin(folder: str, identity: dict[str, Any]) -> set[str]:
    """Parts that an interrupted run of the same evaluation left; another's are deleted."""
    text = json.dumps(identity, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()
    progress = storage.join(folder, PROGRESS)
    if storage.file_exists(progress) and storage.read_json(progress) == {"evaluation": digest}:
        try:
            found = {entry.path for entry in storage.list_files(folder)}
        except DataError:  # nothing but the hidden progress file
            return set()
        print(f"{len(found)} parts are there already, going on with the rest", flush=True)
        return found
    storage.delete(folder)
    storage.write_json(progress, {"evaluation": digest})
    return set()
