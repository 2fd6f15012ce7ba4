"""What records say, in numbers: word by word, so that copies, near copies and benchmark items can be found."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import xxhash

from mixtune.ngrams import NGRAM, Sets, Words, distinct, hash_ngrams, hash_words, is_in, shingle_sets, words
from mixtune.records import Message, Record
from mixtune.sanitize.dedup.minhash import COMMON

COVERAGE = 0.5
"""Share of a benchmark item's 13-grams in one record from which on the record counts as a copy. Any single shared
13-gram would flag templated text by the thousand."""
BATCH = 256
"""Texts or records whose words are hashed at once."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What some records say, whatever its case, punctuation and spacing."""

    keys: list[tuple[int, int, int]]
    """By record: digests of question and answer, of the question (everything but the last answer), and of the numbers
    in it, in order; the question without system messages for the numbers."""
    words: Words
    """The words of the records' messages, in the order of `records`' messages but system messages first."""
    contents: np.ndarray
    """Which texts of `words` are the contents of messages."""
    owners: np.ndarray
    """The record of each of them."""
    spans: np.ndarray
    """Where question and answer begin and end in the words, (records, 2, 2)."""

    def shingles(self, part: int) -> Sets:
        """Shingles of the questions (0), or of the answers with their labels (1)."""
        return shingle_sets(self.words.flat, self.spans[:, part, 0], self.spans[:, part, 1])


def read_out(records: Sequence[Record]) -> Said:
    """What records say."""
    texts: list[str] = []
    contents, owners, bounds = list[int](), list[int](), []
    for number, record in enumerate(records):
        *turns, last = record["messages"]
        begin = len(texts)
        texts += [turn["content"] for turn in turns if turn["role"] == "system"]
        contents += range(begin, len(texts))
        asked = len(texts)
        for turn in turns:
            if (role := turn["role"]) != "system":
                texts += role, turn["content"]
                contents.append(len(texts) - 1)
        contents.append(len(texts))
        owners += [number] * len(record["messages"])
        bounds.append((begin, asked, len(texts), len(texts) + 2))
        texts += last["content"], f"{record.get('label', '')} {_called(last)}"
    found = hash_words(texts)
    at = found.at[np.array(bounds).reshape(len(records), 4)]
    return Said(
        keys=[_keys(found, *row) for row in at.tolist()],
        words=found,
        contents=np.array(contents),
        owners=np.array(owners),
        spans=np.stack([at[:, 1:3], at[:, 2:4]], axis=1),
    )


def _keys(found: Words, begin: int, asked: int, answered: int, end: int) -> tuple[int, int, int]:
    flat, question = found.flat, found.flat[asked:answered]
    numbers = question[found.numeric[asked:answered]]
    return (
        _digest(flat[begin:end], answered - asked << 32 | asked - begin),
        _digest(flat[begin:answered], asked - begin),
        _digest(numbers),
    )


def _called(message: Message) -> str:
    if "tool_calls" not in message:
        return ""
    return " ".join(f"{call['name']} {call['arguments']}" for call in message["tool_calls"])


def _digest(found: np.ndarray, seed: int = 0) -> int:
    return xxhash.xxh3_64_intdigest(found.data, seed)


def holds_label(record: Record) -> bool:
    """Whether the words of a record's label stand in its question."""
    if "label" not in record or not (label := " ".join(words(record["label"]))):
        return False
    asked = " ".join(words(" ".join(message["content"] for message in record["messages"][:-1])))
    return f" {label} " in f" {asked} "


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

    def hold(self, found: Words, chosen: np.ndarray) -> np.ndarray:
        """For each of the chosen texts whether it is an item, or holds most of one; bool (chosen,)."""
        held = np.zeros(len(chosen), bool)
        if not len(self.exact):
            return held
        begins, sizes = found.at[chosen], found.at[chosen + 1] - found.at[chosen]
        whole = np.array([_digest(found[text]) for text in chosen], np.uint64)
        held |= (sizes > 0) & is_in(whole, self.exact)
        every = hash_ngrams(found.flat, NGRAM)
        place = np.flatnonzero(is_in(every, self.known))
        text = np.searchsorted(begins, place, "right") - 1
        inside = (text >= 0) & (place + NGRAM <= (begins + sizes)[text])
        for number in np.unique(text[inside]):
            known = np.searchsorted(self.known, distinct(every[place[inside & (text == number)]]))
            owners = np.concatenate([self.owner[self.at[item] : self.at[item + 1]] for item in known])
            items, counts = np.unique(owners, return_counts=True)
            held[number] |= (counts >= COVERAGE * self.sizes[items]).any()
        return held


def index_items(texts: Iterable[str]) -> Items:
    """Index texts as items that no training record may repeat."""
    exact, found = list[int](), [np.empty(0, np.uint64)]
    texts = iter(texts)
    while batch := list(islice(texts, BATCH)):
        hashed = hash_words(batch)
        exact += [_digest(hashed[number]) for number in range(len(batch))]
        found += [distinct(hash_ngrams(hashed[number], NGRAM)) for number in range(len(batch))]
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
