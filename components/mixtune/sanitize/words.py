"""The words of many texts at once, in numbers: every step is an array operation over all their letters.

A word's digest is a polynomial over its letters, and a run's one over its words, so that both come from sums.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_LETTER, _DIGIT, _IDEOGRAPH = 1, 2, 4
SHINGLE = 5
"""Words of a shingle, the unit of near-duplicates."""
_BLOCK = 2**18
"""Letters that are worked on at once: what fits into a processor's cache."""
_MULTIPLIER = 0x9E3779B97F4A7C15
_INVERSE = pow(_MULTIPLIER, -1, 2**64)


@dataclass(frozen=True)
class Sets:
    """Sets, or lists, of digests that lie one after another."""

    flat: np.ndarray
    at: np.ndarray
    """Offsets, (sets + 1,)."""

    def __getitem__(self, index: int) -> np.ndarray:
        return self.flat[self.at[index] : self.at[index + 1]]


@dataclass(frozen=True)
class Words(Sets):
    """The words of texts in order, 64-bit digests."""

    numeric: np.ndarray
    """Whether a word has a digit, bool (words,)."""


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation and spacing; an ideograph is a word."""
    return _WORD.findall(text.lower())


def hash_words(texts: Sequence[str]) -> Words:
    """The digests of the texts' words, as `words` finds them."""
    lowered = [text.lower() for text in texts]
    joined = "\n".join([*lowered, ""])
    if joined.isascii():
        letters, kinds = np.frombuffer(joined.encode(), np.uint8), _kinds(128)
    else:
        letters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
        kinds = _kinds(0x110000)
    kind = kinds[letters]
    before = np.concatenate([np.zeros(1, np.uint8), kind[:-1]])
    goes_on = kind & before & ~((kind | before) >> 2) & _LETTER
    starts, ends = np.flatnonzero(kind & ~goes_on & _LETTER), np.flatnonzero(before & ~goes_on & _LETTER)
    at = np.searchsorted(starts, np.cumsum([0, *(len(text) + 1 for text in lowered)]))
    numeric = np.zeros(len(starts), bool)
    numeric[np.searchsorted(starts, np.flatnonzero(kind & _DIGIT), "right") - 1] = True
    return Words(_hash_spans(letters, starts, ends), at, numeric)


def runs(flat: np.ndarray, size: int) -> np.ndarray:
    """Digests of all runs of `size` words, uint64 (words - size + 1,); none where there are fewer words."""
    length = max(0, len(flat) - size + 1)
    total = np.zeros(length, np.uint64)
    for place, power in enumerate(_powers(_MULTIPLIER, size)):
        total += flat[place : place + length] * power
    total ^= total >> np.uint64(29)
    return total


def shingle_sets(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Sets:
    """The shingles of texts, the ends padded so that each word counts alike; uint32, sorted, without repeats.

    Args:
        flat: Digests of words.
        starts: Where each text begins in them, (texts,).
        ends: Where it ends.
    """
    sizes, edge = ends - starts, SHINGLE - 1
    owner = np.repeat(np.arange(len(sizes)), sizes)
    first = np.cumsum(sizes) - sizes
    padded = np.zeros(int(sizes.sum()) + edge * (len(sizes) + 1), np.uint64)
    place = np.arange(len(owner))
    padded[place + edge * (owner + 1)] = flat[place + (starts - first)[owner]]
    mixed = runs(padded, SHINGLE) * np.uint64(_MULTIPLIER) >> np.uint64(32)
    owner = np.repeat(np.arange(len(sizes)), sizes + edge)
    keys = mixed | owner.astype(np.uint64) << np.uint64(32)
    keys = distinct(keys[(sizes > 0)[owner]])
    at = np.searchsorted(keys, np.arange(len(sizes) + 1, dtype=np.uint64) << np.uint64(32))
    return Sets((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), at)


def distinct(values: np.ndarray) -> np.ndarray:
    """The values, sorted, without repeats; several times faster than NumPy's own, which hashes."""
    ordered = np.sort(values)
    found: np.ndarray = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]]
    return found


def is_in(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For each value whether it stands in a sorted array."""
    if not len(known):
        return np.zeros(len(values), bool)
    found: np.ndarray = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found


def _hash_spans(letters: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    out, first = np.empty(len(starts), np.uint64), 0
    while first < len(starts):
        base = starts[first]
        last = max(first + 1, int(np.searchsorted(ends, base + _BLOCK, "right")))
        begin, end = starts[first:last] - base, ends[first:last] - base
        values = letters[base : base + end[-1]].astype(np.uint64)
        values *= _powers(_MULTIPLIER, len(values))
        sums = np.zeros(len(values) + 1, np.uint64)
        np.cumsum(values, out=sums[1:])
        out[first:last] = (sums[end] - sums[begin]) * _powers(_INVERSE, len(values) + 1)[begin]
        first = last
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):  # splitmix64's finisher
        out ^= out >> np.uint64(shift)
        out *= np.uint64(factor)
    return out


def _powers(base: int, number: int) -> np.ndarray:
    return _all_powers(base, max(_BLOCK + 1, number))[:number]


@lru_cache(maxsize=4)
def _all_powers(base: int, number: int) -> np.ndarray:
    factors = np.full(number, base, np.uint64)
    factors[0] = 1
    return np.cumprod(factors, dtype=np.uint64)


@lru_cache
def _kinds(number: int) -> np.ndarray:
    """What the first letters of Unicode are: part of a word, a digit, an ideograph."""
    kinds = np.fromiter(map(str.isalnum, map(chr, range(number))), np.uint8, number) * np.uint8(_LETTER)
    kinds |= np.fromiter(map(str.isdigit, map(chr, range(number))), np.uint8, number) * np.uint8(_DIGIT)
    for first, last in re.findall("(.)-(.)", _IDEOGRAPHS) if number > 128 else ():
        kinds[ord(first) : ord(last) + 1] |= _LETTER | _IDEOGRAPH
    return kinds
