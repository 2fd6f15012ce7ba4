"""Benchmark items in the training data: whole, or in runs of thirteen words (`ngrams.NGRAM`).

Shards hold token ids, so they are turned back into text by the tokenizer that the samples carry. Words are compared
in lower case without punctuation. An item counts as *found* when every run of its words is in one training record.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from mixtune import storage
from mixtune.artifacts.comparison import Overlap
from mixtune.artifacts.samples import TOKENIZER_FILE, Samples
from mixtune.artifacts.shards import Shards, open_shards
from mixtune.errors import DataError
from mixtune.evaluate.registry import FORMS
from mixtune.ngrams import NGRAM, hash_ngrams, hash_words, is_in

MIN_WORDS = 8
"""Shorter items say too little to be looked for."""
MAX_NAMED = 20
BATCH_TEXTS = 256
"""Texts whose words are hashed at once."""


@dataclass(frozen=True)
class Item:
    """A benchmark's item whose words are searched for."""

    axis: str
    item_id: str
    words: npt.NDArray[np.uint64]
    """Digests, in order."""

    @property
    def size(self) -> int:
        """Words of an n-gram that is searched for."""
        return min(NGRAM, len(self.words))


def check_contamination(samples: Samples, shards_path: str, folder: Path, *, allow: bool) -> tuple[Overlap, ...]:
    """Search the training shards for the items of all axes; a benchmark's item may be there whole if they `allow` it.

    Raises:
        DataError: A benchmark's item is in the training data, or the shards are of another tokenizer.
    """
    shards = open_shards(shards_path, folder / "shards")
    if shards.manifest.tokenizer_digest != samples.identity.tokenizer:
        raise DataError(
            "the shards were made with another tokenizer than the evaluation's; use one base model for both"
        )
    forms = {axis: FORMS[summary.form] for axis, summary in samples.axes.items()}
    tables = [(axis, samples.table(axis)) for axis in samples.axes]
    items = [
        item
        for axis, table in tables
        for item in make_items(axis, table["item_id"].to_pylist(), forms[axis].searched_texts(table))
    ]
    coverage = find_coverage(items, _decode_records(samples, shards))
    overlaps = [_overlap(axis, len(table), items, coverage) for axis, table in tables]
    for overlap in overlaps:
        if overlap.exact and forms[overlap.axis].is_benchmark and not allow:
            raise DataError(
                f"{overlap.axis}: {overlap.exact} items are in the training data word for word "
                f"({', '.join(overlap.items[:5])}); give the benchmark to sanitize, or set allow_overlap"
            )
    return tuple(overlaps)


def make_items(axis: str, ids: Sequence[str], texts: Sequence[str]) -> list[Item]:
    """Return the items of an axis that have enough words to be searched for."""
    hashed = hash_words(texts)
    return [
        Item(axis, item_id, hashed[index])
        for index, item_id in enumerate(ids)
        if hashed.at[index + 1] - hashed.at[index] >= MIN_WORDS
    ]


def find_coverage(items: Sequence[Item], texts: Iterable[str]) -> npt.NDArray[np.float64]:
    """Return per item the largest share of its words that one text shares in whole n-grams, (items,), 0 to 1."""
    coverage = np.zeros(len(items))
    places: dict[int, dict[int, list[tuple[int, int]]]] = {}  # by n-gram size and digest: item, first word
    for index, item in enumerate(items):
        by_digest = places.setdefault(item.size, {})
        for start, digest in enumerate(hash_ngrams(item.words, item.size).tolist()):
            by_digest.setdefault(digest, []).append((index, start))
    sorted_digests = {size: np.array(sorted(by_digest), np.uint64) for size, by_digest in places.items()}
    texts = iter(texts)
    while batch := list(islice(texts, BATCH_TEXTS)):
        hashed = hash_words(batch)
        for number in range(len(batch)):
            for size, digests in sorted_digests.items():
                ngrams = hash_ngrams(hashed[number], size)
                shared = ngrams[is_in(ngrams, digests)].tolist()
                _raise_coverage(coverage, items, [place for digest in shared for place in places[size][digest]])
    return coverage


def _raise_coverage(
    coverage: npt.NDArray[np.float64], items: Sequence[Item], places: Sequence[tuple[int, int]]
) -> None:
    covered: dict[int, set[int]] = {}
    for index, start in places:
        covered.setdefault(index, set()).update(range(start, start + items[index].size))
    for index, covered_words in covered.items():
        coverage[index] = max(coverage[index], len(covered_words) / len(items[index].words))


def _decode_records(samples: Samples, shards: Shards) -> Iterator[str]:
    """Yield the text of every training record, once."""
    uri = storage.join(samples.data_uri, TOKENIZER_FILE)
    tokenizer = Tokenizer.from_str(storage.read_bytes(uri).decode())
    decoded: set[bytes] = set()
    for step in range(shards.num_steps):
        batch = shards.batch(step)
        ids = batch.column("record_id").to_pylist()
        rows = [row for row, record in enumerate(ids) if record not in decoded]
        decoded.update(ids)
        if rows:
            tokens = pc.take(batch.column("input_ids"), pa.array(rows)).to_pylist()
            yield from tokenizer.decode_batch(tokens, skip_special_tokens=True)


def _overlap(axis: str, count: int, items: list[Item], coverage: npt.NDArray[np.float64]) -> Overlap:
    of_axis = [(item, float(share)) for item, share in zip(items, coverage, strict=True) if item.axis == axis]
    whole = [item for item, share in of_axis if share == 1]
    exact = [item for item in whole if len(item.words) >= NGRAM]
    return Overlap(
        axis=axis,
        num_items=count,
        searched=len(of_axis),
        exact=len(exact),
        short_exact=len(whole) - len(exact),
        partial=sum(0.5 <= share < 1 for _, share in of_axis),
        mean_coverage=float(np.mean([share for _, share in of_axis])) if of_axis else 0.0,
        items=tuple(item.item_id for item in exact[:MAX_NAMED]),
    )
