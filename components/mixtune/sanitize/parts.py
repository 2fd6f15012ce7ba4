"""Parts: the results of one byte range of one file, on disk: clean records, their features, notes, a tally.

A part's tally is written last: its presence means that the part is whole, so that a killed run, or a pod of an
Indexed Job, goes on where it was. Parts depend on their input alone, never on how many processes make them.
"""

import gc
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import xxhash

from mixtune import storage
from mixtune.artifacts import pools
from mixtune.benchmark_files import read_asked
from mixtune.errors import DataError, MixtuneError
from mixtune.ngrams import Sets
from mixtune.records import Record
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile, Tally, describe_unusable
from mixtune.sanitize.dedup.fingerprints import BATCH, TextIndex, fingerprint_records, holds_label, index_texts
from mixtune.sanitize.reading.fields import JUDGING, fold

BLOCKED = ("", "in a benchmark", "in another pool")
"""Reasons by code for which a training record is blocked: a protected text stands in it."""
KEYS = ("exact", "key", "prompt", "numbers", "gist", "gist_prompt")
"""Features that are digests, as `Fingerprints.keys` has them."""
NUM_HASHES = 126
"""MinHash values per record."""
_SEED = 42
_FORMAT = 5
"""Of the files of a part; raised when they change."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How parts are made."""

    rules: Rules
    benchmarks: tuple[tuple[str, str, str], ...] = ()
    """Name and URI of what no training record may hold, and the column that asks; empty: found by its name."""
    held_out: str = ""
    """URI of a `TextIndex` of what other pools hold back; empty: there is none."""
    held_out_digest: str = ""
    near: bool = True
    """Whether near-duplicates are looked for."""
    work_uri: str
    """Folder for the parts."""


@dataclass(frozen=True)
class Part:
    """A finished part."""

    source: SourceFile
    uri: str
    """Its files are this plus `.jsonl.zst`, `.npz`, `.notes` and `.json`."""
    tally: Tally

    def features(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return features of its records by name (see `Features`)."""
        return read_arrays(f"{self.uri}.npz", names)

    def lines(self) -> Iterator[bytes]:
        """Yield its records as lines."""
        return pools.read_lines(f"{self.uri}.jsonl.zst")


class Features:
    """Collects the features of a part's records: arrays with a row per record."""

    def __init__(self, near: bool, blocking: Sequence[TextIndex] = ()) -> None:
        """Take the indexes of protected texts, in the order of BLOCKED."""
        self._rows: list[tuple[int, ...]] = []
        self._sets: dict[str, list[Sets]] = {"question": [], "answer": [], "anchors": []}
        self._minhash: list[np.ndarray] = []
        self._labels: list[int] = []
        self._near, self._blocking = near, blocking
        self._pending: list[Record] = []

    def add(self, record: Record) -> None:
        """Add a record."""
        self._pending.append(record)
        if len(self._pending) == BATCH:
            self._flush()

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the arrays: the keys of a record's fingerprints, group, line, label_words, blocked, label (records,).

        And `anchors`; with near-duplicates also shingles (`question`, `answer`) and `minhash`. Sets have their offsets.
        """
        self._flush()
        names = (*KEYS, "group", "line", "label_words", "blocked")
        table = np.array(self._rows, np.uint64).reshape(len(self._rows), len(names))
        out = {name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(names)}
        out["label"] = np.array(self._labels, np.uint64)
        for name, sets in self._sets.items():
            out[name] = np.concatenate([item.flat for item in sets] or [np.empty(0, np.uint32)])
            sizes = [np.diff(item.at) for item in sets]
            out[f"{name}_at"] = np.cumsum(np.concatenate([np.zeros(1, np.int64), *sizes]))
        if self._near:
            out["minhash"] = np.concatenate([np.empty((0, NUM_HASHES), np.uint32), *self._minhash])
        return out

    def _flush(self) -> None:
        records, self._pending = self._pending, []
        if not records:
            return
        prints = fingerprint_records(records)
        blocked = np.zeros(len(records), np.uint64)
        for number, index in reversed(list(enumerate(self._blocking, start=1))):
            blocked[prints.owners[index.find(prints.words, prints.contents)]] = number
        for record, keys, block in zip(records, prints.keys, blocked.tolist(), strict=True):
            group = xxhash.xxh3_64_intdigest(record["group"].encode()) if "group" in record else 0
            self._rows.append((*keys, group, record["origin"]["line"], int(holds_label(record)), block))
            self._labels.append(xxhash.xxh3_64_intdigest(record["label"].encode()) if "label" in record else 0)
        self._sets["anchors"].append(prints.anchors())
        if self._near:
            questions, answers = prints.shingles(0), prints.shingles(1)
            self._sets["question"].append(questions)
            self._sets["answer"].append(answers)
            self._minhash.append(minhash(questions))


def minhash(sets: Sets) -> np.ndarray:
    """Return the MinHash values of sets, uint32 (sets, NUM_HASHES) (Broder 1997; by rensa)."""
    from rensa import RMinHash

    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        sets.flat.astype(np.uint64), sets.at.astype(np.uint64), num_perm=NUM_HASHES, seed=_SEED
    )
    return np.array(matrix.to_rows(), np.uint32)


def make_part(source: SourceFile, plan: Plan, number: int) -> Part:
    """Clean one part into the plan's folder, or read it from there if it is finished.

    Raises:
        DataError: The file cannot be read.
        ConfigError: The column mapping does not fit it.
    """
    uri = storage.join(plan.work_uri, f"{number:05d}")
    digest = _digest(source, plan)
    if storage.file_exists(f"{uri}.json"):
        finished = storage.read_json(f"{uri}.json")
        if finished.pop("digest") == digest:
            plain = {key: finished.pop(key) for key in ("examples", "first_lines")}
            counters = {key: Counter(value) if isinstance(value, dict) else value for key, value in finished.items()}
            return Part(source, uri, Tally(**counters, **plain))  # type: ignore[arg-type]
    blocking = (_benchmarks(plan.benchmarks), _index(plan.held_out)) if source.split == "train" else ()
    cleaner, features = Cleaner(source, plan.rules), Features(plan.near, blocking)

    def records() -> Iterator[Record]:
        for record in cleaner.records():
            features.add(record)
            yield record

    try:
        with _few_collections():
            pools.write_records(f"{uri}.jsonl.zst", records())
    except MixtuneError as error:
        if source.name in str(error):
            raise
        raise type(error)(f"{source.name}: {error}") from error
    write_arrays(f"{uri}.npz", features.arrays())
    with storage.open_write(f"{uri}.notes") as stream:
        stream.write(b"".join(cleaner.notes))
    storage.write_json(f"{uri}.json", {**vars(cleaner.tally), "digest": digest})
    tally = cleaner.tally
    print(f"{source.pool}: {source.name}, {tally.schema}: {tally.read:,} rows, {tally.kept:,} kept", flush=True)
    if tally.unusable:
        print(f"{source.pool}: {source.name}, not usable: {describe_unusable([tally])}", flush=True)
    if tally.unread:
        names = ", ".join(f"{name} ({number:,})" for name, number in tally.unread.most_common(10))
        print(f"{source.pool}: {source.name}, not read, or worth a look: {plan.rules.personal.hide(names)}", flush=True)
    if judging := ", ".join(name for name in tally.unread if fold(name.removeprefix("messages.")) in JUDGING):
        ways = "a column `accepted`, true or false, says which rows go"
        print(f"{source.pool}: {source.name}: no row was left out for its {judging}; {ways}", flush=True)
    return Part(source, uri, tally)


@contextmanager
def _few_collections() -> Iterator[None]:
    """Collect garbage seldom: records have no cycles, and looking for them takes a twelfth of the time."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def read_benchmark(name: str, uri: str, question: str) -> Iterator[str]:
    """Yield a benchmark's prompts; a DataError where it cannot be read, or an item asks nothing."""
    try:
        yield from read_asked(uri, question)
    except DataError as error:
        raise DataError(f"benchmarks: {name}, {error}") from error


@lru_cache(maxsize=1)
def _benchmarks(places: tuple[tuple[str, str, str], ...]) -> TextIndex:
    return index_texts(prompt for place in places for prompt in read_benchmark(*place))


@lru_cache(maxsize=4)
def _index(uri: str) -> TextIndex:
    return TextIndex(**read_arrays(uri)) if uri else index_texts(())


def _digest(source: SourceFile, plan: Plan) -> str:
    """Return the digest of what a part depends on: the file's bytes, the range, the rules, the code's version."""
    from mixtune import __version__

    indexed = [plan.benchmarks, plan.held_out_digest, plan.near]
    value = [asdict(source), asdict(plan.rules), indexed, _FORMAT, __version__]
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, default=sorted).encode())


def write_arrays(uri: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name (npz)."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with storage.open_write(uri) as stream:
        stream.write(buffer.getvalue())


def read_arrays(uri: str, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Return arrays by name; without names, all of a file."""
    with storage.open_read(uri) as stream, np.load(stream, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in names or arrays.files}
