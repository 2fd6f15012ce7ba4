"""Near-duplicates: MinHash bands propose pairs, exact Jaccard over five-word shingles decides.

What is kept apart on purpose, since a false drop is a lost record: text that more than `COMMON` records share is a
template and no evidence; questions whose numbers differ are different questions; and records whose answers or labels
differ are conflicts, not duplicates.

Records are looked at in blocks that can be read again, so that memory holds 21 numbers of each, and the words of those
alone that may be copies.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from mixtune.sanitize.words import Sets, distinct

BANDS, ROWS = 21, 6
"""At a Jaccard similarity of 0.8 a pair is proposed with probability 1 - (1 - 0.8^6)^21 = 0.998."""
COMMON = 20
"""Records in which a shingle may stand before it counts as a template's; also the largest bucket that is followed."""
_POWERS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, ROWS + 2)], np.uint64)
_MARGIN = 0.25
_SAMPLE = 100_000

Blocks = Callable[[], Iterator[dict[str, np.ndarray]]]
"""Reads the records in order, some at a time: `minhash` uint32 (records, BANDS * ROWS), `numbers` (digests of the
numbers in the questions), and shingles: `question`, `question_at`, `answer`, `answer_at`."""
Propose = Callable[[Iterable[np.ndarray]], np.ndarray]
"""Pairs of records, int64 (pairs, 2), sorted, the smaller number first, that share a bucket in which at most COMMON
records are; from blocks of the records' buckets, uint64 (records, BANDS)."""


@dataclass(frozen=True)
class Pair:
    """Two records whose questions are nearly the same; `first` < `second`."""

    first: int
    second: int
    similarity: float
    """Jaccard similarity of the questions, templates left out."""
    same_answer: bool


def find_pairs(blocks: Blocks, total: int, threshold: float, propose: Propose) -> Iterator[Pair]:
    """Verified pairs, in order.

    Args:
        blocks: The records.
        total: How many they are.
        threshold: Least Jaccard similarity, above 0 to 1.
        propose: What finds candidates among the buckets: `propose_in_memory`, or Daft's.
    """
    numbers: list[np.ndarray] = []
    sampled: list[np.ndarray] = []

    def buckets() -> Iterator[np.ndarray]:
        at, every = 0, -(-total // _SAMPLE) or 1
        for block in blocks():
            numbers.append(block["numbers"])
            questions = Sets(block["question"], block["question_at"])
            size = len(block["numbers"])
            sampled.append(_chosen(questions, np.arange(-at % every, size, every)).flat)
            at += size
            yield make_buckets(block["minhash"])

    pairs = propose(buckets())
    if len(pairs):
        digests = np.concatenate(numbers)
        pairs = pairs[digests[pairs[:, 0]] == digests[pairs[:, 1]]]
    if len(pairs):
        common = _common(np.concatenate(sampled))
        sampled.clear()
        yield from _verified(blocks, pairs, common, threshold)


def make_buckets(minhash: np.ndarray) -> np.ndarray:
    """A digest for every band of every record, uint64 (records, BANDS); two bands' are never compared."""
    band = np.arange(1, BANDS + 1, dtype=np.uint64) * _POWERS[ROWS]
    values = minhash.reshape(len(minhash), BANDS, ROWS).astype(np.uint64)
    total: np.ndarray = (values * _POWERS[:ROWS]).sum(axis=2) + band
    total ^= total >> np.uint64(29)
    return total


def propose_in_memory(buckets: Iterable[np.ndarray]) -> np.ndarray:
    """Candidates by sorting each band (see `Propose`)."""
    table = np.concatenate([np.empty((0, BANDS), np.uint64), *buckets])
    total, found = len(table), [np.empty(0, np.int64)]
    for band in range(BANDS):
        order = np.argsort(table[:, band], kind="stable")
        ordered = table[order, band]
        bucket = np.cumsum(np.concatenate([[0], ordered[1:] != ordered[:-1]]))[:total]
        sizes = np.bincount(bucket)[bucket]
        kept = (sizes > 1) & (sizes <= COMMON)
        order, bucket = order[kept], bucket[kept]
        for step in range(1, COMMON):
            same = bucket[step:] == bucket[:-step]
            if not same.any():
                break
            found.append(order[:-step][same] * total + order[step:][same])
        found = [distinct(np.concatenate(found))]
    return np.stack(np.divmod(found[0], max(1, total)), axis=1)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Exact Jaccard similarity of two sets, 0 to 1; 0 where both are empty."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(1, len(one) + len(other) - shared)


def _verified(blocks: Blocks, pairs: np.ndarray, common: np.ndarray, threshold: float) -> Iterator[Pair]:
    rows = distinct(pairs.ravel())
    minhash, questions, answers = _read(blocks, rows)
    questions = _without(questions, common)
    for block in np.array_split(pairs, len(pairs) // 50_000 + 1):
        at = np.searchsorted(rows, block)
        alike = (minhash[at[:, 0]] == minhash[at[:, 1]]).mean(axis=1) >= threshold - _MARGIN
        for (first, second), (one, other) in zip(block[alike].tolist(), at[alike].tolist(), strict=True):
            similarity = jaccard(questions[one], questions[other])
            if similarity >= threshold:
                yield Pair(first, second, similarity, jaccard(answers[one], answers[other]) >= threshold)


def choose(block: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Some records of a block."""
    out = {name: block[name][rows] for name in ("numbers", "minhash")}
    for name in ("question", "answer"):
        sets = _chosen(Sets(block[name], block[f"{name}_at"]), rows)
        out |= {name: sets.flat, f"{name}_at": sets.at}
    return out


def _read(blocks: Blocks, rows: np.ndarray) -> tuple[np.ndarray, Sets, Sets]:
    """MinHash values, questions and answers of some records."""
    minhash, parts, at = [], dict[str, list[Sets]](question=[], answer=[]), 0
    for block in blocks():
        size = len(block["numbers"])
        mine = rows[np.searchsorted(rows, at) : np.searchsorted(rows, at + size)] - at
        minhash.append(block["minhash"][mine])
        for name, sets in parts.items():
            sets.append(_chosen(Sets(block[name], block[f"{name}_at"]), mine))
        at += size
    return np.concatenate(minhash), _joined(parts["question"]), _joined(parts["answer"])


def _chosen(sets: Sets, rows: np.ndarray) -> Sets:
    sizes = np.diff(sets.at)[rows]
    at = np.concatenate([[0], np.cumsum(sizes)])
    return Sets(sets.flat[np.arange(at[-1]) + np.repeat(sets.at[rows] - at[:-1], sizes)], at)


def _joined(sets: list[Sets]) -> Sets:
    sizes = np.concatenate([np.diff(item.at) for item in sets])
    return Sets(np.concatenate([item.flat for item in sets]), np.concatenate([[0], np.cumsum(sizes)]))


def _without(sets: Sets, common: np.ndarray) -> Sets:
    kept = ~np.isin(sets.flat, common)
    return Sets(sets.flat[kept], np.concatenate([[0], np.cumsum(kept)])[sets.at])


def _common(flat: np.ndarray) -> np.ndarray:
    """Shingles in more than COMMON records, sorted; where there are very many records, of an even sample."""
    flat.sort()
    return distinct(flat[COMMON:][flat[COMMON:] == flat[:-COMMON]])
