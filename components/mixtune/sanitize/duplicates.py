"""What a record says, for comparison: its own identity, and what of a benchmark stands in it."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import xxhash

from mixtune.records import Record

_WORD = re.compile(r"\w+")
NGRAM = 13
COVERAGE = 0.5
"""Share of a benchmark item's 13-grams in one record from which on the record counts as a copy. Any single shared
13-gram would flag templated text by the thousand."""


def words(text: str) -> list[str]:
    """Lower-case words, without punctuation and spacing."""
    return _WORD.findall(text.lower())


def text_key(text: str) -> int:
    """A 64-bit digest of a text's words."""
    return xxhash.xxh3_64_intdigest(" ".join(words(text)).encode())


def record_key(record: Record) -> int:
    """A 64-bit digest of what a record says, whatever its case, punctuation and spacing."""
    return text_key("\n".join(f"{message['role']} {message['content']}" for message in record["messages"]))


@dataclass
class Benchmarks:
    """Items that no training record may repeat."""

    exact: set[int] = field(default_factory=set)
    """Digests of whole prompts."""
    items: dict[int, list[int]] = field(default_factory=dict)
    """Items by the digest of a 13-gram."""
    sizes: list[int] = field(default_factory=list)
    """Number of different 13-grams by item."""

    def add(self, prompt: str) -> None:
        """Take an item."""
        self.exact.add(text_key(prompt))
        grams = _grams(words(prompt))
        if grams:
            for gram in grams:
                self.items.setdefault(gram, []).append(len(self.sizes))
            self.sizes.append(len(grams))

    def holds(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts is an item, or holds most of one."""
        for text in texts:
            if text_key(text) in self.exact:
                return True
            found: dict[int, int] = {}
            for gram in _grams(words(text)) if self.items else ():
                for item in self.items.get(gram, ()):
                    found[item] = found.get(item, 0) + 1
            if any(count >= COVERAGE * self.sizes[item] for item, count in found.items()):
                return True
        return False


def _grams(tokens: list[str]) -> set[int]:
    """Digests of a text's 13-grams; none where it is shorter."""
    return {
        xxhash.xxh3_64_intdigest(" ".join(tokens[start : start + NGRAM]).encode())
        for start in range(len(tokens) - NGRAM + 1)
    }
