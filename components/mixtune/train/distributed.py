"""The processes of a training job: which one this is, and the few things that they tell one another."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

TEXT_BYTES = 1024


@dataclass(frozen=True, kw_only=True)
class World:
    """One process of a training job; alone, all of this is trivial."""

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

    def add(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def copy(self, value: torch.Tensor) -> torch.Tensor:
        """Rank 0's value, in place."""
        if self.size > 1:
            dist.broadcast(value, 0)
        return value

    def text(self, text: str) -> str:
        """Rank 0's text, at most `TEXT_BYTES` long."""
        if self.size == 1:
            return text
        sent = torch.frombuffer(bytearray(text.encode().ljust(TEXT_BYTES, b"\0")), dtype=torch.uint8).clone()
        return bytes(self.copy(sent.to(self.device)).cpu().numpy()).rstrip(b"\0").decode()

    def wait(self) -> None:
        """Until all processes are here."""
        self.add(torch.zeros(1, device=self.device))

    @contextmanager
    def one_a_node_first(self) -> Iterator[None]:
        """A block that the first process of every node runs before the others: a download, say."""
        if self.local_rank != 0:
            self.wait()
        yield
        if self.local_rank == 0:
            self.wait()


ALONE = World()


@contextmanager
def join_world() -> Iterator[World]:
    """The world that torchrun describes in the environment (gloo on CPUs, NCCL on GPUs); without it, one process."""
    if dist.is_initialized():
        yield World()
        return
    local_rank, local_size = (int(os.environ.get(key, "0")) for key in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group(backend)
    else:
        alone = dist.HashStore()  # type: ignore[attr-defined]
        dist.init_process_group(backend, store=alone, rank=0, world_size=1)
    try:
        yield World(
            rank=dist.get_rank(), size=dist.get_world_size(), local_rank=local_rank, local_size=max(1, local_size)
        )
    finally:
        dist.destroy_process_group()
