"""Limits that the system sets on a process, while a block runs."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited(kind: int, value: int) -> Iterator[None]:
    """Lower a limit of this process, such as `resource.RLIMIT_FSIZE`: no file grows beyond so many bytes."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)
