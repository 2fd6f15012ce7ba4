"""What a record says, in numbers: word by word, so that copies, near copies and benchmark items can be found.

Words are hashed once; runs of five (shingles) and of thirteen are sums over those hashes, computed for a whole text
at a time.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import xxhash

from mixtune.records import Record
from mixtune.sanitize.near import COMMON

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


def holds_label(record: Record) -> bool:
    """Whether the words of a record's label stand in its question."""
    label = " ".join(words(record.get("label", "")))
    asked = " ".join(words(" ".join(message["content"] for message in record["messages"][:-1])))
    return bool(label) and f" {label} " in f" {asked} "


@dataclass(frozen=True, kw_only=True)
class Items:
    """Texts that no training record may repeat, indexed by their 13-grams."""

    exact: np.ndarray
    """Digests of whole texts, uint64, sorted."""
    known: np.ndarray
    """13-grams, uint64, sorted; those of more than COMMON items are a template's and left out."""
    at: np.ndarray
    """Offsets into `owner` by 13-gram, (13-grams + 1,)."""
    owner: np.ndarray
    """The items that hold a 13-gram."""
    sizes: np.ndarray
    """Number of different 13-grams by item, (items,)."""

    def hold(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts is an item, or holds most of one."""
        for text in texts if len(self.exact) else ():
            hashes = hash_words(words(text))
            if len(hashes) and _is_in(np.array([_digest(hashes)], np.uint64), self.exact)[0]:
                return True
            runs = grams(hashes, NGRAM)
            places = np.searchsorted(self.known, runs[_is_in(runs, self.known)])
            owners = [self.owner[self.at[place] : self.at[place + 1]] for place in places]
            items, counts = np.unique(np.concatenate(owners or [self.owner[:0]]), return_counts=True)
            if (counts >= COVERAGE * self.sizes[items]).any():
                return True
        return False


def index_items(texts: Iterable[str]) -> Items:
    """Index texts as items that no training record may repeat."""
    exact, found = [], [np.empty(0, np.uint64)]
    for text in texts:
        hashes = hash_words(words(text))
        exact.append(_digest(hashes))
        found.append(grams(hashes, NGRAM))
    flat = np.concatenate(found)
    owner = np.repeat(np.arange(-1, len(exact)), [len(item) for item in found])
    order = np.argsort(flat, kind="stable")
    known, counts = np.unique(flat[order], return_counts=True)
    rare = counts <= COMMON
    kept = np.repeat(rare, counts)
    owner = owner[order][kept]
    return Items(
        exact=np.unique(np.array(exact, np.uint64)),
        known=known[rare],
        at=np.concatenate([[0], np.cumsum(counts[rare])]),
        owner=owner,
        sizes=np.bincount(owner, minlength=len(exact)),
    )


def _is_in(values: np.ndarray, known: np.ndarray) -> np.ndarray:
    """For each value whether it stands in a sorted array."""
    if not len(known):
        return np.zeros(len(values), bool)
    found: np.ndarray = known[np.minimum(np.searchsorted(known, values), len(known) - 1)] == values
    return found
