"""Parts of an evaluation, spread over the GPUs of a pod: one process each, every one with the whole model.

What a part holds and how it is batched does not depend on who scores it, so neither do its rows.
"""

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing.queues import Queue
from typing import Any, TypeVar

from mixtune import storage
from mixtune.artifacts.samples import ModelIdentity, Sample, write_part
from mixtune.errors import ConfigError, DataError
from mixtune.inference.engine import Engine
from mixtune.inference.heartbeat import Forecast, beat, duration
from mixtune.processes import SPAWN, start_processes

Loader = Callable[[str], Engine]
"""Makes an engine on a device, such as `cuda:1`; picklable."""
Item = TypeVar("Item")

CPU_ITEMS, CPU_NEW_TOKENS, CPU_MIN_ANSWERS = 32, 8192, 8
"""Of a part on a CPU: scored items at most; generated tokens at most, unless that were fewer answers than the last."""
PROGRESS = "_progress.json"
"""Says which evaluation the parts beside it belong to; hidden from listings by its name."""

_engine: Engine | None = None
_device = ""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A fixed set of items that is scored and written at once."""

    axis: str
    name: str
    items: Sequence[Any]
    score_items: Callable[[Sequence[Any], Engine], list[Sample]]
    """Picklable."""
    new_tokens: int = 0
    """Tokens that are generated for an item at most; 0: it is scored."""

    @property
    def num_items(self) -> int:
        """How many items it is."""
        return len(self.items)

    @property
    def path(self) -> str:
        """Relative to the artifact's data folder."""
        return f"{self.axis}/{self.name}.parquet"

    def score(self, engine: Engine) -> list[Sample]:
        """Return the samples of its items."""
        return self.score_items(self.items, engine)

    def cut(self) -> "list[Part]":
        """Return smaller parts, such that one takes a CPU about a minute at most and a kill costs no more."""
        size = CPU_ITEMS if not self.new_tokens else max(CPU_MIN_ANSWERS, CPU_NEW_TOKENS // self.new_tokens)
        if len(self.items) <= size:
            return [self]
        chunks = [self.items[start : start + size] for start in range(0, len(self.items), size)]
        return [replace(self, name=f"{self.name}-{number:03}", items=chunk) for number, chunk in enumerate(chunks)]


def make_parts(
    axis: str,
    items: Sequence[Item],
    size: int,
    score: Callable[[Sequence[Item], Engine], list[Sample]],
    prefix: str = "",
    *,
    new_tokens: int = 0,
) -> list[Part]:
    """Return items in parts of `size` at most, named by the prefix and a number; the rest as `Part` has it."""
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    return [
        Part(axis=axis, name=f"{prefix}{number:05}", items=chunk, score_items=score, new_tokens=new_tokens)
        for number, chunk in enumerate(chunks)
    ]


def score_parts(parts: Sequence[Part], folder: str, load: Loader, devices: Sequence[str]) -> None:
    """Score parts and write each as soon as it is scored; say what there is to do, and when it will be over.

    The first part of every axis comes first, so that the time that all take is known early. Each device has a process
    of its own, unless there is but one, and loads a model once, and none without parts.
    """
    counts = Counter({axis: 0 for axis in sorted({part.axis for part in parts})})
    for part in parts:
        counts[part.axis] += part.num_items
    if parts:
        beat(f"to do: {', '.join(_describe(axis, count, parts) for axis, count in counts.items())}", now=True)
    forecast, total = Forecast(counts), counts.total()
    started = before = time.perf_counter()
    estimated = False
    for part in _scored(_first_of_each_axis_first(parts), folder, load, devices):
        moment = time.perf_counter()
        forecast.add(part.axis, part.num_items, moment - before)
        before, rest = moment, forecast.seconds_left()
        is_over = forecast.num_scored == total
        estimate = "" if rest is None or is_over else f", about {duration(rest)} left"
        of_axis = f"{part.axis}: {forecast.num_of(part.axis)} of {counts[part.axis]} items"
        together = f"; all axes: {forecast.num_scored} of {total}" if len(counts) > 1 else ""
        line = f"{of_axis}{together}, {moment - started:.1f} s{estimate}"
        whole = "" if is_over else f"{forecast.num_scored} of {total} items in all{estimate}"
        beat(line, now=is_over or (not estimated and rest is not None), whole=whole)
        estimated = rest is not None


def _describe(axis: str, count: int, parts: Sequence[Part]) -> str:
    tokens = next(part.new_tokens for part in parts if part.axis == axis)
    return f"{axis}: {count} {f'answers of at most {tokens} tokens' if tokens else 'items'}"


def _first_of_each_axis_first(parts: Sequence[Part]) -> list[Part]:
    """Return the parts in their order, but for the first of each axis, which lead."""
    firsts = {part.axis: part for part in reversed(parts)}
    leading = list(reversed(firsts.values()))
    names = {part.path for part in leading}
    return [*leading, *(part for part in parts if part.path not in names)]


def find_devices(device: str, gpus_per_model: int = 1) -> list[str]:
    """Return the places of one model each: every GPU, or group of GPUs, for `cuda`; else the device itself.

    A group is numbers joined by commas, as `CUDA_VISIBLE_DEVICES` has them.

    Raises:
        ConfigError: The machine has fewer GPUs than one model takes.
    """
    import torch

    if device != "cuda":
        return [device]
    count = torch.cuda.device_count()
    if count < gpus_per_model:
        raise ConfigError(f"gpus_per_model is {gpus_per_model}, but there are {count} GPUs")
    firsts = range(0, count - gpus_per_model + 1, gpus_per_model)
    return [",".join(str(first + number) for number in range(gpus_per_model)) for first in firsts]


def resume_or_reset(folder: str, identity: ModelIdentity) -> set[str]:
    """Return the paths of parts that an interrupted run of the same evaluation wrote; delete another's."""
    digest = hashlib.sha256(json.dumps(asdict(identity), sort_keys=True).encode()).hexdigest()
    progress = storage.join(folder, PROGRESS)
    if storage.file_exists(progress) and storage.read_json(progress) == {"evaluation": digest}:
        try:
            written = {entry.path for entry in storage.list_files(folder)}
        except DataError:  # nothing but the hidden progress file
            return set()
        print(f"{len(written)} parts are there already, going on with the rest", flush=True)
        return written
    storage.delete(folder)
    storage.write_json(progress, {"evaluation": digest})
    return set()


def _scored(parts: Sequence[Part], folder: str, load: Loader, devices: Sequence[str]) -> Iterator[Part]:
    if not parts:
        return
    if len(devices) == 1 or len(parts) == 1:
        engine = load("cuda" if devices[0][0].isdigit() else devices[0])
        for part in parts:
            write_part(storage.join(folder, part.path), part.score(engine))
            yield part
        return
    places = SPAWN.Queue()
    for device in devices:
        places.put(device)
    with start_processes(len(devices), _take_device, places) as pool:
        running = {pool.submit(_score_here, part, folder, load): part for part in parts}
        try:
            for future in as_completed(running):
                future.result()
                yield running[future]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _take_device(places: "Queue[str]") -> None:
    """Take a place; a group of GPUs is all that this process will ever see of them."""
    global _device
    _device = places.get()
    if _device[0].isdigit():
        os.environ["CUDA_VISIBLE_DEVICES"] = _visible(_device)
        _device = "cuda"


def _visible(group: str) -> str:
    """Return a group's GPUs among those that this process may use."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return ",".join(visible[int(number)] if visible else number for number in group.split(","))


def _score_here(part: Part, folder: str, load: Loader) -> None:
    global _engine
    if _engine is None:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        _engine = load(_device)
    write_part(storage.join(folder, part.path), part.score(_engine))
