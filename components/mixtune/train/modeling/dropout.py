"""Dropout whose draws depend on the seed, the step, the record, the token and the layer alone: nothing needs saving.

Draws are a hash of these, by whole numbers that are the same on every device, in a few operations over the whole micro
batch that torch can compile. The mixing constants are those of a 32-bit integer hash (Wellons 2018, lowbias32).
"""

import hashlib
from collections.abc import Sequence

import torch

from mixtune.errors import ConfigError

MIXED = (0x7FEB352D, 0x846CA68B - 2**32)
"""Multipliers, as signed 32-bit numbers."""
LOW_HALF = 0xFFFF


class Dropout:
    """Draws the masks of the micro batch that runs; all layers of a model share one.

    Args:
        share: Of the values that are dropped, above 0 and below 1.
        seed: Of the draws.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share, self._seed = share, seed
        self._threshold = min(round(share * 2**32) - 2**31, 2**31 - 1)
        self.num_layers = 0
        self._step = 0
        self._keys = torch.zeros(0, dtype=torch.int32)

    def begin_step(self, step: int) -> None:
        """Begin a step, 0-based."""
        self._step = step

    def begin_micro_batch(self, places: Sequence[int], lengths: Sequence[int], *, in_rows: bool = False) -> None:
        """Begin a micro batch of records at `places` in the global batch; `in_rows`: padded to the longest."""
        widths = [max(lengths)] * len(lengths) if in_rows else lengths
        starts = torch.tensor([_number(f"{self._seed} {self._step} {place}") for place in places], dtype=torch.int32)
        tokens = torch.cat([torch.arange(width, dtype=torch.int32) for width in widths])
        # (tokens,) a number of each token of each record
        keys = _mix(starts.repeat_interleave(torch.tensor(widths)) + tokens * 0x9E3779)
        self._keys = keys.to("cuda" if torch.cuda.is_available() else "cpu")

    def mask(self, layer: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Return what a layer's input is multiplied with, in its shape: 0, or 1 / (1 - share).

        `layer` is its number, mixed, int32 on the input's device; the input is (1, tokens, features), or (records,
        longest, features) in rows, and leading ones may be one.

        Raises:
            ConfigError: The layer does not see every token of the micro batch, such as an expert or the head.
        """
        if len(self._keys) != like.shape[:-1].numel():
            raise ConfigError(
                "lora_options: lora_dropout reaches only layers that see every token; leave experts and the head out "
                "of target_modules"
            )
        columns = _mix(torch.arange(like.shape[-1], dtype=torch.int32, device=like.device) + layer)
        # (tokens, features) uniform over all 32-bit numbers
        draws = _mix(self._keys[:, None] + columns)
        keep = draws >= self._threshold
        return keep.view(like.shape).to(like.dtype) / (1 - self.share)


class RecordDropout(torch.nn.Module):
    """The dropout of one layer, in place of PEFT's."""

    layer: torch.Tensor

    def __init__(self, dropout: Dropout) -> None:
        super().__init__()
        self.dropout = dropout
        # A tensor, so that a compiled graph is one for all layers.
        self.register_buffer("layer", torch.tensor(_number(f"layer {dropout.num_layers}")).int(), persistent=False)
        dropout.num_layers += 1

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the value, in training with some of it dropped."""
        return value * self.dropout.mask(self.layer, value) if self.training else value


def _number(text: str) -> int:
    """Return a signed 32-bit number for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big", signed=True)


def _mix(values: torch.Tensor) -> torch.Tensor:
    """Return other int32 numbers, every bit of which depends on every bit of these; they wrap around."""
    values = values ^ (values >> 16 & LOW_HALF)
    values = values * MIXED[0]
    values = values ^ (values >> 15 & 0x1FFFF)
    values = values * MIXED[1]
    return values ^ (values >> 16 & LOW_HALF)
