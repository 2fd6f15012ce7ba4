"""Sums of gradients that do not depend on the order in which micro batches come, or on who computed them.

AdamW divides a gradient by its own size, so where a gradient is nearly zero a rounding error becomes a whole step. Each
micro batch has the same bits on any process; added up in float64, their sum has too, but for one rounding in some
10^9, and processes may come and go.
"""

from collections.abc import Iterable

import torch
from torch.distributed.tensor import DTensor

from mixtune.train.distributed import World


class GradientSums:
    """The gradients of one global batch, of parameters that every process holds whole; sharded ones add up themselves.

    Args:
        parameters: What is trained.
        exact: Add up in float64, at eight bytes a parameter; else as autograd does.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], exact: bool) -> None:
        self._parameters = [value for value in parameters if not isinstance(value, DTensor)]
        self._sums = [torch.zeros_like(value, dtype=torch.float64) for value in self._parameters] if exact else []

    def take(self) -> None:
        """Add the gradients of a micro batch, and clear them."""
        for total, value in zip(self._sums, self._parameters, strict=False):
            if value.grad is not None:
                total.add_(value.grad)
                value.grad = None

    def finish(self, world: World) -> None:
        """Leave the sum over all processes as the parameters' gradients, by one collective."""
        whole = self._sums or [torch.zeros_like(v) if v.grad is None else v.grad for v in self._parameters]
        if world.size > 1 and whole:
            flat = world.add(torch.cat([total.flatten() for total in whole]))
            whole = list(flat.split([total.numel() for total in whole]))
        for value, total in zip(self._parameters, whole, strict=True):
            value.grad = total.view_as(value).to(value.dtype)
