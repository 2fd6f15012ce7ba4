"""Processes that share a task's work, and end when the one that started them does, even by kill -9."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any


def start_processes(count: int, initializer: Callable[..., None], *arguments: Any) -> ProcessPoolExecutor:
    """A pool of processes, each begun by the initializer; they share nothing with this one but what they are told."""
    return ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start, (initializer, arguments))


def _start(initializer: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    initializer(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
