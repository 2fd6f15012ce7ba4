"""What becomes of every record of a pool: kept in a split, or dropped as a copy, a near copy or a leak."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixtune.errors import ConfigError
from mixtune.sanitize.near import Propose, choose, find_pairs, propose_in_memory
from mixtune.sanitize.near_daft import propose_on_daft
from mixtune.sanitize.parts import BLOCKED, Part
from mixtune.sanitize.splits import draw_split

LISTED = 200
"""Clusters and conflicts listed in the manifest; all are counted."""
CONFLICTS = ("keep", "drop")
ENGINES: dict[str, Propose] = {"memory": propose_in_memory, "daft": propose_on_daft}
DECIDING = ("key", "prompt", "group", "line", "blocked", "label_words", "label")
"""Features that are in memory for all records of a pool."""
COMPARED = ("numbers", "minhash", "question", "question_at", "answer", "answer_at")
"""Features of near-duplicates, which are read part by part."""
_OTHERS = "another pool", "a benchmark"


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

    fate: np.ndarray
    """Object array of texts, (records,): a split's name, or `!` and the reason for the drop."""
    asked: set[str] = field(default_factory=set)
    """Splits that have to have records."""
    clusters: list[dict[str, Any]] = field(default_factory=list)
    """Near-duplicates: what was kept, what was dropped, how similar; the first LISTED."""
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    """Nearly equal questions with different answers; the first LISTED."""
    num_conflicts: int = 0
    num_label_words: int = 0
    """Records kept whose question holds the words of their label."""
    copy_of: dict[int, str] = field(default_factory=dict)
    """Where the record stands that a dropped one is a copy of, by the dropped one's place."""


def decide(pool: str, parts: list[Part], choice: Choice, guard: dict[str, np.ndarray] | None = None) -> Fates:
    """Decide on the records of a pool.

    Args:
        pool: Its name, which the seed of the splits depends on.
        parts: Its parts, in order.
        choice: How.
        guard: Features of the records that no training record may repeat; None: there are none.
    """
    data = join([part.features(DECIDING) for part in parts])
    total = len(data["key"])
    is_test = np.repeat([part.source.split == "test" for part in parts], [part.tally.kept for part in parts])
    fates = Fates(fate=np.full(total, "", object))
    places = _Places(parts, data["line"])
    _drop_exact(fates, data, is_test, guard, places)
    if choice.label_leaks == "drop":
        fates.fate[(fates.fate == "") & ~is_test & (data["label_words"] > 0)] = "!label in the question"
    groups = _group(data)
    if choice.near_duplicates:
        _drop_near(fates, parts, is_test, guard, choice, groups, places)
    fates.num_label_words = int((data["label_words"][fates.fate == ""] > 0).sum())
    _split(fates, data, is_test, groups, choice, pool)
    return fates


def join(features: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Features of parts, one after another."""
    if not features:
        return {}
    return {key: np.concatenate([item[key] for item in features]) for key in features[0]}


def _drop_exact(fates: Fates, data: dict[str, np.ndarray], is_test: np.ndarray, guard: Any, places: "_Places") -> None:
    fate = fates.fate
    for rows in (np.flatnonzero(is_test), np.flatnonzero(~is_test)):
        _, firsts, inverse = np.unique(data["key"][rows], return_index=True, return_inverse=True)
        originals = firsts[inverse]
        copies = originals != np.arange(len(rows))
        fate[rows[copies]] = "!duplicate"
        fates.copy_of.update(
            (int(row), places[rows[first]]) for row, first in zip(rows[copies], originals[copies], strict=True)
        )
    free = (fate == "") & ~is_test
    held = np.isin(data["key"], data["key"][is_test])
    fate[free & held] = "!in the test set"
    if guard is not None:
        fate[free & ~held & np.isin(data["key"], guard["key"])] = "!in another pool"
    for number, reason in enumerate(BLOCKED[1:], start=1):
        fate[(fate == "") & ~is_test & (data["blocked"] == number)] = f"!{reason}"


def _drop_near(
    fates: Fates,
    parts: list[Part],
    is_test: np.ndarray,
    guard: Any,
    choice: Choice,
    groups: "_Union",
    places: "_Places",
) -> None:
    """Drop near copies, in order: what was kept first stays; a training record yields to any other."""
    rows = np.concatenate([np.flatnonzero((fates.fate == "") & side) for side in (is_test, ~is_test)])
    starts = np.cumsum([0, *(part.tally.kept for part in parts)])
    chosen = [np.flatnonzero(fates.fate[starts[n] : starts[n + 1]] == "") for n in range(len(parts))]
    others = 0 if guard is None else len(guard["key"])

    def blocks() -> Iterator[dict[str, np.ndarray]]:
        if others:
            yield guard
        for test in (True, False):
            for part, mine in zip(parts, chosen, strict=True):
                if len(mine) and (part.source.split == "test") == test:
                    yield choose(part.features(COMPARED), mine)

    seen: dict[int, dict[str, Any]] = {}
    pairs = find_pairs(blocks, others + len(rows), choice.near_duplicates, ENGINES[choice.near_engine])
    for pair in pairs:
        if pair.second < others:
            continue
        second = int(rows[pair.second - others])
        first = int(rows[pair.first - others]) if pair.first >= others else -1
        if fates.fate[second] or (first >= 0 and fates.fate[first]):
            continue
        other = _OTHERS[int(guard["benchmark"][pair.first])] if first < 0 else ""
        where = places[first] if first >= 0 else other
        if not pair.same_answer and not (other and guard["any_answer"][pair.first]):
            if first >= 0:
                _conflict(fates, [first, second], is_test, places, choice)
                groups.join(first, second)
            continue
        if is_test[second]:
            if first >= 0:
                groups.join(first, second)
            continue
        reason = f"near {other}" if other else "near the test set" if is_test[first] else "near duplicate"
        fates.fate[second] = f"!{reason}"
        fates.copy_of[second] = where
        cluster = seen.setdefault(pair.first, {"kept": where, "dropped": []})
        cluster["dropped"].append({"at": places[second], "similarity": round(pair.similarity, 3)})
    fates.clusters = list(seen.values())[:LISTED]


def _conflict(fates: Fates, pair: list[int], is_test: np.ndarray, places: "_Places", choice: Choice) -> None:
    fates.num_conflicts += 1
    if len(fates.conflicts) < LISTED:
        fates.conflicts.append({"first": places[pair[0]], "second": places[pair[1]]})
    if choice.conflicts == "drop":
        for index in pair:
            if not is_test[index]:
                fates.fate[index] = "!conflicting answer"


class _Union:
    """Records that have to stay in one split."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, index: int) -> int:
        root = index
        while (parent := self._parent.get(root, root)) != root:
            root = parent
        while index != root:
            self._parent[index], index = root, self._parent[index]
        return root

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        if first != second:
            self._parent[second] = first


def _group(data: dict[str, np.ndarray]) -> _Union:
    """Records of one group, or of one and the same question, belong together."""
    union = _Union()
    for key in ("group", "prompt"):
        values, firsts, inverse = np.unique(data[key], return_index=True, return_inverse=True)
        for index in np.flatnonzero(firsts[inverse] != np.arange(len(inverse))) if len(values) else ():
            if data[key][index]:
                union.join(int(firsts[inverse[index]]), int(index))
    return union


def _split(fates: Fates, data: Any, is_test: np.ndarray, groups: _Union, choice: Choice, pool: str) -> None:
    fate = fates.fate
    fate[(fate == "") & is_test] = "test"
    has_test = bool(is_test.any())
    total = int(((fate == "") & ~is_test).sum())
    wanted = {"test": 0 if has_test or choice.holdout_records else round(choice.test_ratio * total),
              "validation": round(choice.validation_ratio * total),
              "holdout": min(choice.holdout_records, total // 10)}  # fmt: skip
    asked = {"test": has_test or (choice.test_ratio > 0 and not choice.holdout_records),
             "validation": choice.validation_ratio > 0, "holdout": choice.holdout_records > 0}  # fmt: skip
    for split, number in wanted.items():
        rows = np.flatnonzero(fate == "")
        if number and len(rows):
            labels = [str(label) for label in data["label"][rows]]
            names = [str(groups.find(int(index))) for index in rows]
            held = draw_split(labels, names, number, f"{choice.seed} {pool} {split}")
            fate[rows[sorted(held)]] = split
    fate[fate == ""] = "train"
    fates.asked = {"train", *(split for split, wish in asked.items() if wish)}


class _Places:
    """Where the records of a pool stand, in words, by their number."""

    def __init__(self, parts: list[Part], lines: np.ndarray) -> None:
        self._names, self._lines = [part.source.name for part in parts], lines
        self._ends = np.cumsum([part.tally.kept for part in parts])

    def __getitem__(self, row: int) -> str:
        return f"{self._names[np.searchsorted(self._ends, row, 'right')]} line {self._lines[row]}"


def count(fates: Fates) -> tuple[Counter[str], Counter[str]]:
    """Records by split, and dropped ones by reason."""
    counted = Counter(fates.fate.tolist())
    kept = Counter({key: value for key, value in counted.items() if not key.startswith("!")})
    return kept, Counter({key[1:]: value for key, value in counted.items() if key.startswith("!")})
