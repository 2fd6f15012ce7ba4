"""The processes of a training job: which one this is, and the collectives that it needs."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from mixtune import storage
from mixtune.errors import ClusterError
from mixtune.processes import memory_limit

TEXT_BYTES = 1024
"""Length of a text that is broadcast, at most."""
STEP_PATIENCE = timedelta(minutes=10)
"""After so long a collective of a step counts as hung: all GPUs are paid for while they wait."""
FILES_PATIENCE = timedelta(hours=4)
"""Processes wait so long for one that fetches a base model or uploads a final one."""


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """All processes of a job, as one of them sees them; with a single process every collective is trivial."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this node."""
    local_size: int = 1
    waiting: "dist.ProcessGroup | None" = None
    """Connects the processes' CPUs, with patience for files; None: the default group does."""

    @property
    def is_main(self) -> bool:
        """Whether this process prints, tracks and writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """This process's GPU, else the CPU."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    @property
    def on_cpu(self) -> bool:
        """Whether this process computes on a CPU, where sums of gradients are exact."""
        return self.device.type == "cpu"

    @property
    def memory_bytes(self) -> float:
        """Of this process's GPU, else of this machine within its container's limit."""
        if torch.cuda.is_available():
            return float(torch.cuda.get_device_properties(self.device).total_memory)
        return memory_limit()

    def all_reduce_sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def any_process(self, flag: bool) -> bool:
        """Return whether a flag is set in one process at least; all processes call this."""
        return bool(self.all_reduce_sum(torch.tensor(float(flag), device=self.device)).item())

    def broadcast(self, value: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by rank 0's, in place, and return it."""
        if self.size > 1:
            dist.broadcast(value, 0)
        return value

    def broadcast_text(self, text: str) -> str:
        """Return rank 0's text, at most `TEXT_BYTES` long; waits for it as `barrier` does."""
        if self.size == 1:
            return text
        padded = torch.frombuffer(bytearray(text.encode().ljust(TEXT_BYTES, b"\0")), dtype=torch.uint8).clone()
        dist.broadcast(padded, 0, group=self.waiting)
        return bytes(padded.numpy()).rstrip(b"\0").decode()

    def barrier(self) -> None:
        """Wait until all processes are here: their CPUs, which a collective of NCCL would not hold back."""
        if self.size > 1:
            dist.all_reduce(torch.zeros(1), group=self.waiting)

    def share(self) -> storage.Share:
        """Return this process as one of its node's that fetch the same files together; all processes call this."""
        token = self.broadcast_text(uuid.uuid4().hex)
        return storage.Share(index=self.local_rank, count=self.local_size, wait=self.barrier, token=token)

    @contextmanager
    def local_main_first(self) -> Iterator[None]:
        """Let the first process of every node run the block before the others: a download, say."""
        if self.local_rank != 0:
            self.barrier()
        yield
        if self.local_rank == 0:
            self.barrier()


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group() -> Iterator[ProcessGroup]:
    """Join the processes that torchrun describes in the environment (gloo on CPUs, NCCL on GPUs); else be alone."""
    if dist.is_initialized():
        yield ProcessGroup()
        return
    local_rank, local_size = (int(os.environ.get(key, "0")) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if "WORLD_SIZE" in os.environ:
        # NCCL connects at once, to this GPU: one that cannot is found before a model is fetched, not at the first step.
        device = torch.device("cuda", local_rank) if torch.cuda.is_available() else None
        dist.init_process_group(backend, timeout=STEP_PATIENCE, device_id=device)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        size = dist.get_world_size()
        yield ProcessGroup(
            rank=dist.get_rank(),
            size=size,
            local_rank=local_rank,
            local_size=max(1, local_size),
            waiting=dist.new_group(backend="gloo", timeout=FILES_PATIENCE) if size > 1 else None,
        )
    finally:
        dist.destroy_process_group()


def check_gpus(gpus_per_node: int) -> None:
    """Check that this process sees the GPUs that its node was asked to have: a training on CPUs would cost the same.

    Raises:
        ClusterError: It sees fewer.
    """
    visible = torch.cuda.device_count() if gpus_per_node and torch.cuda.is_available() else 0
    if visible >= gpus_per_node:
        return
    raise ClusterError(
        f"this node was asked for with {gpus_per_node} GPUs, and PyTorch {torch.__version__} sees {visible} "
        f"({_cuda_trouble()}); look at `nvidia-smi` there: driver (580 or newer for CUDA 13), device plugin, MIG"
    )


def _cuda_trouble() -> str:
    """Return why CUDA does not start, in PyTorch's words."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).split("\n")[0][:300]
    return "CUDA itself starts"
