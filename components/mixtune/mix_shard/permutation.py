"""A seeded order of a pool's records, computed draw by draw: nothing is stored, any draw is found in O(1)."""

import hashlib

import numpy as np

ROUNDS = 8


def key_words(*parts: object, count: int = ROUNDS) -> np.ndarray:
    """`count` 64-bit words that depend on every part: uint64, (count,)."""
    seed = "\0".join(str(part) for part in parts).encode()
    blocks = b"".join(hashlib.sha256(seed + bytes([number])).digest() for number in range(-(-count // 4)))
    words: np.ndarray = np.frombuffer(blocks, "<u8")[:count]
    return words


def mix_bits(values: np.ndarray) -> np.ndarray:
    """Spread 64-bit values over all 64 bits (the finalizer of SplitMix64); a bijection."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


class Permutation:
    """A keyed bijection of 0..size-1: a Feistel network on the next power of two, walked until it lands inside."""

    def __init__(self, size: int, *key: object) -> None:
        self.size = size
        bits = (size - 1).bit_length()
        self._right_bits = np.uint64(bits // 2)
        self._right_mask = np.uint64((1 << bits // 2) - 1)
        self._left_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = key_words(*key)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """The records at these positions of the order: int64, of the same shape."""
        values = self._network(positions.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while outside.size:
            values[outside] = self._network(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _network(self, values: np.ndarray) -> np.ndarray:
        left, right = values >> self._right_bits, values & self._right_mask
        for number in range(0, ROUNDS, 2):
            left = left ^ (mix_bits(right + self._keys[number]) & self._left_mask)
            right = right ^ (mix_bits(left + self._keys[number + 1]) & self._right_mask)
        return (left << self._right_bits) | right
