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
from mixtune.sanitize.dedup.fingerprints import index_texts
from mixtune.sanitize.parts import Features, Plan, read_arrays, read_benchmark, write_arrays

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
    gist_prompt: np.ndarray
    """Digests of their questions without words that say nothing, uint64 (records,)."""
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
    keys, gists, origins, uris = list[np.ndarray](), list[np.ndarray](), list[Origin](), list[str]()
    records = _protected_records(pools_path, plan)
    while block := list(islice(records, _BLOCK)):
        features = Features(plan.near)
        for origin, record in block:
            features.add(record)
            origins.append(origin)
        arrays = features.arrays()
        keys.append(arrays["key"])
        gists.append(arrays["gist_prompt"])
        uris.append(storage.join(plan.work_uri, f"protected-{len(uris):05d}.npz"))
        write_arrays(uris[-1], arrays)
    if not origins:
        return None
    key, gist_prompt = np.concatenate(keys), np.concatenate(gists)
    return ProtectedRecords(key=key, gist_prompt=gist_prompt, origin=np.array(origins, np.uint8), uris=tuple(uris))


def _protected_records(pools_path: str, plan: Plan) -> Iterator[tuple[Origin, Record]]:
    for split, record in _records(pools_path):
        yield Origin.OTHER_TRAIN if split == "train" else Origin.HELD_OUT, record
    for name, *place in plan.benchmarks if plan.near else ():
        for prompt in read_benchmark(name, *place):
            messages: list[Message] = [{"role": "user", "content": prompt}, {"role": "assistant", "content": ""}]
            yield Origin.BENCHMARK, {"id": "", "messages": messages, "origin": {"file": name, "line": 0}}


def index_held_back(pools_path: str, work: str) -> tuple[str, str]:
    """Index the texts that other pools hold back in the work folder; return the index's URI and its digest.

    Texts of fewer words than a 13-gram stay out: `yes` is no leak. Both are empty where there are none.
    """
    held_back = (record["messages"] for split, record in _records(pools_path) if split != "train")
    contents = (turn["content"] for turns in held_back for turn in turns if turn["role"] != "system")
    texts = (text for text in contents if len(words(text)) >= NGRAM)
    uri, arrays = storage.join(work, "held-out.npz"), vars(index_texts(texts))
    if not len(arrays["exact"]):
        return "", ""
    write_arrays(uri, arrays)
    return uri, xxhash.xxh3_128_hexdigest(b"".join(array.tobytes() for array in arrays.values()))


def _records(pools_path: str) -> Iterator[tuple[str, Record]]:
    """Yield split and record of all pools of an artifact; none without one."""
    if not pools_path:
        return
    against = read_pools(pools_path)
    for pool in against.pools:
        for split in pool.splits:
            for record in against.records(pool.name, split):
                yield split, record
