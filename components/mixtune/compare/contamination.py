"""Benchmark items in the training data: whole, or in runs of thirteen words.

Shards hold token ids, so they are turned back into text by the tokenizer that the samples carry. Words are compared
in lower case without punctuation. An item counts as *found* when every run of its words is in one training record.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from mixtune import storage
from mixtune.artifacts.samples import TOKENIZER_FILE, Samples
from mixtune.artifacts.shards import Shards, open_shards
from mixtune.errors import DataError
from mixtune.evaluate.benchmarks.labels import normalise

RUN_WORDS = 13
MIN_WORDS = 8
"""Shorter items say too little to be looked for."""
MAX_NAMED = 20
_BASE = np.uint64(1_099_511_628_211)

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What of an axis's items is in the training data."""

    axis: str
    num_items: int
    searched: int
    """Items of at least eight words."""
    exact: int
    """Items that are in a training record from end to end; of at least thirteen words."""
    short_exact: int
    """The same for items of eight to twelve words, which may be common phrases."""
    partial: int
    """Items with at least half of their words in shared runs, but not found whole."""
    mean_coverage: float
    """Mean share of an item's words that are in runs of thirteen shared with one training record."""
    items: list[str] = field(default_factory=list)
    """Ids of items found whole, twenty at most."""


@dataclass(frozen=True)
class _Item:
    axis: str
    item_id: str
    words: Words

    @property
    def run(self) -> int:
        """Words of a run that is looked for."""
        return min(RUN_WORDS, len(self.words))


def check_contamination(samples: Samples, shards_path: str, folder: Path, *, allow: bool) -> list[Overlap]:
    """Look for the items of all axes in the training shards.

    Args:
        samples: The evaluation's samples, with the items' texts.
        shards_path: Manifest of the shards.
        folder: Local scratch space.
        allow: Go on although a benchmark's item is in the training data whole.

    Raises:
        DataError: A benchmark's item is in the training data, or the shards are of another tokenizer.
    """
    shards = open_shards(shards_path, folder / "shards")
    if shards.manifest["tokenizer_digest"] != samples.manifest["identity"]["tokenizer"]:
        raise DataError(
            "the shards were made with another tokenizer than the evaluation's; use one base model for both"
        )
    items = _items(samples)
    coverage = find_coverage(items, _texts(samples, shards, folder))
    overlaps = [_overlap(axis, len(samples.table(axis)), items, coverage) for axis in samples.axes]
    for found in overlaps:
        benchmark = samples.axes[found.axis]["form"] in ("mmlu", "ifeval", "lm_eval")
        if found.exact and benchmark and not allow:
            named = ", ".join(found.items[:5])
            raise DataError(
                f"{found.axis}: {found.exact} items are in the training data word for word ({named}); "
                "give the benchmark to sanitize, or set allow_overlap"
            )
    return overlaps


def find_coverage(items: list[_Item], texts: Iterator[str]) -> npt.NDArray[np.float64]:
    """Per item, the largest share of its words that one text shares in whole runs."""
    best = np.zeros(len(items))
    by_run: dict[int, tuple[Words, dict[int, list[tuple[int, int]]]]] = {}
    for run in sorted({item.run for item in items}):
        places: dict[int, list[tuple[int, int]]] = {}
        for index, item in enumerate(items):
            if item.run == run:
                for start, value in enumerate(_runs(item.words, run).tolist()):
                    places.setdefault(value, []).append((index, start))
        by_run[run] = (np.array(sorted(places), np.uint64), places)
    for text in texts:
        words = _words(text)
        for run, (known, places) in by_run.items():
            runs = np.unique(_runs(words, run))
            found = runs[known[np.minimum(np.searchsorted(known, runs), len(known) - 1)] == runs]
            if len(found):
                _mark(best, items, run, [place for value in found.tolist() for place in places[value]])
    return best


def _mark(best: npt.NDArray[np.float64], items: list[_Item], run: int, places: list[tuple[int, int]]) -> None:
    covered: dict[int, set[int]] = {}
    for index, start in places:
        covered.setdefault(index, set()).update(range(start, start + run))
    for index, words in covered.items():
        best[index] = max(best[index], len(words) / len(items[index].words))


def _items(samples: Samples) -> list[_Item]:
    found = []
    for axis in samples.axes:
        table = samples.table(axis)
        for item_id, text in zip(table["item_id"].to_pylist(), table["text"].to_pylist(), strict=True):
            words = _words(text)
            if len(words) >= MIN_WORDS:
                found.append(_Item(axis, item_id, words))
    return found


def _texts(samples: Samples, shards: Shards, folder: Path) -> Iterator[str]:
    """The text of every training record, once."""
    uri = storage.join(samples.manifest["data_uri"], TOKENIZER_FILE)
    with storage.open_read(uri) as stream:
        tokenizer = Tokenizer.from_str(stream.read().decode())
    seen: set[bytes] = set()
    for step in range(shards.num_steps):
        batch: Any = shards.batch(step)
        ids = batch.column("record_id").to_pylist()
        rows = [row for row, record in enumerate(ids) if record not in seen]
        seen.update(ids)
        if rows:
            tokens = pc.take(batch.column("input_ids"), pa.array(rows)).to_pylist()
            yield from tokenizer.decode_batch(tokens, skip_special_tokens=True)


def _overlap(axis: str, count: int, items: list[_Item], coverage: npt.NDArray[np.float64]) -> Overlap:
    mine = [(item, float(share)) for item, share in zip(items, coverage, strict=True) if item.axis == axis]
    whole = [item for item, share in mine if share == 1]
    exact = [item for item in whole if len(item.words) >= RUN_WORDS]
    return Overlap(
        axis=axis,
        num_items=count,
        searched=len(mine),
        exact=len(exact),
        short_exact=len(whole) - len(exact),
        partial=sum(0.5 <= share < 1 for _, share in mine),
        mean_coverage=float(np.mean([share for _, share in mine])) if mine else 0.0,
        items=[item.item_id for item in exact[:MAX_NAMED]],
    )


def _words(text: str) -> Words:
    return np.array([_hash(word) for word in normalise(text).split()], np.uint64)


@lru_cache(maxsize=2**20)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _runs(words: Words, run: int) -> Words:
    """A rolling hash of every run of words."""
    if len(words) < run:
        return np.empty(0, np.uint64)
    total = np.zeros(len(words) - run + 1, np.uint64)
    for offset in range(run):
        total = total * _BASE + words[offset : len(words) - run + 1 + offset]
    return total
