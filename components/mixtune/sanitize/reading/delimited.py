"""Rows of CSV and TSV: what separates the fields is looked at first, and no quotation mark can swallow other rows."""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from mixtune.errors import DataError
from mixtune.sanitize.reading import encodings
from mixtune.sanitize.reading.columnar import check_names
from mixtune.sanitize.reading.row import MAX_LINE_BYTES, Row

_SAMPLE_LINES = 200
_DELIMITERS = (",", ";", "\t", "|")
_MAX_FIELD_LINES = 2000
"""Lines of a quoted field; what is longer is taken for a quotation mark that nothing closes."""
_MANY_LINES = 50
_UNNAMED = "column {}"
_ENDS_EARLY = "unexpected end of data"
_SEPARATOR = re.compile(r'"?sep\s?=\s?(\S|\t)"?\s*$', re.I)
_ESCAPED = re.compile(r'\\"(?![,;\t|\r\n])')
_WHOLE_FIELD = re.compile(r'(?:^|[,;\t|])"[^"\r\n]*"(?=[,;\t|\r\n]|$)')
_ODD = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8."""
_NOT_UTF8 = (
    "not UTF-8, nor surely Windows-1252; save it as UTF-8, or set text.encoding (a pipeline: in sanitize_options), "
    "such as cp1252, cp1250, shift_jis, gb18030"
)


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How a file separates its fields."""

    delimiter: str
    quotes: bool = True
    escapes: bool = False
    """Whether a quotation mark inside a field stands behind a backslash, not twice."""
    spaces: bool = False
    """Whether a space follows every delimiter."""

    def parse(self, lines: list[str]) -> list[str]:
        """Return the fields of one row; raise csv.Error where they are none."""
        if not self.quotes:
            return lines[0].rstrip("\r\n").split(self.delimiter)
        if self.escapes:
            lines = [line.replace('\\"', '""') for line in lines]
        reader = csv.reader(lines, delimiter=self.delimiter, strict=True, skipinitialspace=self.spaces)
        fields = next(reader, [])
        if next(reader, None) is not None:
            raise csv.Error("two rows where one was expected")
        return fields


class _Lines:
    """The lines of a text, which can be put back."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text, self._ahead, self.number = text, deque[str](), 0
        """The number of the last line taken, 1-based."""
        self.quoted = deque[list[str]](maxlen=_SAMPLE_LINES)
        """The lines of the last rows with quotation marks, but for very long rows."""

    def take(self) -> str:
        """Return the next line, with its end; empty at the text's end."""
        line = self._ahead.popleft() if self._ahead else self._text.readline(MAX_LINE_BYTES)
        self.number += bool(line)
        return line

    def put_back(self, lines: list[str]) -> None:
        self._ahead.extendleft(reversed(lines))
        self.number -= len(lines)

    def peek(self, number: int) -> list[str]:
        """Return the next lines without taking them."""
        lines = list[str]()
        while len(lines) < number and (line := self.take()):
            lines.append(line)
        self.put_back(lines)
        return lines


def read_delimited(stream: IO[bytes], delimiter: str, encoding: str = "") -> Iterator[Row]:
    """Yield the rows of a table as text; rows that are not UTF-8 are bad ones, or of the `encoding`.

    Raises:
        DataError: A column stands twice in the header.
    """
    csv.field_size_limit(2 * MAX_LINE_BYTES)
    text = io.TextIOWrapper(stream, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        lines = _Lines(text)
        form = _detect_form(lines, delimiter)
        if form.delimiter != delimiter:
            print(f"{getattr(stream, 'name', '')}: its fields are separated by {form.delimiter!r}", flush=True)
        yield from _rows(lines, form, encoding, getattr(stream, "name", ""))
    finally:
        text.detach()


def _detect_form(lines: _Lines, delimiter: str) -> _Form:
    sample = lines.peek(_SAMPLE_LINES)
    if sample and (separator := _SEPARATOR.match(sample[0])):
        lines.take()
        return _Form(delimiter=separator[1])
    header = next((line for line in sample if line.strip()), "")
    if delimiter == "\t" and "\t" in header:
        return _Form(delimiter=delimiter, quotes=_is_quoted(sample, delimiter))
    text = "".join(sample)
    form = _Form(
        delimiter=max(_DELIMITERS, key=lambda candidate: _fit(sample, candidate) + 0.01 * (candidate == delimiter)),
        escapes=bool(_ESCAPED.search(text)) and '""' not in text,
    )
    names = header.split(form.delimiter)[1:]
    spaces = bool(names) and all(name.startswith(" ") for name in names)
    spaces = spaces or text.count(f'{form.delimiter} "') > text.count(f'{form.delimiter}"')
    return _Form(delimiter=form.delimiter, escapes=form.escapes, spaces=spaces)


def _fit(sample: list[str], delimiter: str) -> float:
    """Return the share of rows, or of lines without quotation marks, with as many fields as the header; 0 for one."""
    rows = list[list[str]]()
    try:
        for row in csv.reader(sample, delimiter=delimiter, strict=True):
            rows.append(row)
    except csv.Error:
        rows.append([])
    plain = [line.rstrip("\r\n").split(delimiter) for line in sample if '"' not in line and line.strip()]
    num_columns = len(rows[0]) if rows else 0
    shares = [sum(len(row) == num_columns for row in some) / len(some) for some in (rows[1:], plain) if some]
    return max(shares, default=1.0) if num_columns > 1 else 0.0


def _is_quoted(sample: list[str], delimiter: str) -> bool:
    """Return whether a TSV quotes fields as CSV does: TSV itself knows no quotation marks."""
    fields, text = list[str](), "".join(sample)
    try:
        for row in csv.reader(sample, delimiter=delimiter, strict=True):
            fields += row
    except csv.Error as error:
        if _ENDS_EARLY not in str(error) or len(sample) < _SAMPLE_LINES:
            return False
    if any("\n" in field and delimiter in field for field in fields):  # rows, rather
        return False
    is_header = all(name.startswith('"') for name in sample[0].split(delimiter))
    return is_header or any("\n" in field for field in fields) or _is_written(fields, text, delimiter)


def _is_written(fields: list[str], text: str, delimiter: str) -> bool:
    """Return whether fields stand in a text as only a writer of CSV puts them: one is quoted since it has to be."""
    return any(
        (delimiter in field and "\n" not in field) or ('"' in field and field.replace('"', '""') in text)
        for field in fields
    )


def _rows(lines: _Lines, form: _Form, encoding: str, file: str) -> Iterator[Row]:
    names: list[str] = []
    is_utf8 = bool(encoding)
    while line := lines.take():
        number = lines.number
        if not line.strip(" \r\n"):
            continue
        if len(line) >= MAX_LINE_BYTES:
            yield Row(number, {}, f"line longer than {MAX_LINE_BYTES} bytes")
            continue
        try:
            fields = form.parse([line]) if '"' not in line else _quoted(line, lines, form, len(names))
        except csv.Error as error:
            if not names:
                raise DataError(f"its header is not CSV: {error}") from error
            yield Row(number, {}, f"not CSV: {error}")
            continue
        if not (is_utf8 or all(map(str.isascii, fields))):  # of the whole row: its first line may well be ASCII
            is_utf8 = True
            row = "\n".join(fields)
            if _ODD.search(row) and encodings.is_western(_odd_lines([row, *lines.peek(_SAMPLE_LINES)])):
                encoding = encodings.NAME
                print(f"{file}: not UTF-8; read as {encoding}, by its letters; text.encoding names another", flush=True)
        if not names and any(map(_ODD.search, fields)) and not encoding:
            raise DataError(f"its header is {_NOT_UTF8}")
        if not names:
            names = _header([_decoded(field, encoding or "utf-8") for field in fields])
        else:
            yield _row(number, names, fields, encoding)


def _odd_lines(lines: list[str]) -> list[bytes]:
    """Return the bytes of lines that are not UTF-8; none where others have letters beyond ASCII in UTF-8."""
    odd = [line for line in lines if not line.isascii() and _ODD.search(line)]
    is_mixed = any(not line.isascii() and not _ODD.search(line) for line in lines)
    return [] if is_mixed else [line.encode("utf-8", "surrogateescape") for line in odd]


def _decoded(field: str, encoding: str) -> str:
    return field.encode("utf-8", "surrogateescape").decode(encoding)


def _header(fields: list[str]) -> list[str]:
    """Return the names of the columns; one without a name gets its place as its name, but for the first, an index."""
    return check_names(
        name if name.strip() or not place else _UNNAMED.format(place + 1) for place, name in enumerate(fields)
    )


def _row(number: int, names: list[str], fields: list[str], encoding: str) -> Row:
    if len(fields) > len(names) and not any(field.strip() for field in fields[len(names) :]):
        fields = fields[: len(names)]
    while len(fields) < len(names) and names[len(fields)] == _UNNAMED.format(len(fields) + 1):
        fields = [*fields, ""]
    if len(fields) != len(names):
        hint = "; is there a line above it?" if len(names) == 1 else ""
        return Row(number, {}, f"{len(fields)} fields where the header has {len(names)}{hint}")
    if [name.strip(" \ufeff") for name in fields] == names:
        return Row(number, {}, "the header again")
    if any(map(_ODD.search, fields)):
        if not encoding:
            return Row(number, {}, _NOT_UTF8)
        try:
            fields = [_decoded(field, encoding) for field in fields]
        except UnicodeDecodeError:
            return Row(number, {}, f"neither UTF-8 nor {encoding}")
    return Row(number, dict(zip(names, fields, strict=True)))


def _quoted(line: str, lines: _Lines, form: _Form, num_columns: int) -> list[str]:
    """Return the fields of a row that begins with a line; where it is none (csv.Error), the next are rows again."""
    row = [line]
    while True:
        try:
            fields = form.parse(row)
            break
        except csv.Error as error:
            more = _until_quote(lines, _MAX_FIELD_LINES - len(row)) if _ENDS_EARLY in str(error) else []
            row += more
            if not more or len(row) >= _MAX_FIELD_LINES:
                lines.put_back(row[1:])
                why = "nothing closes it" if _ENDS_EARLY in str(error) else "another one stands alone in it"
                raise csv.Error(f"a quotation mark opens a field and {why}") from error
    if len(row) > 1 and num_columns > 1 and _are_rows(row, form, num_columns) and not _has_writer(lines, form, row):
        lines.put_back(row[1:])
        raise csv.Error(f"a quotation mark swallows {len(row) - 1} rows after it")
    lines.quoted += [row] if len(row) < _MANY_LINES else []
    return fields


def _are_rows(lines: list[str], form: _Form, num_columns: int) -> bool:
    """Return whether the lines of one quoted field look like rows of their own.

    In prose a space follows a comma, in a row no space follows what separates the fields.
    """
    tight = re.compile(re.escape(form.delimiter) + ("" if form.spaces else r"(?![ \r\n])"))
    return all(len(tight.findall(line)) == num_columns - 1 for line in lines if line.strip())


def _has_writer(lines: _Lines, form: _Form, row: list[str]) -> bool:
    """Return whether a writer of CSV made the file: then a table within a field is no rows that were swallowed."""
    for candidate in (row, *lines.quoted, *([line] for line in lines.peek(_SAMPLE_LINES) if '"' in line)):
        text = "".join(candidate)
        with suppress(csv.Error):
            if _is_written(form.parse(candidate), text, form.delimiter) or _WHOLE_FIELD.search(text):
                return True
    return False


def _until_quote(lines: _Lines, limit: int) -> list[str]:
    """Return the next lines up to one with a quotation mark; none at the text's end."""
    out = list[str]()
    while len(out) < limit and (line := lines.take()):
        out.append(line)
        if '"' in line:
            break
    return out
