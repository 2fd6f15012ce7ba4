"""Texts scanned together: one scan over all of them says which few need a closer look."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Texts:
    """Some texts, and all of them as one."""

    texts: Sequence[str]
    joined: bytes
    """In UTF-8, a line end after each."""
    ends: list[int]
    """Where the next one begins, by text."""

    def owners(self, places: Iterable[int]) -> set[int]:
        """Return the numbers of the texts that these places of `joined` are in."""
        return {bisect_right(self.ends, place) for place in places}

    def matches(self, pattern: re.Pattern[bytes]) -> set[int]:
        """Return the numbers of the texts in which a match of a compiled pattern begins."""
        owners, at = set(), 0
        while match := pattern.search(self.joined, at):
            owner = bisect_right(self.ends, match.start())
            owners.add(owner)
            at = self.ends[owner]
        return owners


def join_texts(texts: Sequence[str]) -> Texts:
    """Join texts to be scanned together."""
    encoded = [text.encode(errors="surrogatepass") for text in texts]
    return Texts(texts, b"\n".join([*encoded, b""]), list(accumulate(len(text) + 1 for text in encoded)))
