"""Near-duplicates: MinHash bands propose pairs, exact Jaccard over five-word shingles decides.

What is kept apart on purpose, since a false drop is a lost record: text that more than `COMMON` records share is a
template, and questions have to be alike with it and without it (one text in two templates is two questions, and a leak
all the same); questions whose numbers differ are different questions; and records whose answers or labels differ are
conflicts, not duplicates.

Records are looked at in blocks that can be read again, so that memory holds a few bytes of each, and the words of those
alone that are probably copies.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mixtune.ngrams import Sets, distinct, is_in

BANDS, ROWS = 21, 6
"""At a Jaccard similarity of 0.8 a pair is proposed with probability 1 - (1 - 0.8^6)^21 = 0.998."""
COMMON = 20
"""Records in which a shingle may stand before it counts as a template's; also the largest bucket that is followed."""
_POWERS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, ROWS + 2)], np.uint64)
_LOW = np.uint64(0xFFFFFFFF)
_MARGIN = 0.25
_MARKS = 63
"""MinHash values of which a byte each is kept, to estimate how alike two records are."""
_PAIRS = 2**10
"""Pairs that are compared at once."""
_SHINGLES = 2**18
"""Shingles that are counted at once."""

Blocks = Callable[[Sequence[str]], Iterator[dict[str, np.ndarray]]]
"""Reads the records in order, some at a time, and of each block what is named: `minhash` uint32
(records, BANDS * ROWS), `numbers` (digests of the numbers in the questions), and sets of shingles, each with its
offsets: `question` and `question_at`, `answer` and `answer_at`."""
Propose = Callable[[Iterable[np.ndarray]], np.ndarray]
"""Pairs of records, int64 (pairs, 2), sorted, the smaller number first, that share a bucket in which at most COMMON
records are; from blocks of the records' buckets, uint32 (records, BANDS)."""


@dataclass(frozen=True)
class Pair:
    """Two records whose questions are nearly the same; `first` < `second`."""

    first: int
    second: int
    similarity: float
    """Jaccard similarity of what is left of the questions without templates."""
    same_answer: bool
    same_template: bool
    """Whether the questions are alike with their templates, too."""


def find_pairs(blocks: Blocks, threshold: float, propose: Propose) -> Iterator[Pair]:
    """Verified pairs, in order.

    Args:
        blocks: The records.
        threshold: Least Jaccard similarity, above 0 to 1.
        propose: What finds candidates among the buckets: `propose_in_memory`, or Daft's.
    """
    pairs = _likely(blocks, threshold, propose)
    if not len(rows := distinct(pairs.ravel())):
        return
    questions = _read(blocks, "question", rows)
    asked = jaccard(questions, np.searchsorted(rows, pairs))
    pairs, asked = (values[asked >= threshold - _MARGIN] for values in (pairs, asked))
    if not len(left := distinct(pairs.ravel())):
        return
    at, questions = np.searchsorted(left, pairs), keep(questions, is_in(rows, left))
    rest = _without(questions, _common(blocks, distinct(questions.flat)))
    similarity = jaccard(rest, at)
    same = jaccard(_read(blocks, "answer", left), at) >= threshold
    for number in np.flatnonzero(similarity >= threshold):
        first, second = pairs[number].tolist()
        yield Pair(first, second, float(similarity[number]), bool(same[number]), bool(asked[number] >= threshold))


def _likely(blocks: Blocks, threshold: float, propose: Propose) -> np.ndarray:
    """Candidates with the same numbers in their questions that the MinHash values estimate to be alike."""
    numbers, marks = [np.empty(0, np.uint64)], [np.empty((0, _MARKS), np.uint8)]

    def buckets() -> Iterator[np.ndarray]:
        for block in blocks(("minhash", "numbers")):
            numbers.append(block["numbers"])
            marks.append(block["minhash"][:, :_MARKS].astype(np.uint8))
            yield make_buckets(block["minhash"], block["numbers"])

    pairs = propose(buckets())
    digests, values = np.concatenate(numbers), np.concatenate(marks)
    likely = np.empty(len(pairs), bool)
    for at in range(0, len(pairs), _PAIRS):
        first, second = pairs[at : at + _PAIRS].T
        same = (values[first] == values[second]).mean(axis=1) >= threshold - _MARGIN
        likely[at : at + _PAIRS] = same & (digests[first] == digests[second])
    return pairs[likely]


def make_buckets(minhash: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """For every band of every record a digest of it and of the numbers, uint32 (records, BANDS)."""
    values = minhash.reshape(len(minhash), BANDS, ROWS)
    total = np.repeat(numbers[:, None] * _POWERS[ROWS], BANDS, axis=1)
    for row in range(ROWS):
        total += values[:, :, row] * _POWERS[row]
    total ^= total >> np.uint64(29)
    total *= _POWERS[0]
    return (total >> np.uint64(32)).astype(np.uint32)


def propose_in_memory(buckets: Iterable[np.ndarray]) -> np.ndarray:
    """Candidates by sorting each band (see `Propose`)."""
    table = list(buckets)
    total, found = sum(map(len, table)), [np.empty(0, np.int64)]
    for band in range(BANDS if total else 0):
        keys = np.concatenate([block[:, band] for block in table]).astype(np.uint64) << np.uint64(32)
        keys |= np.arange(total, dtype=np.uint64)
        keys.sort()
        starts = np.flatnonzero(np.diff(keys >> np.uint64(32), prepend=np.uint64(2**33)))
        sizes = np.diff(starts, append=total)
        kept = (sizes > 1) & (sizes <= COMMON)
        rows = (keys[np.repeat(kept, sizes)] & _LOW).astype(np.int64)
        bucket = np.repeat(starts[kept], sizes[kept])
        for step in range(1, min(COMMON, len(rows))):
            same = bucket[step:] == bucket[:-step]
            if not same.any():
                break
            found.append(rows[:-step][same] * total + rows[step:][same])
        found = [distinct(np.concatenate(found))]
    return np.stack(np.divmod(found[0], max(1, total)), axis=1)


def jaccard(sets: Sets, pairs: np.ndarray) -> np.ndarray:
    """Exact Jaccard similarity of pairs of sets, (pairs, 2) of their numbers; 0 to 1, 0 where both are empty."""
    found = [_jaccard(sets, pairs[at : at + _PAIRS]) for at in range(0, len(pairs), _PAIRS)]
    return np.concatenate([np.empty(0), *found])


def _jaccard(sets: Sets, pairs: np.ndarray) -> np.ndarray:
    pair = np.arange(len(pairs), dtype=np.uint64) << np.uint64(32)
    found = [_take(sets, rows) for rows in pairs.T]
    keys = np.concatenate([np.repeat(pair, np.diff(item.at)) | item.flat for item in found])
    keys.sort(kind="stable")  # two sorted runs: merged in linear time
    owner = (keys >> np.uint64(32)).astype(np.int64)
    shared = np.bincount(owner[1:][keys[1:] == keys[:-1]], minlength=len(pairs))
    similarity: np.ndarray = shared / np.maximum(1, np.bincount(owner, minlength=len(pairs)) - shared)
    return similarity


def keep(sets: Sets, kept: np.ndarray) -> Sets:
    """Some of the sets: `kept` is bool (sets,)."""
    sizes = np.diff(sets.at)
    return Sets(sets.flat[np.repeat(kept, sizes)], np.concatenate([[0], np.cumsum(sizes[kept])]))


def _take(sets: Sets, rows: np.ndarray) -> Sets:
    """Some of the sets, in the order of `rows`, which may repeat them."""
    sizes = np.diff(sets.at)[rows]
    at = np.concatenate([[0], np.cumsum(sizes)])
    return Sets(sets.flat[np.arange(at[-1]) + np.repeat(sets.at[rows] - at[:-1], sizes)], at)


def _read(blocks: Blocks, name: str, rows: np.ndarray) -> Sets:
    """A set of some records, by their sorted numbers."""
    flat, sizes, at = [], [np.zeros(1, np.int64)], 0
    for block in blocks((name, f"{name}_at")):
        sets = Sets(block[name], block[f"{name}_at"])
        kept = np.zeros(len(sets.at) - 1, bool)
        kept[rows[np.searchsorted(rows, at) : np.searchsorted(rows, at + len(kept))] - at] = True
        found = keep(sets, kept)
        flat.append(found.flat)
        sizes.append(np.diff(found.at))
        at += len(kept)
    return Sets(np.concatenate(flat), np.cumsum(np.concatenate(sizes)))


def _common(blocks: Blocks, known: np.ndarray) -> np.ndarray:
    """Which of the shingles, given sorted, stand in more than COMMON records."""
    counts, prefixes = np.zeros(len(known), np.uint32), np.zeros(2**24, bool)
    prefixes[known >> 8] = True
    for block in blocks(("question", "question_at")):
        for at in range(0, len(block["question"]), _SHINGLES):
            found = block["question"][at : at + _SHINGLES]
            found = np.sort(found[prefixes[found >> 8]])  # most that are not known go here
            starts = np.flatnonzero(np.concatenate([[True], found[1:] != found[:-1]])[: len(found)])
            place = np.minimum(np.searchsorted(known, found[starts]), len(known) - 1)
            held = known[place] == found[starts]
            counts[place[held]] += np.diff(starts, append=len(found))[held].astype(np.uint32)
    return known[counts > COMMON]


def _without(sets: Sets, left_out: np.ndarray) -> Sets:
    kept = np.empty(len(sets.flat), bool)
    for at in range(0, len(kept), _SHINGLES):
        kept[at : at + _SHINGLES] = ~is_in(sets.flat[at : at + _SHINGLES], left_out)
    return Sets(sets.flat[kept], sets.at - np.searchsorted(np.flatnonzero(~kept), sets.at))
