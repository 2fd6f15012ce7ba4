"""Rows of a file, whatever its format and compression, streamed in bounded memory.

A row that cannot be read is handed on with its line and the reason; a file that cannot be read at all is an error.
"""

import bz2
import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any, cast

import ijson
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mixtune import storage
from mixtune.errors import DataError

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
COMPRESSIONS = (".gz", ".zst", ".bz2")
MAX_LINE_BYTES = 64 * 2**20
"""A longer line is quarantined rather than held in memory."""


@dataclass(frozen=True)
class Row:
    """One row of a file."""

    line: int
    """1-based: the line; the number of the row in formats without lines."""
    value: dict[str, Any]
    problem: str = ""
    """Why the row cannot be read; empty where it can."""


def source_files(uri: str) -> list[str]:
    """URIs of the readable files that a file or folder stands for, sorted.

    Raises:
        DataError: None, or one of a format that is not known.
    """
    entries = storage.list_files(uri)
    if storage.file_exists(uri):
        _format_of(uri)
        return [uri]
    known = [storage.join(uri, entry.path) for entry in entries if _suffix(entry.path) in FORMATS]
    if not known:
        raise DataError(f"{uri}: no file of a known format in it ({', '.join(FORMATS)}, also .gz, .zst, .bz2)")
    return known


def read_rows(uri: str) -> Iterator[Row]:
    """The rows of one file.

    Raises:
        DataError: The file cannot be read at all: unknown format, broken compression, not this format.
    """
    kind = _format_of(uri)
    read = {"jsonl": _jsonl, "json": _json, "csv": _csv, "tsv": _csv, "parquet": _parquet, "arrow": _arrow}[kind]
    try:
        with _opened(uri) as stream:
            yield from read(stream, "\t" if kind == "tsv" else ",")
    except (EOFError, zlib.error, gzip.BadGzipFile, pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(f"{uri}: cannot be read as {kind} ({str(error).splitlines()[0]}); is it whole?") from error


def _suffix(path: str) -> str:
    name = PurePosixPath(path)
    return (PurePosixPath(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix).lower()


def _format_of(uri: str) -> str:
    suffix = _suffix(uri)
    if suffix not in FORMATS:
        raise DataError(f"{uri}: unknown format {suffix or 'without an ending'!r}; there are {', '.join(FORMATS)}")
    return FORMATS[suffix]


@contextmanager
def _opened(uri: str) -> Iterator[IO[bytes]]:
    with storage.open_read(uri) as stream:
        if uri.endswith(".gz"):
            yield cast(IO[bytes], gzip.GzipFile(fileobj=stream))
        elif uri.endswith(".bz2"):
            yield bz2.BZ2File(stream)
        elif uri.endswith(".zst"):
            yield io.BufferedReader(pa.CompressedInputStream(stream, "zstd"))
        else:
            yield stream


def _jsonl(stream: IO[bytes], _: str) -> Iterator[Row]:
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if not line.endswith(b"\n") and len(line) == MAX_LINE_BYTES:
            while (rest := stream.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield Row(number, {}, f"line longer than {MAX_LINE_BYTES} bytes")
            continue
        text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
        if number == 1 and text.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError("a UTF-16 file; convert it to UTF-8")
        if text.strip():
            yield _json_row(number, text)


def _json_row(number: int, text: bytes) -> Row:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Row(number, {}, "not UTF-8" if "utf-8" in str(error).lower() else "not JSON")
    return _checked(number, value)


def _checked(number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(number, {}, "not an object")
    return Row(number, value)


def _json(stream: IO[bytes], _: str) -> Iterator[Row]:
    """An array of objects, or an object of objects by id, read piece by piece."""
    first = stream.read(1)
    while first.isspace():
        first = stream.read(1)
    stream.seek(0)
    try:
        if first == b"[":
            for number, value in enumerate(ijson.items(stream, "item", use_float=True), start=1):
                yield _checked(number, value)
        elif first == b"{":
            for number, (key, value) in enumerate(ijson.kvitems(stream, "", use_float=True), start=1):
                yield _checked(number, {"_key": key, **value} if isinstance(value, dict) else value)
        else:
            raise DataError("neither a JSON array nor an object")
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise DataError(f"not whole JSON ({str(error).splitlines()[0]})") from error


def _csv(stream: IO[bytes], delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE_BYTES)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    reader = csv.reader(text, delimiter=delimiter, strict=True)
    names = next(reader, None)
    while names is not None:
        number = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield Row(number, {}, f"not CSV: {error}")
            continue
        if fields is None:
            return
        if not fields:
            continue
        if len(fields) != len(names):
            yield Row(number, {}, f"{len(fields)} fields where the header has {len(names)}")
        elif any("\udc80" <= letter <= "\udcff" for field in fields for letter in field):
            yield Row(number, {}, "not UTF-8")
        else:
            yield Row(number, dict(zip(names, fields, strict=True)))


def _parquet(stream: IO[bytes], _: str) -> Iterator[Row]:
    yield from _batches(pq.ParquetFile(stream).iter_batches(batch_size=1024))


def _arrow(stream: IO[bytes], _: str) -> Iterator[Row]:
    try:
        reader = pa.ipc.open_file(stream)
        yield from _batches(reader.get_batch(number) for number in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        stream.seek(0)
        yield from _batches(pa.ipc.open_stream(stream))


def _batches(batches: Any) -> Iterator[Row]:
    number = 0
    for batch in batches:
        for value in batch.to_pylist():
            number += 1
            yield Row(number, value)
