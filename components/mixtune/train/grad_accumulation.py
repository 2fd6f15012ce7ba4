"""Sums of gradients that do not depend on the order of micro batches, or on the rank that computes each.

AdamW divides a gradient by its own size, so where a gradient is nearly zero a rounding error becomes a whole step. Each
micro batch has the same bits on any process; accumulated in float64 their sum has too (up to about one rounding in
1e9), so processes may come and go. On GPUs the bits of a micro batch are not fixed: attention's backward pass adds with
atomics, unless FLASH_ATTENTION_DETERMINISTIC=1 is set for flash-attention.
"""

from collections.abc import Iterable

import torch
from torch.distributed.tensor import DTensor

from mixtune.train.distributed import ProcessGroup


class GradientAccumulator:
    """The gradients of one global batch, of parameters that every process holds whole; FSDP2 reduces sharded ones.

    Args:
        parameters: Those that are trained.
        exact: Accumulate in float64, at eight bytes a parameter; else as autograd does.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], exact: bool) -> None:
        self._parameters = [value for value in parameters if not isinstance(value, DTensor)]
        self._sums = [torch.zeros_like(value, dtype=torch.float64) for value in self._parameters] if exact else []

    def accumulate(self) -> None:
        """Add the gradients of a micro batch, and clear them."""
        for total, value in zip(self._sums, self._parameters, strict=False):
            if value.grad is not None:
                total.add_(value.grad)
                value.grad = None

    def all_reduce(self, group: ProcessGroup) -> None:
        """Make the sum over all processes the parameters' gradients, by one collective."""
        sums = self._sums or [torch.zeros_like(v) if v.grad is None else v.grad for v in self._parameters]
        if group.size > 1 and sums:
            flat = group.all_reduce_sum(torch.cat([total.flatten() for total in sums]))
            sums = list(flat.split([total.numel() for total in sums]))
        for value, total in zip(self._parameters, sums, strict=True):
            value.grad = total.view_as(value).to(value.dtype)
