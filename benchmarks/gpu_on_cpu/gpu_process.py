"""A process whose PyTorch believes in a GPU: the guard that its C++ asks for, and `torch.cuda`."""

import contextlib
import ctypes
import importlib.util
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NAME = "NVIDIA H100 80GB HBM3"
MEMORY_BYTES = 80 * 2**30
GPU_NUMBER = int(os.environ.get("LOCAL_RANK", "0"))
"""Of this process's GPU: each has one, as torchrun numbers them."""
NUM_GPUS = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def build_guard() -> Path:
    """Return the library made of `guard.cpp`, compiled once for each PyTorch; it takes a few seconds."""
    spec = importlib.util.find_spec("torch")
    assert spec and spec.origin
    torch_folder, source = Path(spec.origin).parent, Path(__file__).parent / "guard.cpp"
    version = next(torch_folder.parent.glob("torch-*.dist-info")).name
    library = Path(tempfile.gettempdir()) / f"gpu-on-cpu-{version}-{source.stat().st_mtime_ns}" / "guard.so"
    if not library.exists():
        library.parent.mkdir(exist_ok=True)
        folder = torch_folder / "lib"
        built = Path(tempfile.mkdtemp(dir=library.parent)) / library.name
        command = ["g++", "-std=c++20", "-DNDEBUG", "-shared", "-fPIC", f"-I{torch_folder}/include", str(source)]
        command += ["-o", str(built), f"-L{folder}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{folder}"]
        subprocess.run(command, check=True, capture_output=True)
        built.rename(library)
    return library


def start(guard: str) -> None:
    """Give this process a GPU; before anything has imported PyTorch."""
    ctypes.CDLL(guard)
    import torch

    _replace_cuda()
    _replace_collectives()
    torch.__future__.set_swap_module_params_on_conversion(True)
    from gpu_tensors import GPU_MODE

    GPU_MODE.__enter__()


class Stream:
    """One of one: everything is done in order."""

    device_index = GPU_NUMBER

    def __init__(self, *_: Any, **__: Any) -> None:
        import torch

        self.device = torch.device("cuda", GPU_NUMBER)

    def wait_stream(self, stream: "Stream") -> None:
        """Nothing is under way."""

    def wait_event(self, event: "Event") -> None:
        """Nothing is under way."""

    def record_event(self, event: "Event | None" = None) -> "Event":
        """Return what has happened already."""
        return event or Event()

    def synchronize(self) -> None:
        """Nothing is under way."""


class Event:
    """A moment that has passed."""

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, stream: Stream | None = None) -> None:
        """Nothing is under way."""

    def wait(self, stream: Stream | None = None) -> None:
        """Nothing is under way."""

    def query(self) -> bool:
        """It has happened."""
        return True

    def synchronize(self) -> None:
        """Nothing is under way."""

    def elapsed_time(self, other: "Event") -> float:
        """Return milliseconds: no time is measured."""
        return 1.0


@contextlib.contextmanager
def _stream(_: Stream | None) -> Iterator[None]:
    yield


def _replace_cuda() -> None:
    import torch
    import torch.cuda as cuda

    one = Stream()
    properties = SimpleNamespace(name=NAME, total_memory=MEMORY_BYTES, major=9, minor=0, multi_processor_count=132)
    answers: dict[str, Any] = {
        "is_available": True, "device_count": NUM_GPUS, "current_device": GPU_NUMBER, "get_device_name": NAME,
        "get_device_capability": (9, 0), "get_device_properties": properties, "is_bf16_supported": True,
        "max_memory_allocated": 2**30, "max_memory_reserved": 2**30, "memory_allocated": 2**29,
        "mem_get_info": (MEMORY_BYTES - 2**30, MEMORY_BYTES), "current_stream": one, "default_stream": one,
        "_lazy_init": None, "init": None, "set_device": None, "synchronize": None, "empty_cache": None,
        "reset_peak_memory_stats": None, "manual_seed": None, "manual_seed_all": None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(cuda, name, lambda *_, answer=answer, **__: answer)
    cuda.Stream, cuda.Event, cuda.stream = Stream, Event, _stream  # type: ignore[assignment, misc]
    torch.Stream, torch.Event = Stream, Event  # type: ignore[assignment, misc]


def _replace_collectives() -> None:
    import torch.distributed as dist

    init = dist.init_process_group

    def by_gloo(backend: str | None = None, device_id: Any = None, **options: Any) -> None:
        init("gloo", **options)

    dist.init_process_group = by_gloo
