"""What becomes of every record of a pool: kept in a split, or dropped as a copy, a near copy or a leak."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mixtune.errors import ConfigError
from mixtune.sanitize.near import find_pairs
from mixtune.sanitize.parts import BLOCKED, Part
from mixtune.sanitize.splits import draw_split
from mixtune.sanitize.words import Sets

LISTED = 200
"""Clusters and conflicts listed in the manifest; all are counted."""
CONFLICTS = ("keep", "drop")
_OTHERS = "another pool", "a benchmark"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """How a pool is thinned and split."""

    near_duplicates: float = 0.9
    """Least Jaccard similarity of near-duplicates, above 0 to 1; 0: they are not looked for."""
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
    data = join([part.features() for part in parts])
    total = len(data["key"])
    is_test = np.repeat([part.source.split == "test" for part in parts], [part.tally.kept for part in parts])
    fates = Fates(fate=np.full(total, "", object))
    places = _places(parts, data)
    _drop_exact(fates, data, is_test, guard, places)
    if choice.label_leaks == "drop":
        fates.fate[(fates.fate == "") & ~is_test & (data["label_words"] > 0)] = "!label in the question"
    groups = _group(data)
    if choice.near_duplicates:
        _drop_near(fates, data, is_test, guard, choice, groups, places)
    fates.num_label_words = int((data["label_words"][fates.fate == ""] > 0).sum())
    _split(fates, data, is_test, groups, choice, pool)
    return fates


def join(features: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Features of parts, one after another."""
    if not features:
        return {}
    out = {key: np.concatenate([item[key] for item in features]) for key in features[0] if not key.endswith("_at")}
    for key in (name for name in features[0] if name.endswith("_at")):
        lengths = np.concatenate([np.diff(item[key]) for item in features])
        out[key] = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return out


def _drop_exact(fates: Fates, data: dict[str, np.ndarray], is_test: np.ndarray, guard: Any, places: list[str]) -> None:
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
    fates: Fates, data: Any, is_test: np.ndarray, guard: Any, choice: Choice, groups: "_Union", places: list[str]
) -> None:
    """Drop near copies, in order: what was kept first stays; a training record yields to any other."""
    rows = np.concatenate([np.flatnonzero((fates.fate == "") & side) for side in (is_test, ~is_test)])
    features = {key: data[key][rows] for key in ("minhash", "numbers")}
    sets = {key: _chosen(data, key, rows) for key in ("question", "answer")}
    others = 0
    if guard is not None and len(guard["key"]):
        others = len(guard["key"])
        features = {key: np.concatenate([guard[key], value]) for key, value in features.items()}
        both = {key: join([{key: guard[key], f"{key}_at": guard[f"{key}_at"]},
                           {key: value.flat, f"{key}_at": value.at}]) for key, value in sets.items()}  # fmt: skip
        sets = {key: Sets(both[key][key], both[key][f"{key}_at"]) for key in sets}
    seen: dict[int, dict[str, Any]] = {}
    pairs = find_pairs(
        features["minhash"], sets["question"], sets["answer"], features["numbers"], choice.near_duplicates
    )
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


def _conflict(fates: Fates, pair: list[int], is_test: np.ndarray, places: list[str], choice: Choice) -> None:
    fates.num_conflicts += 1
    if len(fates.conflicts) < LISTED:
        fates.conflicts.append({"first": places[pair[0]], "second": places[pair[1]]})
    if choice.conflicts == "drop":
        for index in pair:
            if not is_test[index]:
                fates.fate[index] = "!conflicting answer"


def _chosen(data: Any, key: str, rows: np.ndarray) -> Sets:
    whole = Sets(data[key], data[f"{key}_at"])
    parts = [whole[index] for index in rows]
    at = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)
    return Sets(np.concatenate(parts) if parts else np.empty(0, np.uint32), at)


class _Union:
    """Records that have to stay in one split."""

    def __init__(self, total: int) -> None:
        self._parent = list(range(total))

    def find(self, index: int) -> int:
        while self._parent[index] != index:
            self._parent[index] = self._parent[self._parent[index]]
            index = self._parent[index]
        return index

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.find(one), self.find(other)))
        self._parent[second] = first


def _group(data: dict[str, np.ndarray]) -> _Union:
    """Records of one group, or of one and the same question, belong together."""
    union = _Union(len(data["key"]))
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


def _places(parts: list[Part], data: dict[str, np.ndarray]) -> list[str]:
    names = np.repeat([part.source.name for part in parts], [part.tally.kept for part in parts])
    return [f"{name} line {line}" for name, line in zip(names.tolist(), data["line"].tolist(), strict=True)]


def count(fates: Fates) -> tuple[Counter[str], Counter[str]]:
    """Records by split, and dropped ones by reason."""
    counted = Counter(fates.fate.tolist())
    kept = Counter({key: value for key, value in counted.items() if not key.startswith("!")})
    return kept, Counter({key[1:]: value for key, value in counted.items() if key.startswith("!")})
