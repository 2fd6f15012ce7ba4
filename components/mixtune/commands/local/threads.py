"""How many threads the tasks of a local run compute with."""

import os
from pathlib import Path
from typing import Any

from mixtune import storage

SMALL_MODEL_BYTES = 150e6
"""Weights below which waking threads costs more than they save."""


def choose_threads(base_model: Any) -> None:
    """Let a small model compute in one thread, where `OMP_NUM_THREADS` is not set; others take all cores.

    Args:
        base_model: The argument of that name; anything but a local folder leaves the environment as it is.
    """
    folder = Path(storage.split_fingerprint(base_model)[0]) if isinstance(base_model, str) and base_model else None
    if folder is None or not folder.is_dir():
        return
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    if size < SMALL_MODEL_BYTES:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
