"""Rows of a file, whatever its format and compression, streamed in bounded memory.

A row that cannot be read is handed on with its line and the reason; a file that cannot be read at all is an error.
"""

import bz2
import gzip
import io
import lzma
import re
import tomllib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, cast

import pyarrow as pa

from mixtune import storage
from mixtune.errors import DataError
from mixtune.sanitize.reading.columnar import plan_row_groups, read_arrow, read_parquet
from mixtune.sanitize.reading.delimited import read_delimited
from mixtune.sanitize.reading.json_rows import read_json, read_jsonl
from mixtune.sanitize.reading.row import WHOLE, Range, Row

_TABLES: dict[str, dict[str, str]] = tomllib.loads(Path(__file__).with_name("formats.toml").read_text(encoding="utf-8"))
FORMATS = {ending: name for name, endings in _TABLES["endings"].items() for ending in endings.split()}
_STARTS = {start.encode("latin-1"): what for start, what in _TABLES["starts"].items()}
_WAYS = {ending: way for endings, way in _TABLES["ways"].items() for ending in endings.split()}
COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
_METADATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""Files beside the data, as `datasets` and the hub leave them."""
_BESIDE_METADATA = re.compile(r"state\.json|cache-[0-9a-f]+.*\.arrow")
"""More of them, in a folder that has some."""
_SPLITS = {name: split for split, names in _TABLES["splits"].items() for name in names.split()}
_NAMED_SPLIT = re.compile(
    rf"(?:split=)?(?P<a>{'|'.join(_SPLITS)})(?:[-_. (\d].*)?"
    rf"|.*[-_. (](?P<b>{'|'.join(_SPLITS)})\)?(?:\d+|[-_. (]*(?:v?\d.*|set|file|data|final|clean|new|copy\)?))?",
    re.I,
)


def source_files(uri: str, split: str = "") -> list[str]:
    """Return the URIs of the readable files that a file, a folder or a pattern (`part-*.jsonl`) stands for, sorted.

    With a `split`, train or test: of a folder's files whose names say a split, those of this one.

    Raises:
        DataError: None, one of a format that is not known, or none of the split.
    """
    entries = storage.list_files(uri)
    if storage.file_exists(uri):
        _format_of(uri)
        return [uri]
    folder = storage.split_pattern(uri)[0]
    names = [entry.path for entry in entries]
    readable = [name for name in names if is_readable(name) and not _is_metadata(name, names)]
    if len(readable) < len(names):
        others = ", ".join(name for name in names if name not in readable)
        print(f"{uri}: left out, of no known format: {others[:500]}", flush=True)
    if not readable:
        raise DataError(
            f"{uri}: no file of a known format in it ({', '.join(FORMATS)}, also {', '.join(COMPRESSIONS)})"
        )
    if split:
        readable = _of_split(uri, readable, split)
    return [f"{folder.rstrip('/')}/{name}" for name in readable]


def split_of(path: str) -> str:
    """Return the split that a file's or folder's name says: train, test or validation; empty: none."""
    *folders, name = path.lower().split("/")
    stem = re.split(r"\.(?:jsonl|ndjson|jsonlines|jl|json|csv|tsv|tab|parquet|pq|arrow|feather|ipc)\b", name)[0]
    for part in (stem, *reversed(folders)):
        if match := _NAMED_SPLIT.fullmatch(part):
            return _SPLITS[(match["a"] or match["b"]).lower()]
    return ""


def is_readable(path: str) -> bool:
    """Return whether a file's name has the ending of a known format."""
    return _suffix(path) in FORMATS


def plan_ranges(uri: str, range_bytes: int) -> list[Range]:
    """Return the parts of a file that can be read apart: JSONL by bytes, Parquet by row groups, else the file.

    The parts depend on the file and on `range_bytes` alone, never on how many processes read them.
    """
    if _format_of(uri) == "parquet":
        with _as_data_errors(uri), _opened(uri) as stream:
            return plan_row_groups(stream, range_bytes)
    if _format_of(uri) != "jsonl" or uri.lower().endswith(COMPRESSIONS) or storage.file_size(uri) <= range_bytes:
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


def read_rows(uri: str, part: Range = WHOLE, encoding: str = "") -> Iterator[Row]:
    """Yield the rows of one file, or of a part of it; `encoding` is that of tables' rows that are not UTF-8.

    Raises:
        DataError: The file cannot be read at all: unknown format, broken compression, not this format.
    """
    kind = _format_of(uri)
    with _as_data_errors(uri), _opened(uri) as stream:
        if kind in ("jsonl", "json", "csv", "tsv") and part.start == 0:
            _refuse_other(stream, uri)
        if kind in ("csv", "tsv"):
            yield from read_delimited(stream, "\t" if kind == "tsv" else ",", encoding)
        else:
            read = {"jsonl": read_jsonl, "json": read_json, "parquet": read_parquet, "arrow": read_arrow}[kind]
            yield from read(stream, part)


@contextmanager
def _as_data_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise error if uri in str(error) else DataError(f"{uri}: {error}") from error
    except (EOFError, OSError, MemoryError, zlib.error, lzma.LZMAError, UnicodeDecodeError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{uri}: cannot be read as {_format_of(uri)} ({reason}); is it whole?") from error


def _of_split(uri: str, names: list[str], split: str) -> list[str]:
    """Return the files of a split, and say which are left out."""
    splits = {name: split_of(name) for name in names}
    chosen = [
        name for name in names if splits[name] in (split, "" if split == "train" or not any(splits.values()) else split)
    ]
    if not chosen:
        raise DataError(
            f"{uri}: its files are of another split than {split!r} ({', '.join(names)[:300]}); name one of them, or "
            "give the source its split"
        )
    if others := [name for name in names if name not in chosen]:
        tests = any(splits[name] == "test" for name in others) and split == "train"
        hint = "; the customer's test file is given as test_uri" if tests else ""
        print(f"{uri}: left out, another split than {split!r}: {', '.join(others)[:500]}{hint}", flush=True)
    return chosen


def _is_metadata(path: str, names: list[str]) -> bool:
    name, folder = PurePosixPath(path).name, PurePosixPath(path).parent
    is_saved = (folder / "dataset_info.json").as_posix() in names
    return name in _METADATA or (is_saved and bool(_BESIDE_METADATA.fullmatch(name)))


def _refuse_other(stream: IO[bytes], uri: str) -> None:
    """Refuse a text file of UTF-16, and what is no text."""
    start = cast(io.BufferedReader, stream).peek(512)
    head = start[:4]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(head) == 4 and b"\0\0" in (head[1::2], head[::2])):
        bits = 32 if b"\0\0" in (head[:2], head[2:]) else 16
        order = "" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "BE" if head[:1] == b"\0" else "LE"
        raise DataError(f"{uri}: a UTF-{bits} file; convert it by `iconv -f UTF-{bits}{order} -t UTF-8 OLD > NEW`")
    if start[257:262] == b"ustar":
        raise DataError(f"{uri}: a TAR archive; unpack it")
    for begin, what in _STARTS.items():
        if start.lower().startswith(begin.lower()):
            raise DataError(f"{uri}: {what}")


def _suffix(path: str) -> str:
    name = PurePosixPath(path)
    return (PurePosixPath(name.stem).suffix if name.suffix.lower() in COMPRESSIONS else name.suffix).lower()


def _format_of(uri: str) -> str:
    suffix = _suffix(uri)
    if suffix not in FORMATS:
        way = _WAYS.get(suffix, f"there are {', '.join(FORMATS)}")
        raise DataError(f"{uri}: unknown format {suffix or 'without an ending'!r}; {way}")
    return FORMATS[suffix]


@contextmanager
def _opened(uri: str) -> Iterator[IO[bytes]]:
    with storage.open_read(uri) as stream:
        ending = PurePosixPath(uri).suffix.lower()
        if ending == ".gz":
            yield cast(IO[bytes], gzip.GzipFile(fileobj=stream))
        elif ending in (".bz2", ".xz"):
            yield cast(IO[bytes], (bz2.BZ2File if ending == ".bz2" else lzma.LZMAFile)(stream))
        elif ending == ".zst":
            yield io.BufferedReader(pa.CompressedInputStream(stream, "zstd"))
        else:
            yield stream
