"""Rows of JSONL and of JSON: values by orjson, or exactly, where a number or a key would lose its form."""

import re
from collections.abc import Iterator
from itertools import count
from typing import IO

import orjson

from mixtune.errors import DataError
from mixtune.records import ROW_LISTS
from mixtune.sanitize.reading.json_elements import split_elements
from mixtune.sanitize.reading.message_forms import is_message_of
from mixtune.sanitize.reading.row import MAX_LINE_BYTES, WHOLE, Range, Row
from mixtune.sanitize.reading.values import Json, JsonObject, keeps_form, parse_exactly

_BLOCK_BYTES = 2**16
_BOM = b"\xef\xbb\xbf"
_OF_ANOTHER_ENCODING = "; `iconv -f CP1252 -t UTF-8 OLD > NEW` converts a file of CP1252, GB18030 or SHIFT_JIS"
_BEYOND_JSON = re.compile(rb"NaN|Infinity|\d[eE]\+?\d{3}|\d{300}")
"""What Python's json writes and reads, and orjson does not."""
_LOOSE_COMMA = re.compile(rb",\s*[}\]]")
_ABOUT = ("schema", "metadata", "meta", "info")
"""Keys of an object about the rows, in front of them."""
_ROW_LISTS = (*ROW_LISTS, "train")
_OTHER_SPLITS = ("test", "validation", "valid", "val", "dev", "eval")
"""Keys of lists beside them that are not to be trained on."""


def read_jsonl(stream: IO[bytes], part: Range = WHOLE) -> Iterator[Row]:
    """Yield the rows of the lines that begin in a part of a stream."""
    number, at = part.first_line, part.start
    if part.start:
        stream.seek(part.start - 1)
        at += len(stream.readline()) - 1
        number += at > part.start  # the line that began before this part belongs to the part before
    for lines in _lines(stream, part.end - at if part.end else None):
        if number == 1:
            lines[0] = lines[0].removeprefix(_BOM)
        yield from _json_rows(number, lines)
        number += len(lines)


def read_json(stream: IO[bytes], part: Range = WHOLE) -> Iterator[Row]:
    """Yield the rows of an array of objects, or of an object of objects by id, piece by piece.

    An object that is neither holds its rows as a list under a usual name, or is one row.
    """
    bracket, texts = split_elements(stream, MAX_LINE_BYTES)
    rows = (_element(number, text, bracket) for number, text in enumerate(texts, start=1))
    first = next(rows, None)
    if first is None:
        return
    if bracket == b"{" and not first.problem and not isinstance(first.value["_value"], dict):
        yield from _single_object([first, *rows])
        return
    _refuse_columns(first)
    if bracket == b"{" and first.value.get("_key") in _ABOUT:
        yield from _single_object([first, *rows])
        return
    yield first if bracket == b"[" else _by_id(first)
    yield from rows if bracket == b"[" else map(_by_id, rows)


def _element(number: int, text: bytes, bracket: bytes) -> Row:
    if bracket == b"[":
        return _json_row(number, text)
    row = _json_row(number, b"{%b}" % text)
    if row.problem:
        return row
    ((key, value),) = row.value.items() or [("", None)]
    return Row(number, {"_key": key, "_value": value})


def _by_id(row: Row) -> Row:
    if row.problem:
        return row
    value = row.value["_value"]
    return _checked(row.line, {"_key": row.value["_key"], **value} if isinstance(value, dict) else value)


def _refuse_columns(row: Row) -> None:
    value = row.value.get("_value")
    if isinstance(value, dict) and "0" in value and all(map(str.isdecimal, value)):
        raise DataError("columns of values by number, as pandas writes them; write rows: orient='records', lines=True")


def _single_object(elements: list[Row]) -> Iterator[Row]:
    """Yield the rows of an object whose first value is no object."""
    objects = sum(isinstance(row.value.get("_value"), dict) for row in elements)
    if broken := next((row for row in elements if row.problem), None):
        raise DataError(f"its element {broken.line} cannot be read: {broken.problem}")
    is_listed = any(row.value.get("_key") in _ROW_LISTS and isinstance(row.value["_value"], list) for row in elements)
    if objects > len(elements) / 2 and not is_listed:
        yield from map(_by_id, elements)
        return
    value = {row.value["_key"]: row.value["_value"] for row in elements}
    if isinstance(columns := value.get("columns"), list) and isinstance(value.get("data"), list):  # pandas' `split`
        value = {"data": [dict(zip(columns, cells, strict=True)) for cells in value["data"]]}
    elif len(value) > 1 and _are_columns(list(value.values())):  # `Dataset.to_dict`, pandas' `list`
        value = {"data": [dict(zip(value, cells, strict=True)) for cells in zip(*value.values(), strict=True)]}
    names = [name for name in (*_ROW_LISTS, *_OTHER_SPLITS) if isinstance(value.get(name), list)]
    if not names and _are_chats(value.get("conversations")):
        names = ["conversations"]
    if len(names) > 1 or not set(names).isdisjoint(_OTHER_SPLITS):
        what = "rows under several keys, or of another split"
        raise DataError(f"{what}: {', '.join(names)}; give each list as a file of its own")
    if not names:
        yield Row(1, value)
        return
    yield from map(_checked, count(1), value[names[0]])


def _are_chats(value: Json) -> bool:
    """Return whether a value is the chats of Grok's export."""
    chats = value if isinstance(value, list) else []
    return bool(chats) and all(isinstance(chat, dict) and "responses" in chat for chat in chats)


def _are_columns(values: list[Json]) -> bool:
    """Return whether values are columns of a table: lists of one length, none of them one of messages."""
    is_column = [isinstance(value, list) and not any(isinstance(cell, dict) for cell in value) for value in values]
    return all(is_column) and len(set(map(len, values))) == 1


def _lines(stream: IO[bytes], remaining: int | None) -> Iterator[list[bytes]]:
    """Whole lines in lists, those that begin in the next `remaining` bytes; what is over MAX_LINE_BYTES is cut off."""
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
        alike = keeps_form(b"\n".join(lines), values) and max(map(len, lines)) <= MAX_LINE_BYTES
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        alike = False
    if alike:
        yield from map(_checked, count(number), values)
        return
    for place, line in enumerate(lines, number):
        if len(line) > MAX_LINE_BYTES:
            yield Row(place, {}, f"line longer than {MAX_LINE_BYTES} bytes")
        elif line and not line.isspace():
            yield _json_row(place, line.removeprefix(_BOM))


def _json_row(number: int, text: bytes) -> Row:
    try:
        value = orjson.loads(text)
        if keeps_form(text, value):
            return _checked(number, value)
    except orjson.JSONDecodeError as error:
        reason = str(error).lower()
        if "surrogate" in reason or "utf-8" in reason or not _BEYOND_JSON.search(text):
            return Row(number, {}, _why_not_json(reason, text))
    except orjson.JSONEncodeError:
        return Row(number, {}, "nested too deep")
    return _exact_row(number, text)


def _exact_row(number: int, text: bytes) -> Row:
    try:
        return _checked(number, parse_exactly(text))
    except DataError as error:
        return Row(number, {}, str(error))
    except RecursionError:
        return Row(number, {}, "nested too deep")
    except ValueError:
        return Row(number, {}, "not JSON")


def _why_not_json(error: str, text: bytes) -> str:
    if "utf-8" in error:
        return f"not UTF-8{_OF_ANOTHER_ENCODING}"
    if "surrogate" in error:
        return "half a surrogate pair"
    if "recursion" in error or "depth" in error or text.count(b"{") + text.count(b"[") > 1000:
        return "nested too deep"
    if b"\0" in text:
        return "not JSON (a NUL byte)"
    plain = text.strip()
    if _LOOSE_COMMA.search(plain):
        return "not JSON (a comma before a closing bracket)"
    if plain.startswith((b"//", b"#", b"/*")):
        return "not JSON (a comment)"
    if plain.endswith(b"},"):
        return "not JSON (a comma behind it; JSONL has none between its lines, an array is a .json file)"
    if (plain.startswith(b"{") and "after document" in error) or b"}{" in plain or b"}\r{" in plain:
        return "not JSON (several objects in one line; JSONL has one a line, ended by a line feed)"
    if b"{'" in plain[:200]:
        return "not JSON (single quotation marks, as Python prints; write it by json.dumps)"
    if plain[-1:] in b"{[," or plain[:1] in b"}]" or not plain.startswith((b"{", b"[")):
        return "not JSON (a piece of it; JSONL has a whole object in every line, an array is a .json file)"
    return "not JSON"


def _checked(number: int, value: Json) -> Row:
    if isinstance(value, dict):
        row: JsonObject = value
        return Row(number, row)
    if isinstance(value, list) and value and all(map(is_message_of, value)):
        return Row(number, {"messages": value})
    kind = " but an array; a file that is one array is named .json" if isinstance(value, list) else ""
    return Row(number, {}, f"not an object{kind}")
