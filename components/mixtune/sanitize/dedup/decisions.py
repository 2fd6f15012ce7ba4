"""What becomes of every record of a pool: kept in a split, or dropped as a copy, a near copy or a leak."""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mixtune.artifacts.pools import Cluster, NearCopy
from mixtune.errors import ConfigError
from mixtune.ngrams import Sets
from mixtune.sanitize.dedup.minhash import Blocks, Propose, find_pairs, keep, propose_in_memory
from mixtune.sanitize.dedup.minhash_daft import propose_on_daft
from mixtune.sanitize.dedup.protected import Guard
from mixtune.sanitize.dedup.splits import draw_split
from mixtune.sanitize.parts import BLOCKED, Part

LISTED = 200
"""Clusters and conflicts listed in the manifest; all are counted."""
CONFLICTS = ("keep", "drop")
ENGINES: dict[str, Propose] = {"memory": propose_in_memory, "daft": propose_on_daft}
DECIDING = {"key": np.uint64, "prompt": np.uint64, "group": np.uint64, "line": np.uint64, "label": np.uint64,
            "blocked": np.uint8, "label_words": np.uint8}  # fmt: skip
"""Features that are in memory for all records of a pool."""
SPLITS = ("train", "test", "validation", "holdout")
_OTHERS = ("another pool", "a benchmark")
REASONS = (
    "duplicate", "in the test set", *BLOCKED[1:], "label in the question", "near duplicate", "near the test set",
    *(f"near {other}" for other in _OTHERS), "conflicting answer",
)  # fmt: skip
FATES = ("", *SPLITS, *REASONS)
"""What can become of a record, by its number: nothing yet, a split, or why it is dropped."""
NUMBER = {fate: number for number, fate in enumerate(FATES)}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a pool is thinned and split."""

    near_duplicates: float = 0.9
    """Least Jaccard similarity of near-duplicates, above 0 to 1; 0: they are not looked for."""
    near_engine: str = "memory"
    """What finds candidates for near-duplicates, with the same result: `memory`, or `daft` for tens of millions."""
    conflicts: str = "keep"
    """Nearly equal questions with different answers: `keep` or `drop`; counted and listed in any case."""
    label_leaks: str = "keep"
    """Questions that hold the words of their label: `keep` or `drop`; counted in any case."""
    test_ratio: float = 0.1
    """Share of a pool held back as `test` where no source gives it one, 0 to below 1."""
    validation_ratio: float = 0.0
    """Share of a pool held back as `validation`, 0 to below 1."""
    holdout_records: int = 0
    """Records of each pool held back as `holdout`, at most a tenth of it."""
    seed: int = 42

    def __post_init__(self) -> None:
        for name in ("test_ratio", "validation_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is a share, 0 to below 1; got {getattr(self, name)}")
        if not 0 <= self.near_duplicates <= 1:
            raise ConfigError(f"near_duplicates is a similarity, 0 to 1; got {self.near_duplicates}")
        if self.holdout_records < 0:
            raise ConfigError(f"holdout_records is 0 or more; got {self.holdout_records}")
        if self.near_engine not in ENGINES:
            raise ConfigError(f"near_engine is one of {', '.join(ENGINES)}; got {self.near_engine!r}")
        for name in ("conflicts", "label_leaks"):
            if getattr(self, name) not in CONFLICTS:
                raise ConfigError(f"{name} is one of {', '.join(CONFLICTS)}; got {getattr(self, name)!r}")


@dataclass(kw_only=True)
class Fates:
    """The decisions on one pool's records, in the order of its parts."""

    places: "Places"
    fate: np.ndarray
    """Numbers in FATES, uint8 (records,)."""
    copy_of: np.ndarray
    """The record that a dropped one is a copy of, int64 (records,); -1: of none, below: of one of _OTHERS."""
    asked: set[str] = field(default_factory=set)
    """Splits that have to have records."""
    clusters: list[Cluster] = field(default_factory=list)
    """Near-duplicates: what was kept, what was dropped, how similar; the first LISTED."""
    conflicts: list[tuple[str, str]] = field(default_factory=list)
    """Places of nearly equal questions with different answers; the first LISTED."""
    num_conflicts: int = 0
    num_label_words: int = 0
    """Records kept whose question holds the words of their label."""

    def is_open(self) -> np.ndarray:
        """Which records nothing has become of yet, bool (records,)."""
        found: np.ndarray = self.fate == 0
        return found

    def set(self, rows: np.ndarray | int, fate: str) -> None:
        """Decide on some records, given by number or mask."""
        self.fate[rows] = NUMBER[fate]

    def dropped(self, rows: slice) -> Iterator[tuple[int, str, str]]:
        """Line, reason, and the place of what it is a copy of (empty: of nothing), of those dropped among some."""
        for row in np.flatnonzero(self.fate[rows] > len(SPLITS)) + rows.start:
            other = int(self.copy_of[row])
            copied = "" if other == -1 else _OTHERS[-2 - other] if other < 0 else self.places[other]
            yield int(self.places.lines[row]), FATES[self.fate[row]], copied

    def count_copies(self, rows: list[int]) -> int:
        """How many records were dropped as copies of some, or as copies of their copies."""
        original = _followed(np.where(self.copy_of < 0, np.arange(len(self.fate)), self.copy_of))
        copies = np.isin(original, rows)
        return int(copies.sum()) - len(rows)


def decide(pool: str, parts: list[Part], choice: Choice, guard: Guard | None = None) -> Fates:
    """Decide on the records of a pool.

    Args:
        pool: Its name, which the seed of the splits depends on.
        parts: Its parts, in order.
        choice: How.
        guard: The records that no training record may repeat; None: there are none.
    """
    data = _join(parts)
    total = len(data["key"])
    is_test = np.repeat([part.source.split == "test" for part in parts], [part.tally.kept for part in parts])
    places = Places(parts, data["line"])
    fates = Fates(places=places, fate=np.zeros(total, np.uint8), copy_of=np.full(total, -1))
    _drop_exact(fates, data, is_test, guard)
    if choice.label_leaks == "drop":
        fates.set(fates.is_open() & ~is_test & (data["label_words"] > 0), "label in the question")
    groups = _group(data)
    if choice.near_duplicates:
        _drop_near(fates, parts, is_test, guard, choice, groups)
    fates.num_label_words = int((data["label_words"][fates.is_open()] > 0).sum())
    _split(fates, data["label"], is_test, groups.roots(), f"{choice.seed} {pool}", choice)
    return fates


def _join(parts: list[Part]) -> dict[str, np.ndarray]:
    """Features of parts, one after another."""
    found = [part.features(tuple(DECIDING)) for part in parts]
    return {name: np.concatenate([item.pop(name).astype(kind) for item in found]) for name, kind in DECIDING.items()}


def _drop_exact(fates: Fates, data: dict[str, np.ndarray], is_test: np.ndarray, guard: Guard | None) -> None:
    key = data["key"]
    for side in (is_test, ~is_test):
        rows = np.flatnonzero(side)
        _, firsts, inverse = np.unique(key[rows], return_index=True, return_inverse=True)
        originals = rows[firsts[inverse]]
        copies = originals != rows
        fates.set(rows[copies], "duplicate")
        fates.copy_of[rows[copies]] = originals[copies]
    fates.set(fates.is_open() & ~is_test & np.isin(key, key[is_test]), "in the test set")
    if guard is not None:
        fates.set(fates.is_open() & ~is_test & np.isin(key, guard.key), "in another pool")
    for number, reason in enumerate(BLOCKED[1:], start=1):
        fates.set(fates.is_open() & ~is_test & (data["blocked"] == number), reason)


def _choose_records(features: dict[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    """Some records' features, sets among them: `kept` is bool (records,)."""
    out: dict[str, np.ndarray] = {}
    for name in features:
        if f"{name}_at" in features:
            sets = keep(Sets(features[name], features[f"{name}_at"]), kept)
            out |= {name: sets.flat, f"{name}_at": sets.at}
        elif not name.endswith("_at"):
            out[name] = features[name][kept]
    return out


def _blocks(parts: list[Part], is_open: np.ndarray, guard: Guard | None) -> Blocks:
    """Reads the guard's records, a pool's test records and its training records, those alone that are open."""
    starts = np.cumsum([0, *(part.tally.kept for part in parts)])

    def blocks(names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        if guard is not None:
            yield from guard.blocks(names)
        for test in (True, False):
            for number, part in enumerate(parts):
                kept = is_open[starts[number] : starts[number + 1]]
                if kept.any() and (part.source.split == "test") == test:
                    yield _choose_records(part.features(names), kept)

    return blocks


def _drop_near(
    fates: Fates, parts: list[Part], is_test: np.ndarray, guard: Guard | None, choice: Choice, groups: "_Union"
) -> None:
    """Drop near copies, in order: what was kept first stays; a training record yields to any other."""
    is_open, places = fates.is_open(), fates.places
    rows = np.concatenate([np.flatnonzero(is_open & side) for side in (is_test, ~is_test)])
    others = 0 if guard is None else len(guard.key)
    seen: dict[int, tuple[str, list[NearCopy]]] = {}
    blocks = _blocks(parts, is_open, guard)
    for pair in find_pairs(blocks, choice.near_duplicates, ENGINES[choice.near_engine]):
        if pair.second < others:
            continue
        second = int(rows[pair.second - others])
        first = int(rows[pair.first - others]) if pair.first >= others else -1
        if fates.fate[second] or (first >= 0 and fates.fate[first]):
            continue
        kind = int(guard.benchmark[pair.first]) if guard and first < 0 else 0
        other = _OTHERS[kind] if first < 0 else ""
        held = bool(guard.any_answer[pair.first]) if guard and first < 0 else bool(is_test[first])
        if first < 0:
            copied = held or (pair.same_answer and pair.same_template)
        else:
            copied = pair.same_answer and (held or pair.same_template)
            if pair.same_template and not pair.same_answer:
                _conflict(fates, [first, second], is_test, choice)
        if is_test[second] or not copied:
            if first >= 0:
                groups.join(first, second)
            continue
        reason = f"near {other}" if other else "near the test set" if is_test[first] else "near duplicate"
        fates.set(second, reason)
        fates.copy_of[second] = first if first >= 0 else -2 - kind
        if pair.first not in seen and len(seen) < LISTED:
            seen[pair.first] = (other or places[first], [])
        if pair.first in seen:
            seen[pair.first][1].append(NearCopy(at=places[second], similarity=round(pair.similarity, 3)))
    fates.clusters = [Cluster(kept=kept, dropped=tuple(dropped)) for kept, dropped in seen.values()]


def _conflict(fates: Fates, pair: list[int], is_test: np.ndarray, choice: Choice) -> None:
    fates.num_conflicts += 1
    if len(fates.conflicts) < LISTED:
        fates.conflicts.append((fates.places[pair[0]], fates.places[pair[1]]))
    if choice.conflicts == "drop":
        for index in pair:
            if not is_test[index]:
                fates.set(index, "conflicting answer")


class _Union:
    """Records that have to stay in one split."""

    def __init__(self, total: int) -> None:
        self._parent = array("q", range(total))

    def find(self, index: int) -> int:
        root = index
        while (parent := self._parent[root]) != root:
            root = parent
        while index != root:
            self._parent[index], index = root, self._parent[index]
        return root

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first

    def roots(self) -> np.ndarray:
        """The first record of each one's group, int64 (records,)."""
        return _followed(np.array(self._parent, np.int64))


def _followed(rows: np.ndarray) -> np.ndarray:
    """Where one ends up who goes from each record to the one it points at, again and again."""
    while (rows[rows] != rows).any():
        rows = rows[rows]
    return rows


def _group(data: dict[str, np.ndarray]) -> _Union:
    """Records of one group, or of one and the same question, belong together."""
    union = _Union(len(data["key"]))
    for key in ("group", "prompt"):
        _, firsts, inverse = np.unique(data[key], return_index=True, return_inverse=True)
        originals = firsts[inverse]
        rows = np.flatnonzero((originals != np.arange(len(originals))) & (data[key] > 0))
        for one, other in zip(originals[rows], rows, strict=True):
            union.join(int(one), int(other))
    return union


def _split(
    fates: Fates, labels: np.ndarray, is_test: np.ndarray, groups: np.ndarray, seed: str, choice: Choice
) -> None:
    fates.set(fates.is_open() & is_test, "test")
    has_test = bool(is_test.any())
    total = int(fates.is_open().sum())
    wanted = {"test": 0 if has_test or choice.holdout_records else round(choice.test_ratio * total),
              "validation": round(choice.validation_ratio * total),
              "holdout": min(choice.holdout_records, total // 10)}  # fmt: skip
    asked = {"test": has_test or (choice.test_ratio > 0 and not choice.holdout_records),
             "validation": choice.validation_ratio > 0, "holdout": choice.holdout_records > 0}  # fmt: skip
    for split, number in wanted.items():
        rows = np.flatnonzero(fates.is_open())
        if number and len(rows):
            fates.set(rows[draw_split(labels[rows], groups[rows], number, f"{seed} {split}")], split)
    fates.set(fates.is_open(), "train")
    fates.asked = {"train", *(split for split, wish in asked.items() if wish)}


class Places:
    """Where the records of a pool stand, in words, by their number."""

    def __init__(self, parts: list[Part], lines: np.ndarray) -> None:
        self.lines = lines
        self._names = [part.source.name for part in parts]
        self._ends = np.cumsum([part.tally.kept for part in parts])

    def __getitem__(self, row: int) -> str:
        return f"{self._names[np.searchsorted(self._ends, row, 'right')]} line {self.lines[row]}"


def count(fates: Fates) -> tuple[Counter[str], Counter[str]]:
    """Records by split, and dropped ones by reason."""
    counts = np.bincount(fates.fate, minlength=len(FATES)).tolist()
    named = {fate: number for fate, number in zip(FATES, counts, strict=True) if number}
    kept = Counter({fate: number for fate, number in named.items() if fate in SPLITS})
    return kept, Counter({fate: number for fate, number in named.items() if fate not in SPLITS})
