"""Rows of one file of a benchmark: Parquet, Arrow, JSONL, JSON, CSV or TSV, by columns of plain names.

Columns are read without regard to case and spaces: `Correct Answer` is `correct_answer`. Questions that lie in a list
of their passage's row (SQuAD, DROP and TriviaQA as their authors have them, RACE as EleutherAI has it) are rows.
"""

import ast
import csv
import gzip
import io
import json
import re
import string
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mixtune import storage
from mixtune.errors import DataError
from mixtune.records import ROW_LISTS

COLUMNS = {
    name: tuple(text.split())
    for name, text in tomllib.loads(Path(__file__).with_name("columns.toml").read_text(encoding="utf-8")).items()
}
"""Names of columns and fields, by what they hold."""
FORMATS = (".parquet", ".arrow", ".jsonl", ".json", ".csv", ".tsv")
_WRAPPED = (*ROW_LISTS, "questions")
_SPLIT_SUFFIX = re.compile(r"[-_](?:test|dev|val|validation|train)$")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")
_EMPTY = ("qas", "qa_pairs")
_NESTED = ("paragraphs", "problems", "questions", *_EMPTY)
"""Columns whose lists hold the rows that are asked, beside what these have in common; of passages some have none."""
_APART = {"questions": "question", "options": "options", "answers": "answer"}
"""Columns whose lists together are such rows (RACE's own files), and how each is called in these."""
_PRINTED = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\})(?P<gap>\s+(?=['"{]))?|(?P<array>\barray)\(|,\s*dtype=[^()]*(?=\))""",
    re.DOTALL,
)
"""A text or an object's end, with what parts it from the next; or what NumPy prints around an array in an object."""
Row = dict[str, Any]
"""A row of outside data, by column."""


def read_rows(uri: str) -> list[Row]:
    """Return the rows of one file; a DataError where it is not of its format, or a row is no object."""
    data, name = storage.read_bytes(uri), uri.removesuffix(".gz")
    try:
        rows = _parse(uri, name, gzip.decompress(data) if name != uri else data)
    except (ValueError, TypeError, OSError, csv.Error) as error:
        if isinstance(error, DataError):
            raise
        way = "; save it as UTF-8" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(f"{uri}: not a readable {Path(name).suffix[1:]} file ({error}){way}") from error
    return [unfolded for row in rows for unfolded in _unfold(_with_plain_names(row))]


def _unfold(row: Row) -> Iterator[Row]:
    """Yield the rows that lie in a list of a row, each with the rest of it; the row itself where there is none."""
    for name in _NESTED:
        value = row.get(name)
        parts = parse_cell(value) if isinstance(value, str) and value.startswith("[{") else value
        if isinstance(parts, list) and (parts or name in _EMPTY) and all(map(_asks, parts)):
            rest = {key: shared for key, shared in row.items() if key not in (name, "id")}
            for part in parts:
                yield from _unfold(rest | _with_plain_names(part))
            return
    lists = [row[name] for name in _APART if isinstance(row.get(name), list)]
    if len(lists) == len(_APART) and len(set(map(len, lists))) == 1:
        rest = {key: shared for key, shared in row.items() if key not in (*_APART, "id")}
        yield from ({**rest, **dict(zip(_APART.values(), values, strict=True))} for values in zip(*lists, strict=True))
        return
    yield row


def _asks(part: object) -> bool:
    return isinstance(part, dict) and not {"question", *_NESTED}.isdisjoint(part)


def parse_cell(text: str) -> object:
    """Return the value that a table's cell holds as JSON, or as Python or NumPy prints it; None: it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            value: object = parse(text if parse is json.loads else _PRINTED.sub(_as_list, text))
            return value
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return None


def _as_list(match: re.Match[str]) -> str:
    """Return a piece of a printed array as a list has it; Python alone would join texts that no comma parts."""
    return "(" if match["array"] else (match["text"] or "") + (", " if match["gap"] else "")


def is_marked(row: Row, column: str, *, mark: bool = True) -> bool:
    """Return whether a row says in a column that something is so, or is not so, as a value or in a table's cell."""
    words = ("true", "yes", "1", "1.0") if mark else ("false", "no", "0", "0.0")
    return str(row.get(column)).strip().lower() in words


def _parse(uri: str, name: str, data: bytes) -> list[Row]:
    if name.endswith(".parquet"):
        return list(pq.read_table(pa.BufferReader(data)).to_pylist())
    if name.endswith(".arrow"):
        opener = pa.ipc.open_file if data.startswith(b"ARROW1") else pa.ipc.open_stream
        return list(opener(pa.BufferReader(data)).read_all().to_pylist())
    text = data.decode("utf-8-sig")
    if name.endswith((".csv", ".tsv")):
        return _read_csv(text, name)
    if name.endswith(".json") and (rows := _read_array(uri, text)) is not None:
        return rows
    return list(_read_lines(uri, text))


def _with_plain_names(row: Row) -> Row:
    """Return a row with plain names, of two that are alike the first."""
    named: Row = {}
    for key, value in row.items():
        named.setdefault(plain_name(str(key)), value)
    return named


def plain_name(column: str) -> str:
    """Return a column's name in small letters, with `_` for spaces."""
    return column.strip().lower().replace(" ", "_")


def need(row: Row, column: str, uri: str, number: int) -> Any:
    """Return a column's value; a DataError where the row has no such column."""
    if column not in row:
        raise DataError(f"{uri} row {number}: no column {column!r}; there are {', '.join(row)}")
    return row[column]


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
        raise DataError(f"{uri} {place}: a JSON object such as {{'question': ...}} is needed, got {str(row)[:40]}")
    return row


def _read_array(uri: str, text: str) -> list[Row] | None:
    """Return the rows of a JSON array, of an object that holds them, or one object (MATH has a file a problem).

    None where the file holds a row a line (BFCL's do, whatever their name).
    """
    try:
        value = json.loads(text)
    except ValueError:
        if text.lstrip().startswith("{"):
            return None
        raise
    if isinstance(value, dict):
        named = {key.lower(): part for key, part in value.items()}
        wrapped: list[object] = next((named[key] for key in _WRAPPED if isinstance(named.get(key), list)), [])
        if len(value) > 1 and all(isinstance(row, dict) for row in value.values()):  # PubMedQA: by id
            value = [{"id": key, **row} for key, row in value.items()]
        else:
            value = wrapped if wrapped and all(isinstance(row, dict) for row in wrapped) else [value]
    return [_object(uri, f"row {number}", row) for number, row in enumerate(value, 1)]


def _read_csv(text: str, name: str) -> list[Row]:
    """Return a CSV's rows, empty ones left out, of a spreadsheet with semicolons, too.

    One without a header gets its columns: MMLU's has question, choices and letter, MGSM's question and number.
    """
    first, lines = text.partition("\n")[0], text.splitlines()
    delimiter = "\t" if name.endswith(".tsv") else ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    split = (line.split(delimiter) for line in lines) if delimiter == "\t" and _has_no_quotes(lines) else reader
    rows = [row for row in split if any(cell.strip() for cell in row)]
    letters = tuple(string.ascii_uppercase[: len(rows[0]) - 2]) if rows else ()
    if rows and len(rows[0]) >= 4 and all(len(row) == len(rows[0]) and row[-1].strip() in letters for row in rows):
        subject = _SPLIT_SUFFIX.sub("", Path(name).stem)
        return [{"subject": subject, **dict(zip(("question", *letters, "answer"), row, strict=True))} for row in rows]
    if all(len(row) == 2 and _NUMBER.fullmatch(row[1]) for row in rows):
        return [dict(zip(("question", "answer"), row, strict=True)) for row in rows]
    header = rows[0]
    if twice := [column for column, count in Counter(header).items() if count > 1]:
        raise DataError(f"{name}: two columns are called {twice[0]!r}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise DataError(f"{name} row {number}: {len(row)} fields, the header has {len(header)}")
    return [dict(zip(header, row, strict=True)) for row in rows[1:]]


def _has_no_quotes(lines: list[str]) -> bool:
    """Return whether a TSV's quotation marks are text: each line is a row, and one opens a field that none closes."""
    rows = [line.split("\t") for line in lines if line]
    opened = [field for row in rows for field in row if field.startswith('"')]
    return len(set(map(len, rows))) == 1 and any(len(field) < 2 or field[-1] != '"' for field in opened)
