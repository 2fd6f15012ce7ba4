"""Which records of a pool are held back: seeded, by label where there are labels, groups kept together."""

import random
from array import array
from collections import Counter

import numpy as np

from mixtune.errors import DataError


def draw_split(labels: np.ndarray, groups: np.ndarray, wanted: int, seed: str) -> np.ndarray:
    """Which records to hold back, bool (records,).

    Every label gives its share of them, at least one where it has three records or more, so that no class is missing
    from what is measured. Records of one group go together, with the label of the group's first.

    Args:
        labels: Digests of the records' labels, uint64; 0 where they have none.
        groups: The records' groups, numbers of any kind.
        wanted: Number of records to hold back, about: shares are rounded, groups are whole.
        seed: The same seed, the same choice.
    """
    _, firsts, unit, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort([firsts, labels[firsts]])
    found, starts, counts = np.unique(labels[firsts[order]], return_index=True, return_counts=True)
    held, share, due = np.zeros(len(firsts), bool), wanted / max(1, len(labels)), 0.0
    for label, at in sorted(zip(found.tolist(), range(len(found)), strict=True), key=lambda item: str(item[0])):
        candidates = array("q", order[starts[at] : starts[at] + counts[at]].tobytes())
        random.Random(f"{seed} {label}").shuffle(candidates)
        size = int(sizes[candidates].sum())
        due += share * size
        least = 1 if size >= 3 and wanted else 0
        taken = 0
        for candidate in candidates:
            members = int(sizes[candidate])
            if taken >= least and due < members / 2:
                break
            held[candidate] = True
            taken += members
            due -= members
    return held[unit]


def check_not_empty(pool: str, split: str, size: int, total: int, dropped: Counter[str]) -> None:
    """Refuse a split without records.

    Raises:
        DataError: It is empty.
    """
    if size == 0:
        why = "".join(f"; {number:,} dropped: {reason}" for reason, number in dropped.most_common(3))
        raise DataError(
            f"pool {pool!r}: of its {total} records none is left for {split!r}{why}; give more records or no split"
        )
