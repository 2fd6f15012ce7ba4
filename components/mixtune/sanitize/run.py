"""Sources to pools: clean every part, drop what repeats, hold records back, write pools and say what was done."""

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import groupby, starmap
from pathlib import Path
from typing import Any

import numpy as np

from mixtune import models, storage
from mixtune.artifacts.pools import (
    Pool,
    PoolDetails,
    PoolsManifest,
    RowCounts,
    SanitizeRules,
    Split,
)
from mixtune.artifacts.typed_json import write_artifact
from mixtune.chat.template import ChatTemplate
from mixtune.errors import ConfigError
from mixtune.processes import start_processes
from mixtune.report.pool_report import write_report
from mixtune.sanitize.clean import Rules, SourceFile, Tally, check_bad, note_line
from mixtune.sanitize.dedup.decisions import Choice, Decisions, decide_records
from mixtune.sanitize.dedup.protected import ProtectedRecords, collect_protected, index_held_back
from mixtune.sanitize.dedup.splits import check_not_empty
from mixtune.sanitize.parts import Part, Plan, make_part
from mixtune.sanitize.reading.sources import RANGE_BYTES, describe_source, list_sources, with_digest
from mixtune.sanitize.rules.consent import make_consent
from mixtune.sanitize.rules.markers import Markers
from mixtune.sanitize.rules.pii import Personal
from mixtune.sanitize.write_pools import Written, write_part

Spread = Callable[[Callable[..., Any], list[tuple[Any, ...]]], list[Any]]
"""Takes a function and the arguments of its calls; gives what they return, in order."""
_ALONE_BYTES = 8 * 2**20
"""Less input than this is not worth another process."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of sanitize."""

    sources: list[dict[str, Any]]
    against_path: str = ""
    """Manifest of pools whose records no training record may repeat; empty: none."""
    benchmarks: dict[str, Any] = field(default_factory=dict)
    base_model: str = ""
    choice: Choice = field(default_factory=Choice)
    rules: Rules = field(default_factory=Rules)
    work_uri: str = ""
    """Folder where finished parts stay, so that a killed run goes on; empty: a temporary one."""
    num_workers: int = 0
    """Processes of this pod; 0: one per core, one alone for little data."""
    range_bytes: int = RANGE_BYTES


def make_job(**options: Any) -> Job:
    """A job from the component's parameters: those of `Job`, `Choice` and `make_rules`, by their names.

    Raises:
        ConfigError: An option is not as it should be, or unknown.
    """
    for name in {"holdout_records", "seed"} & set(options):
        options[name] = int(options[name])
    parts = []
    for names in (signature(make_rules).parameters, signature(Choice).parameters):
        parts.append({name: options.pop(name) for name in names if name in options})
    if unknown := sorted(set(options) - set(signature(Job).parameters)):
        raise ConfigError(f"sanitize has no parameter {unknown[0]!r}")
    return Job(**{"sources": [], **options}, rules=make_rules(**parts[0]), choice=Choice(**parts[1]))


def make_rules(
    markers: str = "space",
    extra_markers: Sequence[str] = (),
    max_bad_ratio: float = 0.05,
    personal_data: dict[str, str] | None = None,
    phone_region: str = "US",
    consent: dict[str, Any] | None = None,
    also_normalise: list[str] | None = None,
    name_model: str = Personal.name_model,
) -> Rules:
    """The rules that the shell's options name.

    Raises:
        ConfigError: An option is not as it should be.
    """
    return Rules(
        markers=Markers(markers, tuple(extra_markers)),
        personal=Personal(policies=dict(personal_data or {}), region=phone_region, name_model=name_model),
        consent=make_consent(consent or {}),
        also=tuple(also_normalise or ()),
        max_bad_ratio=max_bad_ratio,
    )


def sanitize(job: Job, pools_path: str, data: str, report_path: str, summary_path: str) -> PoolsManifest:
    """Sanitize sources into a pools artifact, and return its manifest.

    Raises:
        ConfigError: A source or an option is not as it should be.
        DataError: A file cannot be used, or a split would be empty.
    """
    with _work_folder(job.work_uri) as work:
        sources, plan, model = prepare(job, work)
        inputs = tuple(map(describe_source, job.sources))
        made, pools, entries = {}, [], []
        with spreading(sources, job) as spread:
            parts = make_parts(list(enumerate(sources)), plan, spread)
            _check_bad(parts, job.rules.max_bad_ratio)
            protected = collect_protected(job.against_path, plan)
            for name, group in groupby(parts, key=lambda part: part.source.pool):
                builder = PoolBuilder(name, list(group), job, protected)
                pools.append(builder.write(data, model, spread))
                entries += builder.entries
                made[name] = builder
        entries.append(_write_quarantine(parts, made, storage.join(data, "quarantine.jsonl")))
    manifest = PoolsManifest(
        pools=tuple(pools),
        counts={name: builder.counts() for name, builder in made.items()},
        labels={name: builder.labels() for name, builder in made.items()},
        lengths={name: builder.lengths for name, builder in made.items()},
        details={name: builder.details() for name, builder in made.items()},
        inputs=inputs,
        rules=_describe(job),
        seed=job.choice.seed,
        data_uri=data,
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
    )
    write_report(manifest, report_path, summary_path)
    write_artifact(pools_path, manifest)
    return manifest


def prepare(job: Job, work: str) -> tuple[list[SourceFile], Plan, str]:
    """The parts to make, how, and the folder of the base model (empty: none)."""
    sources = list_sources(job.sources, job.range_bytes, job.work_uri)
    model = str(models.fetch_model(job.base_model, weights=False)) if job.base_model else ""
    tokens = tuple(sorted(ChatTemplate.load(Path(model)).control_tokens)) if model else ()
    uris = {name: options["uri"] for name, options in sorted(job.benchmarks.items()) if options.get("uri")}
    named = tuple((name, with_digest(uri) if job.work_uri else uri) for name, uri in uris.items())
    rules = replace(job.rules, control_tokens=tokens)
    near = job.choice.near_duplicates > 0
    held, digest = index_held_back(job.against_path, work)
    plan = Plan(rules=rules, benchmarks=named, held=held, held_digest=digest, near=near, work_uri=work)
    return sources, plan, model


@contextmanager
def spreading(sources: Sequence[SourceFile], job: Job) -> Iterator[Spread]:
    """Calls a function with each of many arguments, in processes that stay, or here where there is little to do."""
    workers = job.num_workers or _num_workers(sources)
    if workers == 1:
        yield lambda work, given: list(starmap(work, given))
        return
    with start_processes(workers) as pool:
        yield lambda work, given: list(
            pool.map(work, *zip(*given, strict=True)) if len(given) > 1 else starmap(work, given)
        )


def make_parts(sources: list[tuple[int, SourceFile]], plan: Plan, spread: Spread) -> list[Part]:
    """Make parts, given with their numbers; their order stays."""
    return spread(make_part, [(source, plan, number) for number, source in sources])


class PoolBuilder:
    """One pool: what is kept of its parts, and in which split."""

    def __init__(self, name: str, parts: list[Part], job: Job, protected: ProtectedRecords | None) -> None:
        self.name, self.parts, self.job = name, parts, job
        self.decisions: Decisions = decide_records(name, parts, job.choice, protected)
        self.entries: list[storage.FileEntry] = []
        self.lengths: dict[str, int] = {}
        self.written: list[Written] = []
        self.copies_of_refused = 0
        self.kept, self.dropped = self.decisions.count()

    def write(self, data: str, model: str, spread: Spread) -> Pool:
        """Write the pool's splits, part by part.

        Raises:
            DataError: A split that was asked for has no records.
        """
        total = sum(part.tally.kept for part in self.parts)
        for split in sorted(self.decisions.expected_splits):
            check_not_empty(self.name, split, self.kept[split], total, self.dropped)
        at, jobs = 0, []
        for number, part in enumerate(self.parts):
            jobs.append((part, self.decisions.pool_states[at : at + part.tally.kept], data, self.name, number, model))
            at += part.tally.kept
        self.written = spread(write_part, jobs)
        self.entries = [entry for item in self.written for entry in item.entries.values()]
        for item in self.written:
            for key, number in item.lengths.items():
                self.lengths[key] = self.lengths.get(key, 0) + number
            self.dropped += item.unproved
        starts = np.cumsum([0, *(part.tally.kept for part in self.parts)])
        refused = [start + row for start, item in zip(starts, self.written, strict=False) for row in item.refused]
        self.copies_of_refused = self.decisions.count_copies(refused)
        splits = {
            split: Split(
                num_records=sum(item.counts[split] for item in self.written),
                files=tuple(item.entries[split].path for item in self.written if split in item.entries),
            )
            for split in sorted(self.kept)
        }
        for split in sorted(self.decisions.expected_splits):
            check_not_empty(self.name, split, splits[split].num_records, total, self.dropped)
        print(f"{self.name}: " + ", ".join(f"{item.num_records:,} {name}" for name, item in splits.items()), flush=True)
        counts = self.counts()
        if counts.kept + sum(counts.dropped.values()) != counts.read:
            raise AssertionError(f"{self.name}: rows were lost: {counts}")
        if model and self.details().proved != counts.kept:
            raise AssertionError(f"{self.name}: records were kept without a proof")
        return Pool(name=self.name, splits=splits)

    def counts(self) -> RowCounts:
        """Rows read, kept, dropped by reason and changed by rule."""
        tallies = [part.tally for part in self.parts]

        def summed(name: str) -> dict[str, int]:
            return dict(sorted((+sum((getattr(tally, name) for tally in tallies), Counter())).items()))

        return RowCounts(
            read=sum(tally.read for tally in tallies),
            kept=sum(sum(item.counts.values()) for item in self.written),
            dropped=dict(sorted((Counter(summed("dropped")) + self.dropped).items())),
            changed=summed("changed"),
            control_tokens=summed("found"),
            personal_data=summed("personal"),
            consent=summed("consent"),
            schemas=tuple(sorted({tally.schema for tally in tallies if tally.schema})),
        )

    def labels(self) -> dict[str, dict[str, int]]:
        """Records by label: as read, and by split."""
        out: dict[str, Counter[str]] = {}
        for part in self.parts:
            out.setdefault("read", Counter()).update(part.tally.labels_read)
        for item in self.written:
            for split, labels in item.labels.items():
                out.setdefault(split, Counter()).update(labels)
        hide = self.job.rules.personal.hide
        return {
            split: _summed([(hide(label), n) for label, n in labels.items()]) for split, labels in out.items() if labels
        }

    def details(self) -> PoolDetails:
        """Examples, clusters, conflicts, languages, tokens and the proof."""
        examples: dict[str, tuple[tuple[str, str, str], ...]] = {}
        for part in self.parts:
            for rule, items in part.tally.examples.items():
                examples[rule] = (*examples.get(rule, ()), *((place, old, new) for place, old, new in items))[:3]
        return PoolDetails(
            examples=dict(sorted(examples.items())),
            near_duplicates=self.decisions.list_clusters(),
            num_conflicts=self.decisions.num_conflicts,
            conflicts=tuple(self.decisions.conflicts),
            label_words_in_question=self.decisions.num_label_words,
            languages=dict(sum((item.languages for item in self.written), Counter()).most_common()),
            tokens=sum(item.tokens for item in self.written),
            proved=sum(item.proved for item in self.written),
            copies_of_refused=self.copies_of_refused,
            control_ids=sum(item.control_ids for item in self.written),
        )

    def notes(self) -> Iterator[bytes]:
        """A quarantine line for every record that was dropped as a copy."""
        at = 0
        for part in self.parts:
            for line, reason, copy_of in self.decisions.dropped(slice(at, at + part.tally.kept)):
                yield note_line(self.name, part.source.name, line, "dropped", reason, copy_of)
            at += part.tally.kept
        for item in self.written:
            yield from item.notes


def _summed(pairs: list[tuple[str, int]]) -> dict[str, int]:
    out: Counter[str] = Counter()
    for key, number in sorted(pairs):
        out[key] += number
    return dict(out)


def _describe(job: Job) -> SanitizeRules:
    personal, choice = job.rules.personal, job.choice
    return SanitizeRules(
        markers=job.rules.markers.mode,
        extra_markers=job.rules.markers.extra,
        also_normalise=job.rules.also,
        personal_data=dict(personal.policies) or {"default": "redact"},
        consent_required=job.rules.consent.required,
        max_bad_ratio=job.rules.max_bad_ratio,
        **{key: value for key, value in vars(choice).items() if key != "seed"},
    )


@contextmanager
def _work_folder(uri: str) -> Iterator[str]:
    if uri:
        yield uri
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def _num_workers(sources: Sequence[SourceFile]) -> int:
    sizes = {source.uri: storage.file_size(source.uri) for source in sources}
    return 1 if sum(sizes.values()) < _ALONE_BYTES else min(len(sources), os.cpu_count() or 1)


def _check_bad(parts: list[Part], max_bad_ratio: float) -> None:
    tallies: dict[str, list[Tally]] = {}
    for part in parts:
        tallies.setdefault(part.source.uri, []).append(part.tally)
    for uri, items in tallies.items():
        check_bad(uri, items, max_bad_ratio)


def _write_quarantine(parts: list[Part], made: dict[str, PoolBuilder], uri: str) -> storage.FileEntry:
    """Every record that was dropped or changed, by file, line and rule; nothing of its content."""
    with storage.open_write(uri) as stream:
        for part in parts:
            with storage.open_read(f"{part.uri}.notes") as notes:
                stream.write(notes.read())
        for builder in made.values():
            for note in builder.notes():
                stream.write(note)
    return stream.entry("quarantine.jsonl")
