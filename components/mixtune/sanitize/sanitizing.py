"""Sources to pools: clean every file, drop what repeats, hold records back, write pools and say what was done."""

import json
import multiprocessing
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mixtune import models, storage
from mixtune.errors import ConfigError
from mixtune.pools import Pool, Split, pool_summary, read_pools, read_records, write_records
from mixtune.records import Record
from mixtune.sanitize.cleaning import Rules, SourceFile, Tally, clean_file, control_tokens
from mixtune.sanitize.duplicates import Benchmarks, record_key
from mixtune.sanitize.markers import Markers
from mixtune.sanitize.readers import read_rows, source_files
from mixtune.sanitize.report import write_report
from mixtune.sanitize.splits import check_not_empty, draw_split

_SOURCE_KEYS = {"name", "uri", "columns", "split"}


@dataclass(frozen=True, kw_only=True)
class Job:
    """One call of sanitize."""

    sources: list[dict[str, Any]]
    against_path: str = ""
    """Manifest of pools whose records no training record may repeat; empty: none."""
    benchmarks: dict[str, Any] = field(default_factory=dict)
    base_model: str = ""
    test_ratio: float = 0.1
    """Share of a pool held back as `test` where no source gives it one, 0 to below 1."""
    holdout_records: int = 0
    """Records of each pool held back as `holdout`, at most a tenth of it."""
    seed: int = 42
    rules: Rules = field(default_factory=Rules)

    def __post_init__(self) -> None:
        if not 0 <= self.test_ratio < 1:
            raise ConfigError(f"test_ratio is a share, 0 to below 1; got {self.test_ratio}")
        if self.holdout_records < 0:
            raise ConfigError(f"holdout_records is 0 or more; got {self.holdout_records}")


@dataclass(frozen=True)
class Cleaned:
    """A cleaned file on scratch disk."""

    source: SourceFile
    records: Path
    notes: Path
    tally: Tally


def make_rules(markers: str, extra_markers: list[str], max_bad_ratio: float) -> Rules:
    """The rules that the shell's options name."""
    return Rules(markers=Markers(markers, tuple(extra_markers)), max_bad_ratio=max_bad_ratio)


def sanitize(job: Job, pools_path: str, data: str, report_path: str, summary_path: str) -> dict[str, Any]:
    """Sanitize sources into a pools artifact; its manifest comes back.

    Raises:
        ConfigError: A source or an option is not as it should be.
        DataError: A file cannot be used, or a split would be empty.
    """
    files = list_sources(job.sources)
    rules = replace(job.rules, control_tokens=_control_tokens(job.base_model))
    guard = Guard(job)
    with tempfile.TemporaryDirectory() as scratch:
        cleaned = clean_all(files, rules, Path(scratch))
        entries, pools, tallies = [], [], {}
        for name in dict.fromkeys(file.pool for file in files):
            pool = PoolBuilder(name, [item for item in cleaned if item.source.pool == name], job, guard)
            written, made = pool.write(data)
            entries += written
            pools.append(made)
            tallies[name] = pool
        entries.append(_write_quarantine(cleaned, list(tallies.values()), storage.join(data, "quarantine.jsonl")))
    manifest = {
        "kind": "pools",
        "pools": pool_summary(pools),
        "counts": {name: builder.counts() for name, builder in tallies.items()},
        "labels": {name: builder.labels for name, builder in tallies.items()},
        "lengths": {name: builder.lengths for name, builder in tallies.items()},
        "inputs": [{key: value for key, value in source.items() if key != "columns"} for source in job.sources],
        "rules": {"markers": rules.markers.mode, "test_ratio": job.test_ratio, "holdout_records": job.holdout_records},
        "seed": job.seed,
    }
    write_report(manifest, report_path, summary_path)
    storage.write_manifest(pools_path, manifest, data, entries)
    return manifest


def list_sources(sources: list[dict[str, Any]]) -> list[SourceFile]:
    """The files of all sources, in order.

    Raises:
        ConfigError: No source, an unknown or missing key, or a split that is not `train` or `test`.
        DataError: Nothing is there, or its bytes changed since they were fingerprinted.
    """
    if not sources:
        raise ConfigError("sources is empty; give at least one {name, uri}")
    files = []
    for number, source in enumerate(sources, start=1):
        if unknown := sorted(set(source) - _SOURCE_KEYS):
            raise ConfigError(f"sources, entry {number}: unknown key {unknown[0]!r}; there are {sorted(_SOURCE_KEYS)}")
        if missing := sorted({"name", "uri"} - set(source)):
            raise ConfigError(f"sources, entry {number}: {missing[0]!r} is missing")
        split = source.get("split") or "train"
        if split not in ("train", "test"):
            raise ConfigError(f"sources, entry {number}: split is 'train' or 'test'; got {split!r}")
        for uri in source_files(storage.check_fingerprint(source["uri"])):
            columns = dict(source.get("columns") or {})
            files.append(SourceFile(pool=source["name"], split=split, uri=uri, columns=columns))
    return files


def clean_all(files: list[SourceFile], rules: Rules, scratch: Path) -> list[Cleaned]:
    """Clean every file, several at once in processes of their own; the order of the files stays."""
    targets = [(scratch / f"{n:05d}.jsonl.zst", scratch / f"{n:05d}.notes") for n in range(len(files))]
    jobs = [(file, rules, *target) for file, target in zip(files, targets, strict=True)]
    workers = min(len(files), os.cpu_count() or 1)
    if workers == 1:
        tallies = [clean_file(*job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as executor:
            tallies = list(executor.map(clean_file, *zip(*jobs, strict=True)))
    return [Cleaned(file, *target, tally) for file, target, tally in zip(files, targets, tallies, strict=True)]


class Guard:
    """What no training record may repeat: benchmarks, and records of other pools."""

    def __init__(self, job: Job) -> None:
        self.benchmarks = Benchmarks()
        for name, options in job.benchmarks.items():
            if options.get("uri"):
                _add_benchmark(self.benchmarks, name, storage.check_fingerprint(options["uri"]))
        self.elsewhere: set[int] = set()
        if job.against_path:
            against = read_pools(job.against_path)
            for pool in against.pools:
                for split in pool.splits:
                    self.elsewhere.update(map(record_key, against.records(pool.name, split)))

    def reason(self, record: Record, key: int) -> str:
        """Why a record may not be trained on; empty where it may."""
        if key in self.elsewhere:
            return "in another pool"
        if self.benchmarks.holds(message["content"] for message in record["messages"]):
            return "in a benchmark"
        return ""


class PoolBuilder:
    """One pool: what is kept of its cleaned files, and in which split."""

    def __init__(self, name: str, cleaned: list[Cleaned], job: Job, guard: Guard) -> None:
        self.name, self.cleaned, self.job, self.guard = name, cleaned, job, guard
        self.dropped: Counter[str] = Counter()
        self.notes: list[dict[str, Any]] = []
        self.labels: dict[str, dict[str, int]] = {}
        self.lengths: dict[str, int] = {}
        self.kept = 0

    def write(self, data: str) -> tuple[list[storage.FileEntry], Pool]:
        """Write the pool's splits."""
        members = {"test": list(self._unique("test", set())), "train": []}
        test_keys = {key for key, *_ in members["test"]}
        members["train"] = list(self._unique("train", test_keys))
        chosen = self._choose(members)
        entries, splits = [], {}
        for split, places in sorted(chosen.items()):
            check_not_empty(self.name, split, len(places), sum(len(value) for value in members.values()))
            path = f"{self.name}/{split}-00000.jsonl.zst"
            entry = write_records(storage.join(data, path), self._records(split, places))
            entries.append(replace(entry, path=path))
            splits[split] = Split(num_records=len(places), files=(path,))
            self.kept += len(places)
        print(f"{self.name}: " + ", ".join(f"{item.num_records:,} {name}" for name, item in splits.items()), flush=True)
        if self.kept + sum(self.counts()["dropped"].values()) != self.counts()["read"]:
            raise AssertionError(f"{self.name}: rows were lost: {self.counts()}")
        return entries, Pool(name=self.name, splits=splits)

    def counts(self) -> dict[str, Any]:
        """Rows read, kept, dropped by reason and changed by rule."""
        tallies = [item.tally for item in self.cleaned]
        dropped = sum((tally.dropped for tally in tallies), Counter()) + self.dropped
        return {
            "read": sum(tally.read for tally in tallies),
            "kept": self.kept,
            "dropped": dict(sorted(dropped.items())),
            "changed": dict(sorted(sum((tally.changed for tally in tallies), Counter()).items())),
            "control_tokens": dict(sorted(sum((tally.found for tally in tallies), Counter()).items())),
            "schemas": sorted({tally.schema for tally in tallies}),
        }

    def _unique(self, split: str, taken: set[int]) -> Iterator[tuple[int, str, str, tuple[int, int]]]:
        """Key, label, group and place of the records of a split that stay; the others are counted."""
        seen: set[int] = set()
        for number, item in enumerate(self.cleaned):
            if item.source.split != split:
                continue
            for row, record in enumerate(read_records(str(item.records))):
                key = record_key(record)
                reason = "duplicate" if key in seen else "in the test set" if key in taken else ""
                reason = reason or (self.guard.reason(record, key) if split == "train" else "")
                seen.add(key)
                if reason:
                    self.dropped[reason] += 1
                    at = record["origin"]
                    self.notes.append({"pool": self.name, **at, "what": "dropped", "rule": reason})
                else:
                    yield key, record.get("label", ""), record.get("group", ""), (number, row)

    def _choose(self, members: dict[str, list[Any]]) -> dict[str, set[tuple[int, int]]]:
        """Places of the records by split."""
        train, chosen = members["train"], {}
        held = "holdout" if self.job.holdout_records else "test"
        wanted = min(self.job.holdout_records, len(train) // 10)
        if members["test"]:
            chosen["test"] = {place for *_, place in members["test"]}
        elif held == "test":
            wanted = round(self.job.test_ratio * len(train))
        labels, groups = [item[1] for item in train], [item[2] for item in train]
        back: set[int] = set()
        asked = self.job.holdout_records > 0 or (self.job.test_ratio > 0 and not members["test"])
        if asked:
            back = draw_split(labels, groups, wanted, f"{self.job.seed} {self.name} {held}")
            chosen[held] = {train[index][3] for index in back}
        chosen["train"] = {item[3] for index, item in enumerate(train) if index not in back}
        return chosen

    def _records(self, split: str, places: set[tuple[int, int]]) -> Iterator[Record]:
        counts: Counter[str] = Counter()
        for number, item in enumerate(self.cleaned):
            for row, record in enumerate(read_records(str(item.records))):
                if (number, row) in places:
                    counts[record.get("label", "")] += 1
                    length = sum(len(message["content"]) for message in record["messages"])
                    key = f"< {1 << max(4, length.bit_length())} characters"
                    self.lengths[key] = self.lengths.get(key, 0) + 1
                    yield record
        self.labels[split] = {label: count for label, count in sorted(counts.items()) if label}


def _add_benchmark(benchmarks: Benchmarks, name: str, uri: str) -> None:
    """Take a benchmark's prompts: `question` (MMLU's form) or `prompt` (IFEval's)."""
    for file in source_files(uri):
        for row in read_rows(file):
            prompt = row.value.get("question") or row.value.get("prompt")
            if not isinstance(prompt, str):
                raise ConfigError(f"benchmarks: {name}, {file} row {row.line}: neither a question nor a prompt")
            benchmarks.add(prompt)


def _control_tokens(base_model: str) -> tuple[str, ...]:
    if not base_model:
        return ()
    return control_tokens(models.fetch_model(base_model, weights=False))


def _write_quarantine(cleaned: list[Cleaned], builders: list[PoolBuilder], uri: str) -> storage.FileEntry:
    """Every record that was dropped or changed, by file, line and rule; nothing of its content."""
    with storage.open_write(uri) as stream:
        for item in cleaned:
            stream.write(item.notes.read_bytes())
        for builder in builders:
            for note in builder.notes:
                stream.write((json.dumps(note, ensure_ascii=False) + "\n").encode())
    return stream.entry("quarantine.jsonl")
