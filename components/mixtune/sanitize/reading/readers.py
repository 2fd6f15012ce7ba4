"""Rows of a file, whatever its format and compression, streamed in bounded memory.

A row that cannot be read is handed on with its line and the reason; a file that cannot be read at all is an error.
"""

import bz2
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath
from typing import IO, Any, NamedTuple, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from mixtune import storage
from mixtune.errors import DataError
from mixtune.sanitize.reading.json_elements import split_elements

FORMATS = {
    ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv", ".parquet": "parquet",
    ".pq": "parquet", ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow",
}  # fmt: skip
COMPRESSIONS = (".gz", ".zst", ".bz2")
MAX_LINE_BYTES = 64 * 2**20
"""A longer line is quarantined rather than held in memory."""
_BLOCK_BYTES = 2**16


class Row(NamedTuple):
    """One row of a file."""

    line: int
    """1-based: the line; the number of the row in formats without lines."""
    value: dict[str, Any]
    problem: str = ""
    """Why the row cannot be read; empty where it can."""


def source_files(uri: str) -> list[str]:
    """Return the URIs of the readable files that a file, a folder or a pattern (`part-*.jsonl`) stands for, sorted.

    Raises:
        DataError: None, or one of a format that is not known.
    """
    entries = storage.list_files(uri)
    if storage.file_exists(uri):
        _format_of(uri)
        return [uri]
    folder = storage.split_pattern(uri)[0]
    readable = [storage.join(folder, entry.path) for entry in entries if is_readable(entry.path)]
    if len(readable) < len(entries):
        names = ", ".join(entry.path for entry in entries if not is_readable(entry.path))
        print(f"{uri}: left out, of no known format: {names[:500]}", flush=True)
    if not readable:
        raise DataError(f"{uri}: no file of a known format in it ({', '.join(FORMATS)}, also .gz, .zst, .bz2)")
    return readable


def is_readable(path: str) -> bool:
    """Return whether a file's name has the ending of a known format."""
    return _suffix(path) in FORMATS


@dataclass(frozen=True)
class Range:
    """A part of a file: the lines that begin in it, or its row groups. The default is the whole file."""

    start: int = 0
    """First byte (JSONL) or row group (Parquet)."""
    end: int = 0
    """Past the last; 0: the file's end."""
    first_line: int = 1
    """Number of its first line or row, 1-based."""


WHOLE = Range()


def plan_ranges(uri: str, range_bytes: int) -> list[Range]:
    """Return the parts of a file that can be read apart: JSONL by bytes, Parquet by row groups, else the file.

    The parts depend on the file and on `range_bytes` alone, never on how many processes read them.
    """
    if _format_of(uri) == "parquet":
        return _plan_row_groups(uri, range_bytes)
    if _format_of(uri) != "jsonl" or uri.endswith(COMPRESSIONS) or storage.file_size(uri) <= range_bytes:
        return [WHOLE]
    ranges, start, line, total = [], 0, 1, storage.file_size(uri)
    with storage.open_read(uri) as stream:
        while start < total:
            number, remaining = 0, range_bytes
            while remaining and (block := stream.read(min(remaining, storage.BLOCK_BYTES))):
                number += block.count(b"\n")
                remaining -= len(block)
            end = min(start + range_bytes, total)
            ranges.append(Range(start, end, line))
            start, line = end, line + number
    return ranges


def read_rows(uri: str, part: Range = WHOLE) -> Iterator[Row]:
    """Yield the rows of one file, or of a part of it.

    Raises:
        DataError: The file cannot be read at all: unknown format, broken compression, not this format.
    """
    kind = _format_of(uri)
    read = {"jsonl": _jsonl, "json": _json, "csv": _csv, "tsv": _csv, "parquet": _parquet, "arrow": _arrow}[kind]
    try:
        with _opened(uri) as stream:
            if kind in ("jsonl", "json", "csv", "tsv") and part.start == 0:
                _refuse_utf16(stream, uri)
            yield from read(stream, "\t" if kind == "tsv" else ",", part)
    except (EOFError, OSError, zlib.error, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{uri}: cannot be read as {kind} ({reason}); is it whole?") from error


def _refuse_utf16(stream: Any, uri: str) -> None:
    if stream.peek(2)[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{uri}: a UTF-16 file; convert it to UTF-8")


def _plan_row_groups(uri: str, range_bytes: int) -> list[Range]:
    try:
        with _opened(uri) as stream:
            meta = pq.ParquetFile(stream).metadata
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{uri}: cannot be read as parquet ({str(error).splitlines()[0]}); is it whole?") from error
    ranges, start, line, size, rows = [], 0, 1, 0, 0
    for group in range(meta.num_row_groups):
        size += meta.row_group(group).total_byte_size
        rows += meta.row_group(group).num_rows
        if size >= range_bytes or group == meta.num_row_groups - 1:
            ranges.append(Range(start, group + 1, line))
            start, line, size, rows = group + 1, line + rows, 0, 0
    return ranges or [WHOLE]


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


def _jsonl(stream: IO[bytes], _: str, part: Range) -> Iterator[Row]:
    number, at = part.first_line, part.start
    if part.start:
        stream.seek(part.start - 1)
        at += len(stream.readline()) - 1
        number += at > part.start  # the line that began before this part belongs to the part before
    for lines in _lines(stream, part.end - at if part.end else None):
        if number == 1:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        yield from _json_rows(number, lines)
        number += len(lines)


def _lines(stream: IO[bytes], remaining: int | None) -> Iterator[list[bytes]]:
    """Whole lines in lists, those that begin in the next `left` bytes; what is over MAX_LINE_BYTES is cut off."""
    rest, lost = bytearray(), 0
    while remaining is None or remaining > 0:
        block = stream.read(_BLOCK_BYTES)
        end = block.rfind(b"\n") + 1
        if block and not end:
            if len(rest) <= MAX_LINE_BYTES:
                rest += block
            else:
                lost += len(block)
            continue
        text, rest = bytes(rest + block[:end]), bytearray(block[end:])
        if remaining is not None:
            if len(text) + lost > remaining:
                text = text[: text.find(b"\n", max(0, remaining - lost - 1)) + 1 or None]
            remaining -= len(text) + lost
        lost = 0
        if text:
            yield text.removesuffix(b"\n").split(b"\n")
        if not block:
            return


def _json_rows(number: int, lines: list[bytes]) -> Iterator[Row]:
    try:
        values = list(map(orjson.loads, lines))
        alike = _has_all_keys(b"\n".join(lines), values) and max(map(len, lines)) <= MAX_LINE_BYTES
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        alike = False
    if alike:
        yield from map(_checked, count(number), values)
        return
    for place, line in enumerate(lines, number):
        if len(line) > MAX_LINE_BYTES:
            yield Row(place, {}, f"line longer than {MAX_LINE_BYTES} bytes")
        elif line and not line.isspace():
            yield _json_row(place, line)


def _json_row(number: int, text: bytes) -> Row:
    try:
        value = orjson.loads(text)
        alike = _has_all_keys(text, value)
    except orjson.JSONDecodeError as error:
        return Row(number, {}, _why_not_json(str(error).lower(), text))
    except orjson.JSONEncodeError:
        return Row(number, {}, "nested too deep")
    if not alike and _repeats_key(text):
        return Row(number, {}, "the same key twice")
    return _checked(number, value)


def _has_all_keys(text: bytes, value: Any) -> bool:
    """Return whether JSON text surely repeats no key: its value, written again, has as many quotation marks."""
    return text.count(b'"') == orjson.dumps(value).count(b'"') and b"\\u0022" not in text


def _why_not_json(error: str, text: bytes) -> str:
    if "utf-8" in error:
        return "not UTF-8"
    if "surrogate" in error:
        return "half a surrogate pair"
    if "recursion" in error or "depth" in error or text.count(b"{") + text.count(b"[") > 1000:
        return "nested too deep"
    return "not JSON (a NUL byte)" if b"\0" in text else "not JSON"


def _repeats_key(text: bytes) -> bool:
    repeats = False

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeats
        value = dict(pairs)
        repeats = repeats or len(value) < len(pairs)
        return value

    json.loads(text, object_pairs_hook=check)
    return repeats


def _checked(number: int, value: Any) -> Row:
    if not isinstance(value, dict):
        return Row(number, {}, "not an object")
    return Row(number, value)


def _json(stream: IO[bytes], _: str, part: Range) -> Iterator[Row]:
    """Yield the rows of an array of objects, or of an object of objects by id, piece by piece."""
    bracket, texts = split_elements(stream, MAX_LINE_BYTES)
    for number, text in enumerate(texts, start=1):
        row = _json_row(number, text if bracket == b"[" else b"{%b}" % text)
        if bracket == b"{" and not row.problem:
            ((key, value),) = row.value.items() or [("", None)]
            row = _checked(number, {"_key": key, **value} if isinstance(value, dict) else value)
        yield row


def _csv(stream: IO[bytes], delimiter: str, part: Range) -> Iterator[Row]:
    csv.field_size_limit(MAX_LINE_BYTES)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _csv_rows(csv.reader(text, delimiter=delimiter, strict=True))
    finally:
        text.detach()


def _csv_rows(reader: Any) -> Iterator[Row]:
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


def _parquet(stream: IO[bytes], _: str, part: Range) -> Iterator[Row]:
    file = pq.ParquetFile(stream)
    groups = list(range(part.start, part.end or file.metadata.num_row_groups))
    yield from _batches(file.iter_batches(batch_size=1024, row_groups=groups), part.first_line)


def _arrow(stream: IO[bytes], _: str, part: Range) -> Iterator[Row]:
    try:
        reader = pa.ipc.open_file(stream)
        yield from _batches(reader.get_batch(number) for number in range(reader.num_record_batches))
    except pa.ArrowInvalid:
        stream.seek(0)
        yield from _batches(pa.ipc.open_stream(stream))


def _batches(batches: Any, first: int = 1) -> Iterator[Row]:
    number = first - 1
    for batch in batches:
        for value in batch.to_pylist():
            number += 1
            yield Row(number, value)
