"""Which records of a pool are held back: seeded, by label where there are labels, groups kept together."""

import random
from array import array
from collections import Counter

import numpy as np

from mixtune.errors import DataError


def draw_split(labels: np.ndarray, groups: np.ndarray, size: int, seed: str) -> np.ndarray:
    """Return which records to hold back, bool (records,), about `size`: shares are rounded, groups are whole.

    Every label gives its share, at least one where it has three records or more, so that no class is missing from what
    is measured. Records of one group go together, with the label of the group's first. Both are numbers by record;
    labels are digests, uint64, 0 where a record has none.
    """
    # (groups,) first record, and number of records, of each group; `unit` is the group of each record
    _, firsts, unit, sizes = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
    order = np.lexsort([firsts, labels[firsts]])
    names, starts, counts = np.unique(labels[firsts[order]], return_index=True, return_counts=True)
    is_drawn, share, due = np.zeros(len(firsts), bool), size / max(1, len(labels)), 0.0
    for label, number in sorted(zip(names.tolist(), range(len(names)), strict=True), key=lambda item: str(item[0])):
        candidates = array("q", order[starts[number] : starts[number] + counts[number]].tobytes())
        random.Random(f"{seed} {label}").shuffle(candidates)
        num_records = int(sizes[candidates].sum())
        due += share * num_records  # what rounding left over goes to the next label
        least = 1 if num_records >= 3 and size else 0
        num_drawn = 0
        for candidate in candidates:
            members = int(sizes[candidate])
            if num_drawn >= least and due < members / 2:
                break
            is_drawn[candidate] = True
            num_drawn += members
            due -= members
    return is_drawn[unit]


def check_not_empty(pool: str, split: str, size: int, total: int, dropped: Counter[str]) -> None:
    """Refuse a split without records, by a DataError."""
    if size == 0:
        why = "".join(f"; {number:,} dropped: {reason}" for reason, number in dropped.most_common(3))
        option = "holdout_records" if split == "holdout" else f"{split}_ratio"
        way = "fewer in other splits" if split == "train" else f"no such split (splits.{option}=0)"
        own = ", with a set of your own as test_uri" if split == "test" else ""
        raise DataError(
            f"pool {pool!r}: of its {total} rows none is left for {split!r}{why}; more records, or {way}{own}"
        )
