"""Words and n-grams of texts, as text and as 64-bit digests: what deduplication and both contamination checks compare.

An ideograph, a kana or a Hangul syllable is a word of its own, so that Chinese and Japanese need no spaces; Thai, which
has none either, splits at its vowel and tone marks. Hashing works on many texts at once: every step is an array
operation over all their bytes, or words.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import xxhash

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
_LETTER, _DIGIT, _IDEOGRAPH, _UNKNOWN = 1, 2, 4, 8
SHINGLE = 5
"""Words of a shingle, the unit of near-duplicates."""
NGRAM = 13
"""Words of an n-gram, the unit in which benchmark items are searched for in training data."""
_LONG = 64
"""Bytes from which on a word is hashed by itself."""
_MASKS = np.array([2 ** (8 * size) - 1 for size in range(9)], np.uint64)
_MULTIPLIER = 0x9E3779B97F4A7C15


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
    """Return the lower-case words of a text, without punctuation and spacing; an ideograph is a word."""
    return _WORD.findall(text.lower())


def hash_words(texts: Sequence[str]) -> Words:
    """Return the digests of the texts' words, split as `words` does; a word has the same digest in every process."""
    lowered = [text.lower() for text in texts]
    joined = "\n".join(["", *lowered, "\0" * 8]).encode(errors="surrogatepass")
    letters = np.frombuffer(joined, np.uint8)
    kind, cut = _ASCII[letters], np.zeros(len(letters), bool)
    sizes = np.fromiter(map(len, lowered), np.int64, len(lowered))
    if not joined.isascii():
        _judge(letters, kind, cut)
        for number in [number for number, text in enumerate(lowered) if not text.isascii()]:
            sizes[number] = len(lowered[number].encode(errors="surrogatepass"))
    letter = (kind & _LETTER).view(bool)
    goes_on = letter[1:] & letter[:-1] & ~cut[1:]
    starts = np.flatnonzero(letter[1:] & ~goes_on) + 1
    ends = np.flatnonzero(letter[:-1] & ~goes_on) + 1
    at = np.searchsorted(starts, np.cumsum(np.concatenate([[1], sizes + 1])))
    numeric = np.zeros(len(starts), bool)
    numeric[np.searchsorted(starts, np.flatnonzero((kind & _DIGIT) > 0), "right") - 1] = True
    return Words(_hash_spans(joined, starts, ends), at, numeric)


def hash_ngrams(flat: np.ndarray, size: int) -> np.ndarray:
    """Return the digests of all n-grams of `size` words, uint64 (words - size + 1,); none of fewer words."""
    length = max(0, len(flat) - size + 1)
    total = np.zeros(length, np.uint64)
    for place in range(size):
        total += flat[place : place + length] * np.uint64(pow(_MULTIPLIER, place, 2**64))
    total ^= total >> np.uint64(29)
    return total


def shingle_sets(flat: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Sets:
    """The shingles of texts, the ends padded so that each word counts alike; uint32, sorted, without repeats.

    `starts` and `ends`, (texts,), are places of each text in `flat`, the digests of words.
    """
    sizes, edge = ends - starts, SHINGLE - 1
    owner = np.repeat(np.arange(len(sizes)), sizes)
    first = np.cumsum(sizes) - sizes
    padded = np.zeros(int(sizes.sum()) + edge * (len(sizes) + 1), np.uint64)
    place = np.arange(len(owner))
    padded[place + edge * (owner + 1)] = flat[place + (starts - first)[owner]]
    mixed = hash_ngrams(padded, SHINGLE) * np.uint64(_MULTIPLIER) >> np.uint64(32)
    owner = np.repeat(np.arange(len(sizes)), sizes + edge)
    keys = mixed | owner.astype(np.uint64) << np.uint64(32)
    keys = distinct(keys[(sizes > 0)[owner]])
    at = np.searchsorted(keys, np.arange(len(sizes) + 1, dtype=np.uint64) << np.uint64(32))
    return Sets((keys & np.uint64(0xFFFFFFFF)).astype(np.uint32), at)


def distinct(values: np.ndarray) -> np.ndarray:
    """The values, sorted, without repeats; several times faster than NumPy's own, which hashes."""
    ordered = np.sort(values)
    unique: np.ndarray = ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]]
    return unique


def is_in(values: np.ndarray, ordered: np.ndarray) -> np.ndarray:
    """For each value whether it stands in a sorted array."""
    if not len(ordered):
        return np.zeros(len(values), bool)
    member: np.ndarray = ordered[np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)] == values
    return member


def _judge(letters: np.ndarray, kind: np.ndarray, cut: np.ndarray) -> None:
    """Say what letters beyond ASCII are, in all their bytes, and where words end although letters follow."""
    first = np.flatnonzero(letters >= 0xC0)
    size = 2 + (letters[first] >= 0xE0) + (letters[first] >= 0xF0)
    code = letters[first] & (0xFF >> size + 1)
    code = code.astype(np.uint32)
    for place in range(1, 4):
        more = size > place
        code[more] = code[more] << 6 | letters[first[more] + place] & 0x3F
    for new in np.unique(code[_KINDS[code] == _UNKNOWN]).tolist():
        _KINDS[new] = _kind(chr(new))
    kinds = _KINDS[code]
    for place in range(4):
        more = size > place
        kind[first[more] + place] = kinds[more]
    alone = kinds >= _IDEOGRAPH
    cut[first[alone]] = cut[first[alone] + size[alone]] = True


def _hash_spans(joined: bytes, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Digests of spans, eight bytes at a time; of long ones by xxHash."""
    sizes = ends - starts
    windows = np.ndarray(len(joined) - 7, "<u8", joined, strides=(1,))
    out = windows[starts] & _MASKS[np.minimum(sizes, 8)]
    rows, read = np.flatnonzero(sizes > 8), 8
    while len(rows) and read < _LONG:
        out[rows] = _mixed(out[rows]) + (windows[starts[rows] + read] & _MASKS[np.minimum(sizes[rows] - read, 8)])
        read += 8
        rows = rows[sizes[rows] > read]
    for row in rows:
        out[row] = xxhash.xxh3_64_intdigest(joined[starts[row] : ends[row]])
    return _mixed(out)


def _mixed(values: np.ndarray) -> np.ndarray:
    """Numbers whose bits all depend on all bits of the given ones, by splitmix64's finisher."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        values = (values ^ values >> np.uint64(shift)) * np.uint64(factor)
    return values


def _kind(letter: str) -> int:
    """What a letter of Unicode is: part of a word, a digit, an ideograph."""
    if re.match(f"[{_IDEOGRAPHS}]", letter):
        return _LETTER | _IDEOGRAPH
    return letter.isalnum() * _LETTER | letter.isdigit() * _DIGIT


_ASCII = np.array([_kind(chr(code)) if code < 128 else 0 for code in range(256)], np.uint8)
_KINDS = np.full(0x110000, _UNKNOWN, np.uint8)
"""What letters are, found out when they are met."""
