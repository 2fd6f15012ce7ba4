"""Values as files give them: numbers as they are written, empty ones known as such, and the text of any of them."""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import orjson
import re2

from mixtune.benchmark_files import parse_cell
from mixtune.errors import DataError
from mixtune.records import Written, exact_number

Json = Any
"""A value that a file holds: of JSON, or what Arrow makes of a column."""
JsonObject = dict[str, Json]
Unread = Counter[str]
"""Rows by the name of a field that is there and is not read."""
_MAY_LOSE_FORM = re2.compile(
    rb'":\s*(?:-?(?:\d+[.eE]|\d{16})|-0)|[\[,]\s*(?:-?\d+(?:\.\d|[eE]|\d{15})[\d.eE+-]*|-0)\s*[,\]]|\\u0022'
)
"""What orjson may write otherwise than it was written, if it is no number inside a text."""
_LARGEST_LABEL = 1e18
_MINUS_ZERO = re2.compile(rb"[:,\[]\s*-0\s*[,}\]]")
"""An integer whose sign is lost where it becomes one of Python's."""
_ESCAPED = re.compile(rb"\\u[0-9a-fA-F]{4}")
_QUOTE, _SMALL = ord('"'), 4096
"""In texts of so many bytes and more, letters are counted faster by NumPy."""
_NULL = re.compile(
    r"nan|NaN|NULL|<NA>|\\N|(?i:<no_?input>)|\[object Object\]|#N/A"
    r"|#NV|#NAME\?|#(?:REF|VALUE|DIV/0|NUM|NULL|BEZUG|WERT|ZAHL)!"
)
_PRINTED = re.compile(r"""\{\s*(?:'|"name":\s*"[^"]*",\s*"arguments":\s*')""")
_PRINTED_VALUE = re.compile(r"\s*[\[{]\s*(?:[\[{]\s*)?'")
"""What a list or an object begins with as Python prints it, and never as JSON."""
_NO_DIGITS = bytes(set(range(256)) - set(b"0123456789"))


def parse_exactly(text: str | bytes) -> Json:
    """Return the value of a JSON text, its numbers as they are written; `NaN` and `Infinity` are numbers, too.

    Raises:
        ValueError: Not JSON, not UTF-8, or (DataError) an object has one key twice.
    """
    plain = text if isinstance(text, str) else text.decode()
    return json.loads(plain, parse_float=Written, parse_int=_whole_number, object_pairs_hook=_without_repeats)


def keeps_form(text: bytes, value: Json) -> bool:
    """Return whether a value surely holds all of its JSON text: written again, it has as many quotation marks.

    So no key is there twice. And it has the same digits, so that every number is as it was written.
    """
    again = orjson.dumps(value)
    if _count_quotes(text) != _count_quotes(again):
        return False
    if not _MAY_LOSE_FORM.search(text):
        return True
    return b"\\u0022" not in text and not _MINUS_ZERO.search(text) and _digits(text) == _digits(again)


def _count_quotes(text: bytes) -> int:
    if len(text) < _SMALL:
        return text.count(b'"')
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == _QUOTE))


def _digits(text: bytes) -> bytes:
    """Return the digits of a JSON text, those of escaped letters left out."""
    return (_ESCAPED.sub(b"", text) if b"\\u" in text else text).translate(None, _NO_DIGITS)


def parse_column(value: Json, what: str = "a column of JSON is") -> Json:
    """Return a value that may be JSON as text, or as Python or NumPy prints it, as CSV and many a column have it."""
    if not isinstance(value, str) or not value.strip():
        return value or None
    try:
        text = value.encode()
        quick = orjson.loads(text)
        if keeps_form(text, quick):
            return quick
    except (orjson.JSONDecodeError, orjson.JSONEncodeError, UnicodeEncodeError):
        pass  # it may be what Python's json writes and orjson does not read
    try:
        return parse_exactly(value)
    except DataError:
        raise
    except ValueError as error:
        if _PRINTED_VALUE.match(value) and isinstance(cell := parse_cell(value), (list, dict)):
            return cell
        raise DataError(f"{what} not JSON") from error


def parse_objects(text: str, what: str) -> list[Json]:
    """Return the JSON objects that stand in a text one behind the other; raise DataError where it holds another."""
    decoder, objects, rest = json.JSONDecoder(), list[Json](), text.strip()
    while rest:
        try:
            _, end = decoder.raw_decode(rest)
        except ValueError as error:
            raise DataError(f"{what} not JSON") from error
        objects.append(parse_column(rest[:end], what))
        rest = rest[end:].lstrip()
    return objects


def parse_if_json(value: Json) -> Json:
    """Return a value that is JSON as text; any other, and a text that only looks like it, as it is."""
    try:
        return parse_column(value)
    except DataError:
        return value


def printed(text: str) -> Json:
    """Return the value of an object that Python printed, as most of Hermes' calls are; any other text as it is.

    So are Glaive's calls: their arguments are JSON between single quotation marks, in an object of double ones.
    """
    try:
        value = ast.literal_eval(text.replace("\n", " ")) if _PRINTED.match(text) else text
        json_text(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text
    return value


def is_blank(value: Json) -> bool:
    """Return whether a value says nothing: null, NaN, or an empty text, list or object."""
    if value is None or value is False:
        return value is None
    if isinstance(value, str):
        return not value or value.isspace()
    if isinstance(value, (list, tuple, dict)):
        return all(map(is_blank, value.values() if isinstance(value, dict) else value))
    return isinstance(value, float) and math.isnan(value)


def is_null_text(value: Json) -> bool:
    """Return whether a text is what pandas, databases and sheets write for an empty cell or an error."""
    return isinstance(value, str) and len(value) < 16 and bool(_NULL.fullmatch(value.strip()))


def text_of(value: Json) -> str:
    """Return a value as text: a number as it was written, a date by ISO 8601, a list's items as paragraphs."""
    if isinstance(value, str):
        return value
    if isinstance(value, (list, tuple)):
        return "\n\n".join(map(text_of, value))
    return "" if is_blank(value) else json_text(value)


def label_of(value: Json) -> str:
    """Return a class as text: an integer stays one in a column that nulls have made a column of fractions."""
    if isinstance(value, (float, Decimal)) and -_LARGEST_LABEL < value < _LARGEST_LABEL and value == int(value):
        return str(int(value))
    return text_of(value)


def plain_json(value: Json, place: str) -> Json:
    """Return a value of a tool's call or schema as JSON that records can hold.

    Raises:
        DataError: It has a number that JSON does not have, or bytes.
    """
    if value is None or isinstance(value, (str, bool)) or (type(value) is int and abs(value) < _LARGEST_LABEL):
        return value
    if isinstance(value, dict):
        return {str(key): plain_json(item, place) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_json(item, place) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"a number in {place} that JSON does not have (NaN, or without an end); write it as text")
    return exact_number(_number_text(value)) if isinstance(value, (int, float, Decimal)) else text_of(value)


def without_nulls(value: Json) -> Json:
    """Return a nested value without the keys whose value is null: a columnar schema fills in those that a row lacks."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def _whole_number(text: str) -> int | Written:
    return Written(text) if text == "-0" else int(text)


def _without_repeats(pairs: Iterable[tuple[str, Json]]) -> JsonObject:
    items = list(pairs)
    value = dict(items)
    if len(value) < len(items):
        raise DataError("the same key twice")
    return value


def _number_text(value: float | Decimal) -> str:
    if isinstance(value, Decimal) and not isinstance(value, Written):
        return format(value, "f")
    return repr(value)


def json_text(value: Json) -> str:
    """Return a value as JSON writes it, with spaces, letters as they are, and numbers as they were written."""
    if isinstance(value, (float, Decimal)):
        return _number_text(value)
    if isinstance(value, dict):
        pairs = (f"{json.dumps(str(key), ensure_ascii=False)}: {json_text(item)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, bytes):
        raise DataError("a value is bytes, not text")
    return str(value) if isinstance(value, timedelta) else json.dumps(value, ensure_ascii=False)
