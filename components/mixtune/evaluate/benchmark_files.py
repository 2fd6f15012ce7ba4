"""Benchmark files: Parquet, JSONL, JSON or CSV, one file or a folder with a split in each name."""

import csv
import gzip
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from mixtune import storage
from mixtune.errors import DataError

FORMATS = (".parquet", ".jsonl", ".json", ".csv")
SPLITS = ("test", "dev", "validation", "train")
Item = TypeVar("Item")
Row = dict[str, Any]
"""A row of outside data, by column."""


def read_splits(uri: str) -> dict[str, list[Row]]:
    """Return the rows of a benchmark by split; the split is in a file's or folder's name, else it is `test`.

    Raises:
        DataError: Nothing there, or no file of a known format.
    """
    plain = storage.check_fingerprint(uri)
    splits: dict[str, list[Row]] = defaultdict(list)
    for entry in storage.list_files(plain):
        name = entry.path.removesuffix(".gz")
        if name.endswith(FORMATS):
            source = plain if storage.file_exists(plain) else storage.join(plain, entry.path)
            splits[_split(name)] += read_rows(source)
    if not splits:
        raise DataError(f"{plain}: no file of a known format in it; a benchmark is {', '.join(FORMATS)}")
    return dict(splits)


def read_all(uri: str) -> list[Row]:
    """Return the rows of all splits, one after another."""
    return [row for rows in read_splits(uri).values() for row in rows]


def read_rows(uri: str) -> list[Row]:
    """Return the rows of one file.

    Raises:
        DataError: A file that is not of its format, or a row that is no object.
    """
    with storage.open_read(uri) as stream:
        data = stream.read()
    name = uri.removesuffix(".gz")
    try:
        plain = gzip.decompress(data) if name != uri else data
        if name.endswith(".parquet"):
            return list(pq.read_table(pa.BufferReader(plain)).to_pylist())
        text = plain.decode("utf-8-sig")
        if name.endswith(".csv"):
            return [dict(row) for row in csv.DictReader(io.StringIO(text, newline=""))]
        if name.endswith(".json"):
            return [_object(uri, f"row {number}", row) for number, row in enumerate(json.loads(text), 1)]
    except (ValueError, TypeError, OSError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{uri}: not a readable {Path(name).suffix[1:]} file ({error})") from error
    return list(_read_lines(uri, text))


def need(row: Row, column: str, uri: str, number: int) -> Any:
    """Return a column's value.

    Raises:
        DataError: The row has no such column.
    """
    if column not in row:
        raise DataError(f"{uri} row {number}: no column {column!r}; there are {', '.join(row)}")
    return row[column]


def stratified_subset(items: Sequence[Item], stratum: Callable[[Item], str], limit: int) -> list[Item]:
    """Return at most `limit` items (0: all) in their order, from every stratum in turn."""
    if not limit or len(items) <= limit:
        return list(items)
    counts: Counter[str] = Counter()
    ranked = []
    for index, name in enumerate(map(stratum, items)):
        ranked.append((counts[name], index))
        counts[name] += 1
    return [items[index] for index in sorted(index for _, index in sorted(ranked)[:limit])]


def _read_lines(uri: str, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{uri} line {number}: not JSON ({error})") from error
        yield _object(uri, f"line {number}", row)


def _object(uri: str, place: str, row: Any) -> Row:
    if not isinstance(row, dict):
        raise DataError(f"{uri} {place}: a JSON object is needed, this is {type(row).__name__}")
    return row


def _split(path: str) -> str:
    parts = Path(path).with_suffix("").as_posix().lower().replace("/", "-").replace("_", "-").split("-")
    return next((split for split in SPLITS if split in parts), "test")
