"""What no training record may repeat: the records of other pools, and the items of benchmarks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import xxhash

from mixtune import storage
from mixtune.artifacts.pools import read_pools
from mixtune.ngrams import NGRAM, words
from mixtune.records import Record
from mixtune.sanitize.dedup.fingerprints import index_items
from mixtune.sanitize.parts import Features, Plan, read_arrays, read_benchmark, write_arrays

_BLOCK = 10_000
"""Records whose features are one file."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """Records of other pools and items of benchmarks, in order."""

    key: np.ndarray
    """Digests of what they say, uint64 (records,)."""
    benchmark: np.ndarray
    """Whether it is a benchmark's item, bool (records,)."""
    any_answer: np.ndarray
    """Whether its question alone counts, bool (records,): it does where the record is held back or an item."""
    uris: tuple[str, ...]
    """Their features (see `Features`), some records to a file."""

    def blocks(self, names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
        """Features by name, file by file."""
        return (read_arrays(uri, names) for uri in self.uris)


def make_guard(pools_path: str, plan: Plan) -> Guard | None:
    """What the records of other pools and, for near copies, the benchmarks' items say, into the plan's work folder.

    None where there are none.
    """
    keys, kinds, uris = [np.empty(0, np.uint64)], list[tuple[bool, bool]](), list[str]()
    records = _guarded(pools_path, plan)
    while some := list(islice(records, _BLOCK)):
        features = Features(plan.near)
        for benchmark, any_answer, record in some:
            features.add(record)
            kinds.append((benchmark, any_answer))
        arrays = features.arrays()
        keys.append(arrays["key"])
        uris.append(storage.join(plan.work_uri, f"guard-{len(uris):05d}.npz"))
        write_arrays(uris[-1], arrays)
    if not kinds:
        return None
    benchmark, any_answer = np.array(kinds, bool).T
    return Guard(key=np.concatenate(keys), benchmark=benchmark, any_answer=any_answer, uris=tuple(uris))


def _guarded(pools_path: str, plan: Plan) -> Iterator[tuple[bool, bool, Record]]:
    for split, record in _records(pools_path):
        yield False, split != "train", record
    for name, uri in plan.benchmarks if plan.near else ():
        for prompt in read_benchmark(name, uri):
            asked: Any = [{"role": "user", "content": prompt}, {"role": "assistant", "content": ""}]
            yield True, True, {"id": "", "messages": asked, "origin": {"file": name, "line": 0}}


def index_held_back(pools_path: str, work: str) -> tuple[str, str]:
    """Index the texts that other pools hold back, into the work folder: the index's URI and its digest.

    Texts of fewer words than a 13-gram stay out: `yes` is no leak.
    """
    texts = (
        message["content"]
        for split, record in _records(pools_path)
        for message in record["messages"]
        if split != "train" and message["role"] != "system" and len(words(message["content"])) >= NGRAM
    )
    uri, arrays = storage.join(work, "held.npz"), vars(index_items(texts))
    if not len(arrays["exact"]):
        return "", ""
    write_arrays(uri, arrays)
    return uri, xxhash.xxh3_128_hexdigest(b"".join(array.tobytes() for array in arrays.values()))


def _records(pools_path: str) -> Iterator[tuple[str, Record]]:
    """Split and record of all pools of an artifact; none without one."""
    if not pools_path:
        return
    against = read_pools(pools_path)
    for pool in against.pools:
        for split in pool.splits:
            for record in against.records(pool.name, split):
                yield split, record
