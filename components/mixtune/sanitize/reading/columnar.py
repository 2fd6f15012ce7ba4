"""Rows of Parquet and Arrow, column by column, so that a column that nobody uses costs no row."""

from collections.abc import Iterable, Iterator
from typing import IO

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mixtune.errors import DataError
from mixtune.sanitize.reading.row import WHOLE, Range, Row
from mixtune.sanitize.reading.values import Json, without_nulls

_BATCH_ROWS = 1024
_SHORT_FLOATS = {pa.float16(): np.float16, pa.float32(): np.float32}
"""Types whose values have more digits as Python's numbers than as their own."""
_UNREADABLE = b"?"
"""Stands for a value that has no form in Python: as bytes it is never taken for a text."""


def read_parquet(stream: IO[bytes], part: Range = WHOLE) -> Iterator[Row]:
    """Yield the rows of a file's row groups."""
    file = pq.ParquetFile(stream)
    groups = list(range(part.start, part.end or file.metadata.num_row_groups))
    yield from _rows(file.iter_batches(batch_size=_BATCH_ROWS, row_groups=groups), part.first_line)


def read_arrow(stream: IO[bytes], part: Range = WHOLE) -> Iterator[Row]:
    """Yield the rows of a file or a stream of Arrow's."""
    try:
        reader = pa.ipc.open_file(stream)
        yield from _rows(reader.get_batch(number) for number in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        stream.seek(0)
        yield from _rows(pa.ipc.open_stream(stream))


def plan_row_groups(stream: IO[bytes], range_bytes: int) -> list[Range]:
    """Return the parts of a Parquet file: row groups of about so many bytes."""
    meta = pq.ParquetFile(stream).metadata
    ranges, start, line, size, rows = [], 0, 1, 0, 0
    for group in range(meta.num_row_groups):
        size += meta.row_group(group).total_byte_size
        rows += meta.row_group(group).num_rows
        if size >= range_bytes or group == meta.num_row_groups - 1:
            ranges.append(Range(start, group + 1, line))
            start, line, size, rows = group + 1, line + rows, 0, 0
    return ranges or [WHOLE]


def check_names(names: Iterable[str]) -> list[str]:
    """Return column names without spaces around them; one that stands twice is an error."""
    trimmed = [name.strip() for name in names]
    if twice := next((name for name in trimmed if name and trimmed.count(name) > 1), ""):
        raise DataError(f"column {twice!r} stands twice in it; rename one of the two")
    return trimmed


def _rows(batches: Iterable[pa.RecordBatch], first: int = 1) -> Iterator[Row]:
    number = first
    for batch in batches:
        batch.validate(full=True)  # a torn file's offsets would be followed out of its memory
        names = check_names(batch.schema.names)
        classes = _class_names(batch.schema)
        columns = [
            [_class_of(value, classes[name]) for value in _values(column)] if name in classes else _values(column)
            for name, column in zip(names, batch.columns, strict=True)
        ]
        for values in zip(*columns, strict=True):
            yield Row(number, dict(zip(names, values, strict=True)))
            number += 1


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Return the names of classes by column, as `datasets` writes them into a file's metadata."""
    try:
        features = orjson.loads((schema.metadata or {}).get(b"huggingface") or b"{}")["info"]["features"].items()
        kinds = {name: kind.get("feature", kind) for name, kind in features}  # of a list, its items'
        return {
            name: list(map(str, kind["names"])) for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _class_of(value: Json, names: list[str]) -> Json:
    """Return a class's name; -1 stands for none, and what is no number of a class stays."""
    if isinstance(value, list):
        return [_class_of(item, names) for item in value]
    if type(value) is not int or value >= len(names):
        return value
    return names[value] if value >= 0 else None


def _values(column: pa.Array) -> list[Json]:
    """Return a column's values; a date beyond Python's as text."""
    try:
        values = column.to_pylist(maps_as_pydicts="strict")
        if short := _SHORT_FLOATS.get(column.type):
            return [value if value is None else float(str(short(value))) for value in values]
    except (OverflowError, ValueError, KeyError, TypeError, pa.ArrowException):
        try:
            values = column.cast(pa.string()).to_pylist()
        except (ValueError, pa.ArrowException):
            values = [_value(item) for item in column]
    return list(map(without_nulls, values)) if _nests_structs(column.type) else values


def _value(item: pa.Scalar) -> Json:
    try:
        return item.as_py(maps_as_pydicts="strict")
    except (OverflowError, ValueError, KeyError, TypeError, pa.ArrowException):
        return _UNREADABLE


def _nests_structs(kind: pa.DataType, depth: int = 0) -> bool:
    """Return whether objects hold objects, into which a schema writes nulls for keys that a row did not have."""
    depth += pa.types.is_struct(kind)
    return depth > 1 or any(_nests_structs(kind.field(place).type, depth) for place in range(kind.num_fields))
