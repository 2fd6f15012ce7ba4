"""Dropout whose draws depend on the seed, the step, the record and the layer alone: nothing of it needs saving."""

import hashlib
from collections.abc import Sequence

import torch

from mixtune.errors import ConfigError


class Dropout:
    """Draws the masks of the micro batch that runs; all layers of a model share one.

    Args:
        share: Of the values that are dropped, above 0 and below 1.
        seed: Of the draws.
    """

    def __init__(self, share: float, seed: int) -> None:
        self.share, self._seed = share, seed
        self.num_layers = 0
        self._step = 0
        self._records: list[tuple[int, int]] = []
        self._width = 0

    def begin_step(self, step: int) -> None:
        """Begin a step, 0-based."""
        self._step = step

    def begin_micro_batch(self, places: Sequence[int], lengths: Sequence[int], *, in_rows: bool = False) -> None:
        """Begin a micro batch.

        Args:
            places: Of its records in the global batch.
            lengths: Of its records, in tokens.
            in_rows: Whether each record is a row, padded to the longest; padding is dropped.
        """
        self._records = list(zip(places, lengths, strict=True))
        self._width = max(lengths) if in_rows else 0

    def mask(self, layer: int, like: torch.Tensor) -> torch.Tensor:
        """Return what a layer's input is multiplied with, in its shape: 0, or 1 / (1 - share).

        Args:
            layer: Its number.
            like: The input, (1, tokens, features), or (records, longest, features) in rows; leading ones may be one.

        Raises:
            ConfigError: The layer does not see every token of the micro batch, such as an expert or the head.
        """
        if sum(self._width or length for _, length in self._records) != like.shape[:-1].numel():
            raise ConfigError(
                "lora_options: lora_dropout reaches only layers that see every token; leave experts and the head out "
                "of target_modules"
            )
        draws = [self._draw(layer, place, length, like) for place, length in self._records]
        if self._width:
            draws = [torch.nn.functional.pad(draw, (0, 0, 0, self._width - len(draw))) for draw in draws]
        return torch.cat(draws).view(like.shape)

    def _draw(self, layer: int, place: int, length: int, like: torch.Tensor) -> torch.Tensor:
        key = f"{self._seed} {self._step} {place} {layer}"
        number = int.from_bytes(hashlib.blake2b(key.encode(), digest_size=7).digest(), "big")
        generator = torch.Generator(like.device).manual_seed(number)
        mask = torch.rand((length, like.shape[-1]), generator=generator, device=like.device) >= self.share
        return mask.to(like.dtype) / (1 - self.share)


class RecordDropout(torch.nn.Module):
    """The dropout of one layer, in the place of PEFT's."""

    def __init__(self, dropout: Dropout) -> None:
        super().__init__()
        self._dropout, self._layer = dropout, dropout.num_layers
        dropout.num_layers += 1

    def forward(self, value: torch.Tensor) -> torch.Tensor:
        """Return the value, in training with some of it dropped."""
        return value * self._dropout.mask(self._layer, value) if self.training else value
