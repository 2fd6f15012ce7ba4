"""Near-duplicates: MinHash bands propose pairs, exact Jaccard over five-word shingles decides.

What is kept apart on purpose, since a false drop is a lost record: text that more than `COMMON` records share is a
template and no evidence; questions whose numbers differ are different questions; and records whose answers or labels
differ are conflicts, not duplicates.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mixtune.sanitize.words import Sets

BANDS, ROWS = 21, 6
"""At a Jaccard similarity of 0.8 a pair is proposed with probability 1 - (1 - 0.8^6)^21 = 0.998."""
COMMON = 20
"""Records in which a shingle may stand before it counts as a template's; also the largest bucket that is followed."""
_MARGIN = 0.25
_SAMPLE = 200_000


@dataclass(frozen=True)
class Pair:
    """Two records whose questions are nearly the same; `first` < `second`."""

    first: int
    second: int
    similarity: float
    """Jaccard similarity of the questions, templates left out."""
    same_answer: bool


def find_pairs(
    minhash: np.ndarray, questions: Sets, answers: Sets, numbers: np.ndarray, threshold: float
) -> Iterator[Pair]:
    """Verified pairs, in order.

    Args:
        minhash: uint32 (records, BANDS * ROWS).
        questions: Shingles of the questions.
        answers: Shingles of the answers.
        numbers: Digests of the numbers in the questions.
        threshold: Least Jaccard similarity, above 0 to 1.
    """
    common = _common_shingles(questions)
    for first, second in propose(minhash, threshold).tolist():
        if numbers[first] != numbers[second]:
            continue
        one, other = (_without(questions[index], common) for index in (first, second))
        similarity = jaccard(one, other)
        if similarity >= threshold:
            yield Pair(first, second, similarity, jaccard(answers[first], answers[second]) >= threshold)


def propose(minhash: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs that share a band and look similar by their MinHash values, int64 (pairs, 2), sorted."""
    total = len(minhash)
    found = [np.empty(0, np.int64)]
    for band in range(BANDS):
        rows = np.ascontiguousarray(minhash[:, band * ROWS : (band + 1) * ROWS]).view(f"V{4 * ROWS}").ravel()
        _, bucket = np.unique(rows, return_inverse=True)
        sizes = np.bincount(bucket)
        order = np.argsort(bucket, kind="stable")
        order = order[(sizes[bucket[order]] > 1) & (sizes[bucket[order]] <= COMMON)]
        for step in range(1, COMMON):
            one, other = order[:-step], order[step:]
            same = bucket[one] == bucket[other]
            if not same.any():
                break
            found.append(one[same].astype(np.int64) * total + other[same])
    codes = np.unique(np.concatenate(found))
    pairs = np.stack([codes // max(1, total), codes % max(1, total)], axis=1)
    agree = [
        (minhash[block[:, 0]] == minhash[block[:, 1]]).mean(axis=1)
        for block in np.array_split(pairs, max(1, len(pairs) // 50_000))
    ]
    return pairs[np.concatenate(agree) >= threshold - _MARGIN] if len(pairs) else pairs


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Exact Jaccard similarity of two sets, 0 to 1; 0 where both are empty."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / max(1, len(one) + len(other) - shared)


def _common_shingles(questions: Sets) -> np.ndarray:
    """Shingles in more than COMMON records, sorted; counted in an even sample where there are very many records."""
    total = len(questions.at) - 1
    flat = questions.flat
    if total > _SAMPLE:
        flat = np.concatenate([questions[index] for index in range(0, total, -(-total // _SAMPLE))])
    values, counts = np.unique(flat, return_counts=True)
    common: np.ndarray = values[counts > COMMON]
    return common


def _without(values: np.ndarray, common: np.ndarray) -> np.ndarray:
    if not len(common):
        return values
    places = np.minimum(np.searchsorted(common, values), len(common) - 1)
    rest: np.ndarray = values[common[places] != values]
    return rest
