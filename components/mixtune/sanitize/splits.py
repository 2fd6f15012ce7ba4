"""Which records of a pool are held back: seeded, by label where there are labels, groups kept together."""

import random
from collections import Counter
from collections.abc import Sequence

from mixtune.errors import DataError


def draw_split(labels: Sequence[str], groups: Sequence[str], wanted: int, seed: str) -> set[int]:
    """Indices of the records to hold back.

    Every label gives its share of them, at least one where it has three records or more, so that no class is missing
    from what is measured. Records of one group go together, with the label of the group's first.

    Args:
        labels: The records' labels; empty texts where they have none.
        groups: The records' groups; empty texts for records of their own.
        wanted: Number of records to hold back, about: shares are rounded, groups are whole.
        seed: The same seed, the same choice.
    """
    units: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        units.setdefault(f"group {group}" if group else f"record {index}", []).append(index)
    strata: dict[str, list[list[int]]] = {}
    for members in units.values():
        strata.setdefault(labels[members[0]], []).append(members)
    held: set[int] = set()
    share = wanted / max(1, len(labels))
    due = 0.0
    for label in sorted(strata):
        candidates = strata[label]
        random.Random(f"{seed} {label}").shuffle(candidates)
        size = sum(len(members) for members in candidates)
        due += share * size
        least = 1 if size >= 3 and wanted else 0
        taken = 0
        for members in candidates:
            if taken >= least and due < len(members) / 2:
                break
            held.update(members)
            taken += len(members)
            due -= len(members)
    return held


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
