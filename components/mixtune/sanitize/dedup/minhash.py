"""Near-duplicates: MinHash bands propose pairs, exact Jaccard over five-word shingles decides.

A false drop is a lost record, so three things are kept apart. Text that more than `COMMON` records share is a template:
questions have to be alike with it and without it. Questions whose numbers differ are different questions. Records whose
answers or labels differ are conflicts, not duplicates.

Records are read in blocks, several times, so that memory holds a few bytes of each, and shingles only of likely copies.
Method: Broder 1997 (MinHash), Indyk and Motwani 1998 (bands).
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
"""Similarity below the threshold down to which an estimate, or a similarity with templates, rules a pair in."""
_SKETCH = 63
"""MinHash values of which a byte each stays in memory, to estimate how alike two records are."""
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
    """Yield verified pairs of at least a Jaccard similarity, above 0 to 1, in order.

    `propose` finds candidates among the buckets: `propose_in_memory`, or Daft's.
    """
    pairs = _likely_pairs(blocks, threshold, propose)
    if not len(records := distinct(pairs.ravel())):
        return
    # (pairs,) similarity with templates first: it needs no counting, and few pairs survive it
    questions = _read_sets(blocks, "question", records)
    with_template = jaccard(questions, np.searchsorted(records, pairs))
    pairs, with_template = (values[with_template >= threshold - _MARGIN] for values in (pairs, with_template))
    if not len(remaining := distinct(pairs.ravel())):
        return
    # from here on pairs are places in `remaining`, whose sets lie in the same order
    places, questions = np.searchsorted(remaining, pairs), keep(questions, is_in(records, remaining))
    similarity = jaccard(_without(questions, _common(blocks, distinct(questions.flat))), places)
    same_answer = jaccard(_read_sets(blocks, "answer", remaining), places) >= threshold
    for number in np.flatnonzero(similarity >= threshold):
        yield Pair(
            first=int(pairs[number, 0]),
            second=int(pairs[number, 1]),
            similarity=float(similarity[number]),
            same_answer=bool(same_answer[number]),
            same_template=bool(with_template[number] >= threshold),
        )


def _likely_pairs(blocks: Blocks, threshold: float, propose: Propose) -> np.ndarray:
    """Return candidates with the same numbers in their questions whose sketches are alike, int64 (pairs, 2)."""
    numbers, sketches = [np.empty(0, np.uint64)], [np.empty((0, _SKETCH), np.uint8)]

    def buckets() -> Iterator[np.ndarray]:
        for block in blocks(("minhash", "numbers")):
            numbers.append(block["numbers"])
            sketches.append(block["minhash"][:, :_SKETCH].astype(np.uint8))
            yield make_buckets(block["minhash"], block["numbers"])

    pairs = propose(buckets())
    digests, values = np.concatenate(numbers), np.concatenate(sketches)
    is_likely = np.empty(len(pairs), bool)
    for start in range(0, len(pairs), _PAIRS):
        first, second = pairs[start : start + _PAIRS].T
        alike = (values[first] == values[second]).mean(axis=1) >= threshold - _MARGIN
        is_likely[start : start + _PAIRS] = alike & (digests[first] == digests[second])
    return pairs[is_likely]


def make_buckets(minhash: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return for every band of every record a digest of it and of the numbers, uint32 (records, BANDS)."""
    values = minhash.reshape(len(minhash), BANDS, ROWS)
    total = np.repeat(numbers[:, None] * _POWERS[ROWS], BANDS, axis=1)
    for row in range(ROWS):
        total += values[:, :, row] * _POWERS[row]
    total ^= total >> np.uint64(29)
    total *= _POWERS[0]
    return (total >> np.uint64(32)).astype(np.uint32)


def propose_in_memory(buckets: Iterable[np.ndarray]) -> np.ndarray:
    """Return candidates by sorting each band (see `Propose`)."""
    table = list(buckets)
    total, pairs = sum(map(len, table)), np.empty(0, np.int64)
    for band in range(BANDS if total else 0):
        # (records,) bucket in the high half, record in the low one: sorted, a bucket's records are neighbours
        keys = np.concatenate([block[:, band] for block in table]).astype(np.uint64) << np.uint64(32)
        keys |= np.arange(total, dtype=np.uint64)
        keys.sort()
        starts = np.flatnonzero(np.diff(keys >> np.uint64(32), prepend=np.uint64(2**33)))
        sizes = np.diff(starts, append=total)
        is_followed = (sizes > 1) & (sizes <= COMMON)
        rows = (keys[np.repeat(is_followed, sizes)] & _LOW).astype(np.int64)
        bucket = np.repeat(starts[is_followed], sizes[is_followed])
        # every pair of a bucket is `step` apart for one step below COMMON; a pair is one number, first * total + second
        band_pairs = [pairs]
        for step in range(1, min(COMMON, len(rows))):
            same = bucket[step:] == bucket[:-step]
            if not same.any():
                break
            band_pairs.append(rows[:-step][same] * total + rows[step:][same])
        pairs = distinct(np.concatenate(band_pairs))
    return np.stack(np.divmod(pairs, max(1, total)), axis=1)


def jaccard(sets: Sets, pairs: np.ndarray) -> np.ndarray:
    """Return the exact Jaccard similarity of pairs of sets, (pairs, 2) of their numbers; 0 to 1, 0 for empty ones."""
    similarities = [_jaccard(sets, pairs[start : start + _PAIRS]) for start in range(0, len(pairs), _PAIRS)]
    return np.concatenate([np.empty(0), *similarities])


def _jaccard(sets: Sets, pairs: np.ndarray) -> np.ndarray:
    # (elements of both sides,) pair in the high half, element in the low one: what both have stands twice
    pair = np.arange(len(pairs), dtype=np.uint64) << np.uint64(32)
    sides = [_take(sets, numbers) for numbers in pairs.T]
    keys = np.concatenate([np.repeat(pair, np.diff(side.at)) | side.flat for side in sides])
    keys.sort(kind="stable")  # two sorted runs: merged in linear time
    owner = (keys >> np.uint64(32)).astype(np.int64)
    shared = np.bincount(owner[1:][keys[1:] == keys[:-1]], minlength=len(pairs))
    similarity: np.ndarray = shared / np.maximum(1, np.bincount(owner, minlength=len(pairs)) - shared)
    return similarity


def keep(sets: Sets, chosen: np.ndarray) -> Sets:
    """Return some of the sets: `chosen` is bool (sets,)."""
    sizes = np.diff(sets.at)
    return Sets(sets.flat[np.repeat(chosen, sizes)], np.concatenate([[0], np.cumsum(sizes[chosen])]))


def _take(sets: Sets, numbers: np.ndarray) -> Sets:
    """Return some of the sets, in the order of their `numbers`, which may repeat."""
    sizes = np.diff(sets.at)[numbers]
    at = np.concatenate([[0], np.cumsum(sizes)])
    return Sets(sets.flat[np.arange(at[-1]) + np.repeat(sets.at[numbers] - at[:-1], sizes)], at)


def _read_sets(blocks: Blocks, name: str, records: np.ndarray) -> Sets:
    """Return a set of some records, by their sorted numbers."""
    flat, sizes, start = [], [np.zeros(1, np.int64)], 0
    for block in blocks((name, f"{name}_at")):
        sets = Sets(block[name], block[f"{name}_at"])
        end = start + len(sets.at) - 1
        chosen = np.zeros(end - start, bool)
        chosen[records[np.searchsorted(records, start) : np.searchsorted(records, end)] - start] = True
        chosen_sets = keep(sets, chosen)
        flat.append(chosen_sets.flat)
        sizes.append(np.diff(chosen_sets.at))
        start = end
    return Sets(np.concatenate(flat), np.cumsum(np.concatenate(sizes)))


def _common(blocks: Blocks, shingles: np.ndarray) -> np.ndarray:
    """Return which of the shingles, given sorted, stand in more than COMMON records."""
    counts, prefixes = np.zeros(len(shingles), np.uint32), np.zeros(2**24, bool)
    prefixes[shingles >> 8] = True
    for block in blocks(("question", "question_at")):
        for start in range(0, len(block["question"]), _SHINGLES):
            # a record's set holds a shingle once, so that equal neighbours of the sorted values count its records
            values = block["question"][start : start + _SHINGLES]
            values = np.sort(values[prefixes[values >> 8]])  # most that are not looked for go here
            starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]])[: len(values)])
            place = np.minimum(np.searchsorted(shingles, values[starts]), len(shingles) - 1)
            is_match = shingles[place] == values[starts]
            counts[place[is_match]] += np.diff(starts, append=len(values))[is_match].astype(np.uint32)
    return shingles[counts > COMMON]


def _without(sets: Sets, common: np.ndarray) -> Sets:
    """Return the sets without some of their elements."""
    stays = np.empty(len(sets.flat), bool)
    for start in range(0, len(stays), _SHINGLES):
        stays[start : start + _SHINGLES] = ~is_in(sets.flat[start : start + _SHINGLES], common)
    return Sets(sets.flat[stays], sets.at - np.searchsorted(np.flatnonzero(~stays), sets.at))
