"""Processes that share a task's work, and end when the one that started them does, even by kill -9; their memory."""

import multiprocessing
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

SPAWN = multiprocessing.get_context("spawn")
"""Processes begin afresh: they share nothing with this one but what they are told."""


def start_processes(
    count: int, initializer: Callable[..., None] | None = None, *arguments: object
) -> ProcessPoolExecutor:
    """Start a pool of processes, each begun by the initializer."""
    return ProcessPoolExecutor(count, SPAWN, _start, (initializer, arguments))


def _start(initializer: Callable[..., None] | None, arguments: tuple[object, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if initializer:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)


CGROUPS = Path("/sys/fs/cgroup")
LIMITS = ("memory.max", "memory.limit_in_bytes")
"""A cgroup's limit, in version 2 and 1."""
USES = ("memory.current", "memory.usage_in_bytes")
NO_LIMIT = 2**60
"""What version 1 says is more than this where there is no limit."""


def memory_limit() -> float:
    """Return the bytes that this machine has, or that the pod's or container's cgroup allows, where that is less."""
    whole = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return min([whole, *(limit for limit, _ in _cgroup_memory())])


def explain_memory(error: Exception | None = None) -> str:
    """Return what to do where memory ran out, here or by this error; empty where the error is another."""
    if error and not isinstance(error, MemoryError) and not re.search("(?:allocate|out of) memory", str(error)):
        return ""
    machine = f"this machine, or its container, has {memory_limit() / 1e9:.1f} GB; close other programs"
    less = "a smaller max_length, train_options.memory.max_tokens_per_gpu, evaluate_options"
    place = "the GPU is full" if "CUDA" in str(error) else machine
    return f"{place}, give it less at once ({less}), or take more memory"


def free_memory() -> float:
    """Return the bytes that can still be taken: of the machine, and within every cgroup that this process is in."""
    meminfo = Path("/proc/meminfo")
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines()) if meminfo.is_file() else {}
    available = float(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else memory_limit()
    return max(0.0, min([available, *(limit - used for limit, used in _cgroup_memory())]))


def _cgroup_memory() -> list[tuple[float, float]]:
    """Return limit and use, in bytes, of every cgroup over this process that has a limit."""
    own = Path("/proc/self/cgroup")
    places = {CGROUPS, CGROUPS / "memory"}
    for line in own.read_text().splitlines() if own.is_file() else ():
        _, controllers, path = line.split(":", 2)
        root = CGROUPS / "memory" if "memory" in controllers.split(",") else CGROUPS
        folder = root / path.strip("/")
        places |= {folder, *(parent for parent in folder.parents if parent.is_relative_to(root))}
    pairs = []
    for place in places:
        for limit_name, use_name in zip(LIMITS, USES, strict=True):
            limit = _number(place / limit_name)
            if limit is not None and limit < NO_LIMIT:
                pairs.append((limit, _number(place / use_name) or 0.0))
    return pairs


def _number(file: Path) -> float | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return float(text) if text.isdigit() else None
