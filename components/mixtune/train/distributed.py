"""The processes of a training job: which one this is, and the collectives that it needs."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

TEXT_BYTES = 1024
"""Length of a text that is broadcast, at most."""


@dataclass(frozen=True, kw_only=True)
class ProcessGroup:
    """All processes of a job, as one of them sees them; with a single process every collective is trivial."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Among the processes of this node."""
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process prints, tracks and writes."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """This process's GPU, else the CPU."""
        return torch.device("cuda", self.local_rank) if torch.cuda.is_available() else torch.device("cpu")

    def all_reduce_sum(self, value: torch.Tensor) -> torch.Tensor:
        """Sum a tensor over all processes, in place, and return it."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def broadcast(self, value: torch.Tensor) -> torch.Tensor:
        """Replace a tensor by rank 0's, in place, and return it."""
        if self.size > 1:
            dist.broadcast(value, 0)
        return value

    def broadcast_text(self, text: str) -> str:
        """Return rank 0's text, at most `TEXT_BYTES` long."""
        if self.size == 1:
            return text
        padded = torch.frombuffer(bytearray(text.encode().ljust(TEXT_BYTES, b"\0")), dtype=torch.uint8).clone()
        return bytes(self.broadcast(padded.to(self.device)).cpu().numpy()).rstrip(b"\0").decode()

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.all_reduce_sum(torch.zeros(1, device=self.device))

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
        dist.init_process_group(backend)
    else:
        store = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    try:
        yield ProcessGroup(
            rank=dist.get_rank(), size=dist.get_world_size(), local_rank=local_rank, local_size=max(1, local_size)
        )
    finally:
        dist.destroy_process_group()
