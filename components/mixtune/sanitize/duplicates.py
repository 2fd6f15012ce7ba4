"""What a record says, in numbers: word by word, so that copies, near copies and benchmark items can be found.

Words are hashed once; runs of five (shingles) and of thirteen are sums over those hashes, computed for a whole text
at a time.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import xxhash

from mixtune.records import Record

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
NGRAM = 13
COVERAGE = 0.5
"""Share of a benchmark item's 13-grams in one record from which on the record counts as a copy. Any single shared
13-gram would flag templated text by the thousand."""
SHINGLE = 5
"""Words of a shingle, the unit of near-duplicates."""
_MULTIPLIER = 0x9E3779B97F4A7C15
_POWERS = np.array([pow(_MULTIPLIER, power, 2**64) for power in range(1, NGRAM + 1)], np.uint64)
_HASHES: dict[str, int] = {}
_MAX_HASHES = 1_000_000


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation and spacing; an ideograph is a word."""
    return _WORD.findall(text.lower())


def hash_words(found: list[str]) -> np.ndarray:
    """64-bit digests of words, uint64 (words,)."""
    if len(_HASHES) > _MAX_HASHES:
        _HASHES.clear()
    try:
        return np.array([_HASHES[word] for word in found], np.uint64)
    except KeyError:
        for word in found:
            if word not in _HASHES:
                _HASHES[word] = xxhash.xxh3_64_intdigest(word.encode())
        return np.array([_HASHES[word] for word in found], np.uint64)


def grams(hashes: np.ndarray, size: int) -> np.ndarray:
    """Digests of all runs of `size` words, uint64, sorted and without repeats; none where there are fewer words."""
    length = len(hashes) - size + 1
    if length < 1:
        return np.empty(0, np.uint64)
    total = np.zeros(length, np.uint64)
    for place in range(size):
        total += hashes[place : place + length] * _POWERS[place]
    return np.unique(total ^ (total >> np.uint64(29)))


def shingles(hashes: np.ndarray) -> np.ndarray:
    """Digests of runs of five words, the ends padded so that each word counts alike; uint32, sorted."""
    if not len(hashes):
        return np.empty(0, np.uint32)
    edge = np.zeros(SHINGLE - 1, np.uint64)
    mixed = grams(np.concatenate([edge, hashes, edge]), SHINGLE) * np.uint64(_MULTIPLIER)
    return np.unique((mixed >> np.uint64(32)).astype(np.uint32))


@dataclass(frozen=True)
class Said:
    """What one record says."""

    key: int
    """Digest of question and answer."""
    prompt: int
    """Digest of the question: everything but system messages and the last answer."""
    numbers: int
    """Digest of the numbers in the question, in order."""
    question: np.ndarray
    """Shingles of the question."""
    answer: np.ndarray
    """Shingles of the answer, and of its label."""


def said(record: Record) -> Said:
    """What a record says, whatever its case, punctuation and spacing."""
    *turns, last = record["messages"]
    asked = [word for turn in turns if turn["role"] != "system" for word in (turn["role"], *words(turn["content"]))]
    system = [word for turn in turns if turn["role"] == "system" for word in words(turn["content"])]
    answered = words(" ".join((last["content"], record.get("label", ""), _called(record))))
    question, answer = hash_words(asked), hash_words(answered)
    prompt = _digest(question, hash_words(system))
    numbers = _digest(hash_words([word for word in asked if not word.isalpha() and any(map(str.isdigit, word))]))
    return Said(_digest(question, hash_words(system), answer), prompt, numbers, shingles(question), shingles(answer))


def _called(record: Record) -> str:
    return " ".join(f"{call['name']} {call['arguments']}" for call in record["messages"][-1].get("tool_calls", []))


def _digest(*parts: np.ndarray) -> int:
    return xxhash.xxh3_64_intdigest(b"\0".join(part.tobytes() for part in parts))


@dataclass
class Benchmarks:
    """Items that no training record may repeat."""

    exact: set[int] = field(default_factory=set)
    """Digests of whole prompts."""
    items: dict[int, list[int]] = field(default_factory=dict)
    """Items by the digest of a 13-gram."""
    sizes: list[int] = field(default_factory=list)
    """Number of different 13-grams by item."""
    known: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    """All 13-grams, sorted; set by `ready`."""

    def add(self, prompt: str) -> None:
        """Take an item."""
        hashes = hash_words(words(prompt))
        self.exact.add(_digest(hashes))
        runs = grams(hashes, NGRAM).tolist()
        if runs:
            for gram in runs:
                self.items.setdefault(gram, []).append(len(self.sizes))
            self.sizes.append(len(runs))

    def ready(self) -> "Benchmarks":
        """Call it when all items are in."""
        self.known = np.array(sorted(self.items), np.uint64)
        return self

    def holds(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts is an item, or holds most of one."""
        if not self.exact:
            return False
        for text in texts:
            hashes = hash_words(words(text))
            if _digest(hashes) in self.exact:
                return True
            runs = grams(hashes, NGRAM)
            if not len(runs) or not len(self.known):
                continue
            places = np.minimum(np.searchsorted(self.known, runs), len(self.known) - 1)
            found: dict[int, int] = {}
            for gram in runs[self.known[places] == runs].tolist():
                for item in self.items[gram]:
                    found[item] = found.get(item, 0) + 1
            if any(count >= COVERAGE * self.sizes[item] for item, count in found.items()):
                return True
        return False
