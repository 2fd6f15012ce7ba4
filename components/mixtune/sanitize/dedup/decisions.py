"""The decision on every record of a pool: kept in a split, or dropped as a copy, a near copy or a leak."""

from collections import Counter
from collections.abc import Iterator, Sequence
from enum import Enum

import numpy as np

from mixtune.artifacts.pools import SPLITS, Cluster, NearCopy
from mixtune.ngrams import Sets, is_in
from mixtune.sanitize.dedup.fingerprints import COVERAGE
from mixtune.sanitize.dedup.minhash import COMMON, Blocks, Propose, find_pairs, keep, propose_in_memory
from mixtune.sanitize.dedup.minhash_daft import propose_on_daft
from mixtune.sanitize.dedup.protected import Origin, ProtectedRecords
from mixtune.sanitize.dedup.splits import draw_split
from mixtune.sanitize.parts import BLOCKED, Part
from mixtune.settings.sanitize import DedupSettings, SanitizeSettings, SplitSettings

LISTED = 200
"""Clusters and conflicts listed in the manifest; all are counted."""
ENGINES: dict[str, Propose] = {"memory": propose_in_memory, "daft": propose_on_daft}
_FEW, _TEMPLATE_RATIO = 3, 0.05
"""Questions, and share of all, in which a 13-gram may stand before it counts as a template's, up to COMMON."""
DECIDING = {
    name: np.uint8 if name in ("blocked", "label_words") else np.uint64
    for name in ("exact", "key", "prompt", "gist", "gist_prompt", "group", "line", "label", "blocked", "label_words")
}
"""Features that are in memory for all records of a pool."""
_PLACES = {Origin.BENCHMARK: "a benchmark", Origin.HELD_OUT: "another pool", Origin.OTHER_TRAIN: "another pool"}
_NEAR = {
    **{origin: f"near {place}" for origin, place in _PLACES.items()},
    Origin.TEST: "near the test set",
    Origin.TRAIN: "near duplicate",
}
"""Why a record is dropped as a near copy, by the origin of what it copies."""
NORMALISED = "duplicate but for case or punctuation"
REASONS = (
    "duplicate",
    NORMALISED,
    *BLOCKED[1:],
    "in the test set",
    "label in the question",
    *dict.fromkeys(_NEAR.values()),
    "conflicting answer",
)
STATES = ("", *SPLITS, *REASONS)
"""States of a record by code: undecided, a split, or the reason for which it is dropped."""
CODES = {state: code for code, state in enumerate(STATES)}


class Relation(Enum):
    """What a pair of nearly equal questions means for its second record."""

    COPY = "drop the second"
    CONFLICT = "count the pair, drop both on request, else keep both in one split"
    SAME_GROUP = "keep both in one split"
    NOTHING = "keep the second wherever it is drawn"


def relate(first: Origin, second: Origin, *, same_answer: bool, same_template: bool) -> Relation:
    """Return what a pair means whose questions are nearly equal without the text that many records share.

    `same_template`: the questions are nearly equal with that text, too. By the origins of first and second:

    | first              | second | same answer, template | answer alone | template alone | neither    |
    |--------------------|--------|-----------------------|--------------|----------------|------------|
    | BENCHMARK          | TRAIN  | COPY                  | COPY         | COPY           | COPY       |
    | HELD_OUT           | TRAIN  | COPY                  | COPY         | COPY           | COPY       |
    | OTHER_TRAIN        | TRAIN  | COPY                  | NOTHING      | NOTHING        | NOTHING    |
    | TEST               | TRAIN  | COPY                  | COPY         | CONFLICT       | SAME_GROUP |
    | TRAIN              | TRAIN  | COPY                  | SAME_GROUP   | CONFLICT       | SAME_GROUP |
    | TEST               | TEST   | SAME_GROUP            | SAME_GROUP   | CONFLICT       | SAME_GROUP |
    | one of the first 3 | TEST   | NOTHING               | NOTHING      | NOTHING        | NOTHING    |
    | any                | others | NOTHING               | NOTHING      | NOTHING        | NOTHING    |
    """
    if second.is_protected:
        return Relation.NOTHING
    if first.is_protected:
        is_copy = first is not Origin.OTHER_TRAIN or (same_answer and same_template)
        return Relation.COPY if is_copy and second is Origin.TRAIN else Relation.NOTHING
    if same_template and not same_answer:
        return Relation.CONFLICT
    if second is Origin.TRAIN and same_answer and (first is Origin.TEST or same_template):
        return Relation.COPY
    return Relation.SAME_GROUP


class Decisions:
    """The decisions on one pool's records.

    Records are numbered through: the protected ones come first, then the pool's in the order of its parts.
    """

    def __init__(self, origin: np.ndarray, parts: Sequence[Part], lines: np.ndarray) -> None:
        """Leave all records undecided: `origin` (protected + pool's records,), `lines` in files (pool's records,)."""
        self.origin, self.lines = origin, lines
        self.num_protected = len(origin) - len(lines)
        self.state = np.zeros(len(origin), np.uint8)
        """Codes of STATES; protected records stay undecided."""
        self.copy_of = np.arange(len(origin))
        """The record that a dropped one is a copy of; itself for all others."""
        self.expected_splits: set[str] = set()
        """Splits that must have records."""
        self.clusters: dict[int, tuple[str, list[NearCopy]]] = {}
        """By record: its place, and what was dropped as its near copies; the first LISTED."""
        self.conflicts: list[tuple[str, str]] = []
        """Places of nearly equal questions with different answers; the first LISTED."""
        self.num_conflicts = 0
        self._conflicting = set[tuple[int, int]]()
        self.num_label_words = 0
        """Records kept whose question holds the words of their label."""
        self._names = [part.source.name for part in parts]
        self._ends = np.cumsum([part.tally.kept for part in parts])

    @property
    def pool_states(self) -> np.ndarray:
        """State codes of the pool's own records: a view, uint8 (pool's records,)."""
        return self.state[self.num_protected :]

    def undecided(self, origin: Origin | None = None) -> np.ndarray:
        """Return which of the pool's own records are undecided, of one origin or of any, bool (records,)."""
        own = self.origin[self.num_protected :]
        undecided: np.ndarray = (self.pool_states == 0) & (own == origin if origin is not None else True)
        return undecided

    def place(self, record: int) -> str:
        """Return where a record stands, for people."""
        if record < self.num_protected:
            return _PLACES[Origin(self.origin[record])]
        row = record - self.num_protected
        return f"{self._names[np.searchsorted(self._ends, row, 'right')]} line {self.lines[row]}"

    def drop_near_copy(self, record: int, original: int, similarity: float) -> None:
        """Drop a record as a near copy, and list the pair."""
        self.state[record], self.copy_of[record] = CODES[_NEAR[Origin(self.origin[original])]], original
        if original in self.clusters or len(self.clusters) < LISTED:
            _, copies = self.clusters.setdefault(original, (self.place(original), []))
            copies.append(NearCopy(at=self.place(record), similarity=round(similarity, 3)))

    def add_conflict(self, first: int, second: int, *, drop: bool) -> None:
        """Count a conflict, once; `drop`: drop its training records."""
        if (first, second) in self._conflicting:
            return
        self._conflicting.add((first, second))
        self.num_conflicts += 1
        if len(self.conflicts) < LISTED:
            self.conflicts.append((self.place(first), self.place(second)))
        for record in (first, second) if drop else ():
            if self.origin[record] == Origin.TRAIN:
                self.state[record] = CODES["conflicting answer"]

    def list_clusters(self) -> tuple[Cluster, ...]:
        """Return the first clusters of near-duplicates."""
        return tuple(Cluster(kept=original, dropped=tuple(copies)) for original, copies in self.clusters.values())

    def dropped(self, rows: slice) -> Iterator[tuple[int, str, str]]:
        """Yield line, reason, and the place of the original (empty: no copy) of some of the pool's dropped records."""
        for row in np.flatnonzero(self.pool_states[rows] > len(SPLITS)) + rows.start:
            original = int(self.copy_of[row + self.num_protected])
            copied = "" if original == row + self.num_protected else self.place(original)
            yield int(self.lines[row]), STATES[self.pool_states[row]], copied

    def count_copies(self, rows: Sequence[int]) -> int:
        """Count the records dropped as copies of some of the pool's records, or as copies of their copies."""
        originals = follow(self.copy_of) - self.num_protected
        return int(np.isin(originals, rows).sum()) - len(rows)

    def count(self) -> tuple[Counter[str], Counter[str]]:
        """Count records by split, and dropped ones by reason."""
        counts = np.bincount(self.pool_states, minlength=len(STATES)).tolist()
        by_state = {state: number for state, number in zip(STATES, counts, strict=True) if number}
        by_split = Counter({split: by_state.pop(split) for split in SPLITS if split in by_state})
        return by_split, Counter(by_state)


def decide_records(
    pool: str, parts: list[Part], settings: SanitizeSettings, protected: ProtectedRecords | None = None
) -> Decisions:
    """Decide on the records of a pool, by whose name its splits are seeded; none may repeat a protected one."""
    blocks = [part.features(tuple(DECIDING)) for part in parts]
    data = {name: np.concatenate([block.pop(name).astype(kind) for block in blocks]) for name, kind in DECIDING.items()}
    origins = [Origin.TEST if part.source.split == "test" else Origin.TRAIN for part in parts]
    origin = np.repeat(np.array(origins, np.uint8), [part.tally.kept for part in parts])
    before = protected.origin if protected else np.empty(0, np.uint8)
    decisions = Decisions(np.concatenate([before, origin]), parts, data["line"])
    _drop_exact(decisions, data, protected, settings.dedup)
    if settings.dedup.label_leaks == "drop":
        leaks = decisions.undecided(Origin.TRAIN) & (data["label_words"] > 0)
        decisions.pool_states[leaks] = CODES["label in the question"]
    if not settings.dedup.near_duplicates:
        _count_conflicts(decisions, data["prompt"], settings.dedup)
    quotes = _find_quotes(parts)
    is_of_test = (origin[quotes] == (Origin.TEST, Origin.TRAIN)).all(axis=1)
    of_test = quotes[is_of_test] if (origin == Origin.TEST).sum() >= COMMON else quotes[:0]  # of few, near copies alone
    for original, copy in of_test[decisions.undecided()[of_test[:, 1]]]:
        decisions.pool_states[copy] = CODES["in the test set"]
        decisions.copy_of[copy + decisions.num_protected] = original + decisions.num_protected
    links = np.concatenate([_link_equal(data), quotes])
    if settings.dedup.near_duplicates:
        _drop_short(decisions, data, protected)
        _count_conflicts(decisions, data["gist_prompt"], settings.dedup, data["prompt"])
        near = _drop_near(decisions, parts, protected, settings.dedup)
        links = np.concatenate([links, near - decisions.num_protected])
    decisions.num_label_words = int((data["label_words"][decisions.undecided()] > 0).sum())
    _split(decisions, data["label"], first_linked(len(origin), links), f"{settings.seed} {pool}", settings.splits)
    return decisions


def _drop_exact(
    decisions: Decisions, data: dict[str, np.ndarray], protected: ProtectedRecords | None, dedup: DedupSettings
) -> None:
    """Drop what another record says, too, or what stands in a benchmark."""
    key, states, own = data["key"], decisions.pool_states, decisions.origin[decisions.num_protected :]
    for name, reason in (("exact", "duplicate"), ("key", NORMALISED if dedup.normalised == "drop" else "")):
        for origin in (Origin.TEST, Origin.TRAIN) if reason else ():
            rows = np.flatnonzero(decisions.undecided(origin))
            _, firsts, inverse = np.unique(data[name][rows], return_index=True, return_inverse=True)
            originals = rows[firsts[inverse]]
            is_copy = originals != rows
            states[rows[is_copy]] = CODES[reason]
            decisions.copy_of[rows[is_copy] + decisions.num_protected] = originals[is_copy] + decisions.num_protected
    states[decisions.undecided(Origin.TRAIN) & np.isin(key, key[own == Origin.TEST])] = CODES["in the test set"]
    if protected is not None:
        states[decisions.undecided(Origin.TRAIN) & np.isin(key, protected.key)] = CODES["in another pool"]
    for number, reason in enumerate(BLOCKED[1:], start=1):
        states[decisions.undecided(Origin.TRAIN) & (data["blocked"] == number)] = CODES[reason]


def _drop_short(decisions: Decisions, data: dict[str, np.ndarray], protected: ProtectedRecords | None) -> None:
    """Drop short questions that differ but in words that say nothing from one with the same answer, or held back."""
    before = decisions.num_protected
    if protected is not None:
        held_back = np.flatnonzero(protected.origin < Origin.OTHER_TRAIN)
        gists, firsts = np.unique(protected.gist_prompt[held_back], return_index=True)
        rows = np.flatnonzero(decisions.undecided(Origin.TRAIN))
        for row in rows[is_in(data["gist_prompt"][rows], gists)]:
            place = np.searchsorted(gists, data["gist_prompt"][row])
            decisions.drop_near_copy(int(row) + before, int(held_back[firsts[place]]), 1.0)
    rows = np.concatenate([np.flatnonzero(decisions.undecided(origin)) for origin in (Origin.TEST, Origin.TRAIN)])
    _, firsts, inverse = np.unique(data["gist"][rows], return_index=True, return_inverse=True)
    originals = rows[firsts[inverse]]
    for row, original in np.stack([rows, originals], axis=1)[rows != originals]:
        if decisions.origin[row + before] == Origin.TRAIN:
            decisions.drop_near_copy(int(row) + before, int(original) + before, 1.0)


def _count_conflicts(
    decisions: Decisions, prompt: np.ndarray, dedup: DedupSettings, but: np.ndarray | None = None
) -> None:
    """Count equal questions with different answers, which no comparison of pairs finds; `but`: equal ones are left."""
    rows, before = np.flatnonzero(decisions.undecided()), decisions.num_protected
    _, firsts, inverse = np.unique(prompt[rows], return_index=True, return_inverse=True)
    originals = rows[firsts[inverse]]
    is_other = rows != originals if but is None else but[rows] != but[originals]
    for first, second in zip(originals[is_other], rows[is_other], strict=True):
        decisions.add_conflict(int(first) + before, int(second) + before, drop=dedup.conflicts == "drop")


def _drop_near(
    decisions: Decisions, parts: list[Part], protected: ProtectedRecords | None, dedup: DedupSettings
) -> np.ndarray:
    """Drop near copies in order, so that what comes first stays; return pairs to be kept in one split, (pairs, 2)."""
    # (protected + undecided,) the records in the order in which find_pairs reads them: protected, test, train
    own = [np.flatnonzero(decisions.undecided(origin)) for origin in (Origin.TEST, Origin.TRAIN)]
    records = np.concatenate([np.arange(decisions.num_protected), *(rows + decisions.num_protected for rows in own)])
    blocks = _read_blocks(parts, decisions.undecided(), protected)
    origins, links = list(Origin), list[tuple[int, int]]()
    for pair in find_pairs(blocks, dedup.near_duplicates, ENGINES[dedup.near_engine]):
        first, second = int(records[pair.first]), int(records[pair.second])
        if decisions.state[first] or decisions.state[second]:
            continue
        relation = relate(
            origins[decisions.origin[first]],
            origins[decisions.origin[second]],
            same_answer=pair.same_answer,
            same_template=pair.same_template,
        )
        if relation is Relation.COPY:
            decisions.drop_near_copy(second, first, pair.similarity)
        elif relation is Relation.CONFLICT:
            decisions.add_conflict(int(first), int(second), drop=dedup.conflicts == "drop")
        if relation in (Relation.CONFLICT, Relation.SAME_GROUP):
            links.append((first, second))
    return np.array(links, np.int64).reshape(-1, 2)


def _read_blocks(parts: list[Part], undecided: np.ndarray, protected: ProtectedRecords | None) -> Blocks:
    """Return a reader of the protected, the test and the training records' features, those alone that are undecided."""
    starts = np.cumsum([0, *(part.tally.kept for part in parts)])

    def blocks(names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        if protected is not None:
            yield from protected.blocks(names)
        for is_test in (True, False):
            for number, part in enumerate(parts):
                chosen = undecided[starts[number] : starts[number + 1]]
                if chosen.any() and (part.source.split == "test") == is_test:
                    yield _choose_records(part.features(names), chosen)

    return blocks


def _choose_records(features: dict[str, np.ndarray], chosen: np.ndarray) -> dict[str, np.ndarray]:
    """Return the features of some records: `chosen` is bool (records,); sets come with their offsets."""
    out: dict[str, np.ndarray] = {}
    for name in features:
        if f"{name}_at" in features:
            sets = keep(Sets(features[name], features[f"{name}_at"]), chosen)
            out |= {name: sets.flat, f"{name}_at": sets.at}
        elif not name.endswith("_at"):
            out[name] = features[name][chosen]
    return out


def _link_equal(data: dict[str, np.ndarray]) -> np.ndarray:
    """Return pairs of records of one group, or of one and the same question, (pairs, 2)."""
    links = []
    for name in ("group", "prompt", "gist_prompt"):
        _, firsts, inverse = np.unique(data[name], return_index=True, return_inverse=True)
        originals = firsts[inverse]
        rows = np.flatnonzero((originals != np.arange(len(originals))) & (data[name] > 0))
        links.append(np.stack([originals[rows], rows], axis=1))
    return np.concatenate(links)


def _find_quotes(parts: Sequence[Part]) -> np.ndarray:
    """Return pairs of questions, (pairs, 2), the first of which has half of its 13-grams in the second, by anchors."""
    blocks = [part.features(("anchors", "anchors_at")) for part in parts]
    flat = np.concatenate([block["anchors"] for block in blocks]).astype(np.uint64)
    num_anchors = np.concatenate([np.diff(block["anchors_at"]) for block in blocks])
    total, order = len(num_anchors), np.argsort(flat, kind="stable")
    _, inverse, counts = np.unique(flat[order], return_inverse=True, return_counts=True)
    is_rare = counts[inverse] <= max(_FEW, min(COMMON, _TEMPLATE_RATIO * total))
    ngram, owner = inverse[is_rare], np.repeat(np.arange(total), num_anchors)[order][is_rare]
    pairs = [np.empty(0, np.int64)]
    for step in range(1, min(COMMON, len(ngram))):
        same = ngram[step:] == ngram[:-step]
        pairs.append(owner[:-step][same] * total + owner[step:][same])
    both, num_shared = np.unique(np.concatenate(pairs), return_counts=True)
    quotes, sizes = np.stack(np.divmod(both, max(1, total)), axis=1), np.bincount(owner, minlength=total)
    sides = [(quotes[:, order], num_shared >= COVERAGE * sizes[quotes[:, order[0]]]) for order in ([0, 1], [1, 0])]
    return np.concatenate([sorted_pairs[is_quote] for sorted_pairs, is_quote in sides])


def first_linked(total: int, links: np.ndarray) -> np.ndarray:
    """Return for each of `total` records the first one that it is linked to, over any number of links (links, 2)."""
    roots = np.arange(total)
    while True:
        # (links,) the roots of both ends: the later root is hung below the earlier one until no link has two
        ends = roots[links]
        earlier, later = ends.min(axis=1), ends.max(axis=1)
        if (earlier == later).all():
            return roots
        np.minimum.at(roots, later, earlier)
        roots = follow(roots)


def follow(pointers: np.ndarray) -> np.ndarray:
    """Return where each record's pointers end; a root points at itself, (records,)."""
    while (pointers[pointers] != pointers).any():
        pointers = pointers[pointers]
    return pointers


def _split(decisions: Decisions, labels: np.ndarray, groups: np.ndarray, seed: str, splits: SplitSettings) -> None:
    """Draw the splits from the records that are left, whole groups at a time."""
    states = decisions.pool_states
    has_test = bool((decisions.origin == Origin.TEST).any())
    states[decisions.undecided(Origin.TEST)] = CODES["test"]
    for split, size in splits.num_records(int(decisions.undecided().sum()), has_test).items():
        rows = np.flatnonzero(decisions.undecided())
        if size and len(rows):
            states[rows[draw_split(labels[rows], groups[rows], size, f"{seed} {split}")]] = CODES[split]
    states[decisions.undecided()] = CODES["train"]
    expected = {
        "train": True,
        "test": has_test or (splits.test_ratio > 0 and not splits.holdout_records),
        "validation": splits.validation_ratio > 0,
        "holdout": splits.holdout_records > 0,
    }
    decisions.expected_splits = {split for split, is_expected in expected.items() if is_expected}
