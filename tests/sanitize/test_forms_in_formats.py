"""Every form of row that is read or refused is so in every format of file that can carry it."""

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .test_files import records
from .test_forms import READ, REFUSED

Row = dict[str, Any]
TABLES = ("a.csv", "b.csv", "a.tsv")
IN_TABLES_OTHERWISE = {
    *("numbers as choices, a number as place", "dates, decimals, numbers", "an integer label of a column with nulls"),
    *("a context that stands in the messages, too", "a list with one answer", "a fraction as an answer", "bytes"),
    *("the number of an answer", "several answers", "an answer with what is said of it", "an object around messages"),
    *(
        "a failed response",
        "a conversation inside an object",
        "ids of tokens",
        "several classes",
        "two names but for case",
    ),
    *("a logged body without messages", "an object around a question"),
    *("LM Studio's conversation: the version that is shown", "ChatGPT's export: no answer"),
    *("AI Studio's prompt", "ATIF: a run of an agent", "ATIF: commands as text, steps of a former run"),
    *("a conversation in a list of conversations", "tags as a list"),
    *("ChatGPT's export: an end that is not there", "turns by columns, as `datasets` keeps a sequence"),
}
"""Forms whose values have a type or two names that a table does not keep: there they are texts like any."""


def cell(value: Any) -> str:
    """What a table has for a value: texts as they are, everything else as JSON."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)


def write_table(path: Path, row: Row, separator: str) -> None:
    with open(path, "w", newline="") as stream:
        csv.writer(stream, delimiter=separator).writerows([list(row), map(cell, row.values())])


def write_arrow(path: Path, row: Row) -> None:
    table = pa.Table.from_pylist([row])
    with pa.ipc.new_stream(str(path), table.schema) as writer:
        writer.write_table(table)


WRITERS: dict[str, Callable[[Path, Row], object]] = {
    "a.jsonl": lambda path, row: path.write_text(json.dumps(row) + "\n"),
    "a.json": lambda path, row: path.write_text(json.dumps([row], indent=1)),
    "a.jsonl.gz": lambda path, row: path.write_bytes(gzip.compress((json.dumps(row) + "\n").encode())),
    "a.parquet": lambda path, row: pq.write_table(pa.Table.from_pylist([row]), path),
    "a.arrow": write_arrow,
    "a.csv": lambda path, row: write_table(path, row, ","),
    "b.csv": lambda path, row: write_table(path, row, ";"),
    "a.tsv": lambda path, row: write_table(path, row, "\t"),
}


def read(folder: Path, name: str, row: Row) -> Any:
    """The messages of a file of one row; an empty list where it is refused, None where the format cannot carry it."""
    try:
        WRITERS[name](folder / name, row)
    except (TypeError, ValueError, pa.ArrowException):
        return None
    return [record["messages"] for record in records(folder / name)[0]]


@pytest.mark.parametrize("name", WRITERS)
def test_a_form_is_read_alike_in_every_format(name: str, tmp_path: Path) -> None:
    found = {form: read(tmp_path, name, row) for form, (row, _) in READ.items() if not _is_otherwise(name, form)}
    wrong = {form: messages for form, messages in found.items() if messages not in (None, [READ[form][1]])}
    assert not wrong
    assert sum(messages is not None for messages in found.values()) > 50


@pytest.mark.parametrize("name", WRITERS)
def test_a_form_is_refused_in_every_format(name: str, tmp_path: Path) -> None:
    forms = [form for form in REFUSED if not _is_otherwise(name, form) and form != "two names but for case"]
    learned = {form: messages for form in forms if (messages := read(tmp_path, name, REFUSED[form][0]))}
    assert not learned


def _is_otherwise(name: str, form: str) -> bool:
    return name in TABLES and form in IN_TABLES_OTHERWISE


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "role": "x"}',
        '{"role": "admin", "content": "a"}',
        '[{"text": "a"}]',
        '{"text": "a"}',
        '{"messages": ["a"]}',
        '[{"type": "bug", "text": "a"}]',
        '{"type": "text", "text": "a", "page": 1}',
        '{"role": "user", "content": ',
    ],
)
def test_json_that_a_model_is_to_write_stays_text(text: str, tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl"):
        (messages,) = read(tmp_path, name, {"prompt": "q", "completion": text})
        assert messages[1]["content"] == text
