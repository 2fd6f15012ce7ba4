"""What no training record may repeat: the records of other pools, and the items of benchmarks."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xxhash

from mixtune import storage
from mixtune.pools import read_pools
from mixtune.records import Record
from mixtune.sanitize.duplicates import NGRAM, index_items
from mixtune.sanitize.parts import Features, Plan, read_benchmark, write_arrays
from mixtune.sanitize.words import words


def make_guard(pools_path: str, plan: Plan) -> dict[str, np.ndarray] | None:
    """What the records of other pools and, for near copies, the benchmarks' items say; None where there are none.

    Returns:
        The arrays of `Features`, and for each record `benchmark`, whether it is an item, and `any_answer`, whether its
        question alone counts: it does where the record is held back or an item.
    """
    features, kinds = Features(plan.near), list[tuple[bool, bool]]()
    for split, record in _records(pools_path):
        features.add(record)
        kinds.append((False, split != "train"))
    for name, uri in plan.benchmarks if plan.near else ():
        for prompt in read_benchmark(name, uri):
            asked: Any = [{"role": "user", "content": prompt}, {"role": "assistant", "content": ""}]
            features.add({"id": "", "messages": asked, "origin": {"file": name, "line": 0}})
            kinds.append((True, True))
    if not kinds:
        return None
    benchmark, any_answer = np.array(kinds).T
    return {**features.arrays(), "benchmark": benchmark, "any_answer": any_answer}


def index_held_back(pools_path: str, work: str) -> tuple[str, str]:
    """Index the texts that other pools hold back, into the work folder: the index's URI and its digest.

    Texts of fewer words than a 13-gram stay out: `yes` is no leak.
    """
    texts = [
        message["content"]
        for split, record in _records(pools_path)
        for message in record["messages"]
        if split != "train" and message["role"] != "system" and len(words(message["content"])) >= NGRAM
    ]
    if not texts:
        return "", ""
    uri, arrays = storage.join(work, "held.npz"), vars(index_items(texts))
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
