"""A cache of keys and values that grows in place: appending a token copies that token, not all that came before."""

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

Pair = tuple[torch.Tensor, torch.Tensor]
_GROWTH = 1.25
_MIN_ROOM = 64
"""Tokens of room that a layer has at least after it has grown."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one layer, (rows, heads, tokens, features), at the head of a larger buffer."""

    keys: torch.Tensor
    _keys: torch.Tensor
    values: torch.Tensor
    _values: torch.Tensor

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Take over what a layer holds."""
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._keys, self._values = self.keys, self.values = keys, values

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: object, **__: object) -> Pair:
        """Append tokens and return all keys and values."""
        count = self.keys.shape[-2]
        total = count + key_states.shape[-2]
        if total > self._keys.shape[-2]:
            room = max(int(_GROWTH * total), total + _MIN_ROOM)
            self._keys, self._values = (_with_room(tensor, room) for tensor in (self.keys, self.values))
        self._keys[..., count:total, :] = key_states
        self._values[..., count:total, :] = value_states
        self.keys, self.values = self._keys[..., :total, :], self._values[..., :total, :]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep some rows."""
        count = self.keys.shape[-2]
        self._keys, self._values = self._keys[indices], self._values[indices]
        self.keys, self.values = self._keys[..., :count, :], self._values[..., :count, :]


def grow_in_place(cache: DynamicCache) -> DynamicCache:
    """Return a cache that grows in place; another kind of cache (sliding windows, state spaces) as it is."""
    if is_plain(cache):
        layers: list[Any] = cache.layers
        cache.layers = [GrowingLayer(layer.keys, layer.values) for layer in layers]
    return cache


def is_plain(cache: object) -> bool:
    """Return whether a cache holds every token's keys and values in every layer, and nothing else."""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def _with_room(tensor: torch.Tensor, room: int) -> torch.Tensor:
    rows, heads, count, features = tensor.shape
    buffer = tensor.new_zeros((rows, heads, room, features))
    buffer[..., :count, :] = tensor
    return buffer
