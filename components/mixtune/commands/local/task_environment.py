"""The environment in which tasks compute on this machine: which threads, how they wait, and what libraries print."""

import os
from pathlib import Path

from mixtune import storage

SMALL_MODEL_BYTES = 150e6
"""Weights below which waking threads costs more than they save."""
DEFAULTS = {
    "GIT_PYTHON_REFRESH": "quiet",
    "PYTHONWARNINGS": "ignore",
    "TQDM_DISABLE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""Environment of the tasks, where it is not set: a bar is noise in a log, and threads that wait burn their core."""


def set_task_environment(base_model: object = "") -> None:
    """Set this process's environment, for its tasks or for itself where torch is not imported yet.

    A small model computes in one thread, where `OMP_NUM_THREADS` is not set; others take all cores.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    folder = Path(storage.plain_uri(str(base_model or "")))
    weights = list(folder.glob("*.safetensors")) if base_model and folder.is_dir() else []
    if weights and sum(file.stat().st_size for file in weights) < SMALL_MODEL_BYTES:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
