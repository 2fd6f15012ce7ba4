"""Parts: what one byte range of one file became, on disk: clean records, what they say in numbers, notes, a tally.

A part's tally is written last: its presence means that the part is whole, so that a killed run, or a pod of an
Indexed Job, goes on where it was. Parts depend on their input alone, never on how many processes make them.
"""

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np
import xxhash

from mixtune import pools, storage
from mixtune.errors import ConfigError, MixtuneError
from mixtune.records import Record
from mixtune.sanitize.cleaning import Cleaner, Rules, SourceFile, Tally
from mixtune.sanitize.duplicates import Items, holds_label, index_items, said
from mixtune.sanitize.readers import read_rows, source_files

BLOCKED = ("", "in a benchmark", "in another pool")
"""Where else a training record's text stands, exactly or by most of an item's 13-grams."""
NUM_HASHES = 126
"""MinHash values per record."""
_SEED = 42


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How parts are made."""

    rules: Rules
    benchmarks: tuple[tuple[str, str], ...] = ()
    """Name and URI of what no training record may hold."""
    held: str = ""
    """URI of an index (`Items`) of what other pools hold back; empty: there is none."""
    held_digest: str = ""
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

    def features(self) -> dict[str, np.ndarray]:
        """What its records say, in arrays by name (see `Features`)."""
        return _read_arrays(f"{self.uri}.npz")

    def lines(self) -> Iterator[bytes]:
        """Its records as lines."""
        return pools.read_lines(f"{self.uri}.jsonl.zst")


class Features:
    """Collects what the records of a part say: arrays with a row per record."""

    def __init__(self, near: bool) -> None:
        self._rows: list[tuple[int, ...]] = []
        self._questions: list[np.ndarray] = []
        self._answers: list[np.ndarray] = []
        self._labels: list[str] = []
        self._near = near

    def add(self, record: Record, blocked: int = 0) -> None:
        """Take a record; `blocked` says where else its text stands (see BLOCKED)."""
        what = said(record)
        group = xxhash.xxh3_64_intdigest(record["group"].encode()) if "group" in record else 0
        chars = sum(len(message["content"]) for message in record["messages"])
        line = record["origin"]["line"]
        self._rows.append((what.key, what.prompt, what.numbers, group, line, chars, blocked, int(holds_label(record))))
        self._labels.append(record.get("label", ""))
        if self._near:
            self._questions.append(what.question)
            self._answers.append(what.answer)

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays: key, prompt, numbers, group, line, chars, blocked, label_words, label, each (records,).

        With near-duplicates also shingles (`question`, `answer`, and their offsets) and `minhash`.
        """
        names = ("key", "prompt", "numbers", "group", "line", "chars", "blocked", "label_words")
        table = np.array(self._rows, np.uint64).reshape(len(self._rows), len(names))
        out = {name: np.ascontiguousarray(table[:, place]) for place, name in enumerate(names)}
        out["label"] = np.array(self._labels, np.str_)
        if self._near:
            out["question"], out["question_at"] = _flat(self._questions)
            out["answer"], out["answer_at"] = _flat(self._answers)
            out["minhash"] = minhash(out["question"], out["question_at"])
        return out


def minhash(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """MinHash values of sets that lie one after another, uint32 (sets, NUM_HASHES) (Broder 1997; by rensa)."""
    from rensa import RMinHash

    if len(offsets) == 1:
        return np.empty((0, NUM_HASHES), np.uint32)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        flat.astype(np.uint64), offsets.astype(np.uint64), num_perm=NUM_HASHES, seed=_SEED
    )
    return np.array(matrix.to_rows(), np.uint32)


def make_part(source: SourceFile, plan: Plan, number: int) -> Part:
    """Clean one part into the plan's folder, or take it from there if it is finished.

    Raises:
        DataError: The file cannot be read.
        ConfigError: The column mapping does not fit it.
    """
    uri = storage.join(plan.work_uri, f"{number:05d}")
    what = _digest(source, plan)
    if storage.file_exists(f"{uri}.json"):
        done = storage.read_json(f"{uri}.json")
        if done.pop("digest") == what:
            counters = {key: Counter(value) if isinstance(value, dict) and key != "examples" else value
                        for key, value in done.items()}  # fmt: skip
            return Part(source, uri, Tally(**counters))  # type: ignore[arg-type]
    cleaner, features = Cleaner(source, plan.rules), Features(plan.near)
    blocking = (_benchmarks(plan.benchmarks), _held_back(plan.held)) if source.split == "train" else ()

    def seen() -> Iterator[Record]:
        for record in cleaner.records():
            texts = [message["content"] for message in record["messages"]]
            features.add(record, next((place for place, items in enumerate(blocking, 1) if items.hold(texts)), 0))
            yield record

    try:
        pools.write_records(f"{uri}.jsonl.zst", seen())
    except MixtuneError as error:
        if source.name in str(error):
            raise
        raise type(error)(f"{source.name}: {error}") from error
    write_arrays(f"{uri}.npz", features.arrays())
    with storage.open_write(f"{uri}.notes") as stream:
        stream.write(b"".join(cleaner.notes))
    storage.write_json(f"{uri}.json", {**vars(cleaner.tally), "digest": what})
    tally = cleaner.tally
    print(f"{source.pool}: {source.name}, {tally.schema}: {tally.read:,} rows, {tally.kept:,} kept", flush=True)
    return Part(source, uri, tally)


def read_benchmark(name: str, uri: str) -> Iterator[str]:
    """A benchmark's prompts: `question` (MMLU's form) or `prompt` (IFEval's).

    Raises:
        ConfigError: An item has neither.
    """
    for file in source_files(storage.check_fingerprint(uri)):
        for row in read_rows(file):
            prompt = row.value.get("question") or row.value.get("prompt")
            if not isinstance(prompt, str):
                raise ConfigError(f"benchmarks: {name}, {file} row {row.line}: neither a question nor a prompt")
            yield prompt


@lru_cache(maxsize=1)
def _benchmarks(named: tuple[tuple[str, str], ...]) -> Items:
    return index_items(prompt for name, uri in named for prompt in read_benchmark(name, uri))


@lru_cache(maxsize=1)
def _held_back(uri: str) -> Items:
    return Items(**_read_arrays(uri)) if uri else index_items(())


def _digest(source: SourceFile, plan: Plan) -> str:
    """What a part is made of: the file's bytes, the range, the rules, the code's version."""
    from mixtune import __version__

    value = [asdict(source), asdict(plan.rules), plan.benchmarks, plan.held_digest, plan.near, __version__]
    return xxhash.xxh3_128_hexdigest(json.dumps(value, sort_keys=True, default=sorted).encode())


def write_arrays(uri: str, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays by name (npz)."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    with storage.open_write(uri) as stream:
        stream.write(buffer.getvalue())


def _read_arrays(uri: str) -> dict[str, np.ndarray]:
    with storage.open_read(uri) as stream:
        return dict(np.load(io.BytesIO(stream.read()), allow_pickle=False))


def _flat(sets: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.concatenate([[0], np.cumsum([len(item) for item in sets])]).astype(np.int64)
    return (np.concatenate(sets) if sets else np.empty(0, np.uint32)), offsets
