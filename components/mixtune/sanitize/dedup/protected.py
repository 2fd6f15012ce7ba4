"""Protected records, which no training record may repeat: those of other pools, and the items of benchmarks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import islice

import numpy as np
import xxhash

from mixtune import storage
from mixtune.artifacts.pools import read_pools
from mixtune.ngrams import NGRAM, words
from mixtune.records import Message, Record
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile
from mixtune.sanitize.dedup.fingerprints import index_texts
from mixtune.sanitize.parts import Features, Plan, read_arrays, read_benchmark, write_arrays

_LEAST_TESTS = 20
"""Questions of a pool's own test files from which on they are indexed,"""
_TEMPLATE_RATIO = 0.05
"""and the share of them that a template stands in at least."""
_BLOCK = 10_000
"""Records whose features are one file."""


class Origin(IntEnum):
    """Where a record comes from; the protected origins come first."""

    BENCHMARK = 0
    HELD_OUT = 1
    """Held back by another pool: test, validation or holdout."""
    OTHER_TRAIN = 2
    """A training record of another pool."""
    TEST = 3
    TRAIN = 4

    @property
    def is_protected(self) -> bool:
        """Whether the record stands outside the pool that is decided on."""
        return self < Origin.TEST


@dataclass(frozen=True, kw_only=True)
class ProtectedRecords:
    """Records of other pools and items of benchmarks, in order."""

    key: np.ndarray
    """Digests of what they say, uint64 (records,)."""
    origin: np.ndarray
    """Codes of Origin, uint8 (records,)."""
    uris: tuple[str, ...]
    """Their features (see `Features`), some records to a file."""

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Yield features by name, file by file."""
        return (read_arrays(uri, names) for uri in self.uris)


def collect_protected(pools_path: str, plan: Plan) -> ProtectedRecords | None:
    """Write the features of other pools' records and, for near copies, of benchmark items into the work folder.

    None where there are none.
    """
    keys, origins, uris = list[np.ndarray](), list[Origin](), list[str]()
    records = _protected_records(pools_path, plan)
    while block := list(islice(records, _BLOCK)):
        features = Features(plan.near)
        for origin, record in block:
            features.add(record)
            origins.append(origin)
        arrays = features.arrays()
        keys.append(arrays["key"])
        uris.append(storage.join(plan.work_uri, f"protected-{len(uris):05d}.npz"))
        write_arrays(uris[-1], arrays)
    if not origins:
        return None
    return ProtectedRecords(key=np.concatenate(keys), origin=np.array(origins, np.uint8), uris=tuple(uris))


def _protected_records(pools_path: str, plan: Plan) -> Iterator[tuple[Origin, Record]]:
    for split, record in _records(pools_path):
        yield Origin.OTHER_TRAIN if split == "train" else Origin.HELD_OUT, record
    for name, uri in plan.benchmarks if plan.near else ():
        for prompt in read_benchmark(name, uri):
            messages: list[Message] = [{"role": "user", "content": prompt}, {"role": "assistant", "content": ""}]
            yield Origin.BENCHMARK, {"id": "", "messages": messages, "origin": {"file": name, "line": 0}}


def index_held_back(pools_path: str, work: str) -> tuple[str, str]:
    """Index the texts that other pools hold back in the work folder; return the index's URI and its digest.

    Texts of fewer words than a 13-gram stay out: `yes` is no leak. Both are empty where there are none.
    """
    texts = (
        message["content"]
        for split, record in _records(pools_path)
        for message in record["messages"]
        if split != "train" and message["role"] != "system" and len(words(message["content"])) >= NGRAM
    )
    uri, arrays = storage.join(work, "held-out.npz"), vars(index_texts(texts))
    if not len(arrays["exact"]):
        return "", ""
    write_arrays(uri, arrays)
    return uri, _digest_of(arrays)


def index_own_tests(files: Sequence[SourceFile], rules: Rules, work: str) -> tuple[tuple[str, str, str], ...]:
    """Index the questions of the pools' own test files in the work folder; return pool, URI and digest of each.

    Answers stay out: one answer to many questions is no leak. So do questions of fewer words than a 13-gram, and pools
    with so few of them that a template cannot be told from a question.
    """
    out = []
    for pool in sorted({file.pool for file in files}):
        tests = [file for file in files if file.pool == pool and file.split == "test"]
        texts = (
            message["content"]
            for file in tests
            for record in Cleaner(file, rules).records()
            for message in record["messages"]
            if message["role"] == "user" and len(words(message["content"])) >= NGRAM
        )
        arrays = vars(index_texts(texts, _TEMPLATE_RATIO))
        if len(arrays["exact"]) >= _LEAST_TESTS:
            uri = storage.join(work, f"own-{xxhash.xxh3_64_hexdigest(pool.encode())}.npz")
            write_arrays(uri, arrays)
            out.append((pool, uri, _digest_of(arrays)))
    return tuple(out)


def _digest_of(arrays: dict[str, np.ndarray]) -> str:
    return xxhash.xxh3_128_hexdigest(b"".join(array.tobytes() for array in arrays.values()))


def _records(pools_path: str) -> Iterator[tuple[str, Record]]:
    """Yield split and record of all pools of an artifact; none without one."""
    if not pools_path:
        return
    against = read_pools(pools_path)
    for pool in against.pools:
        for split in pool.splits:
            for record in against.records(pool.name, split):
                yield split, record
