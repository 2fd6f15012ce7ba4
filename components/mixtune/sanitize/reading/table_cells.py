"""JSON that stands as text in a table's cell, read as what it is where it can be nothing else.

An answer may be JSON that a model is to write, so only messages, their parts, conversations with their tools, scored
completions and SQuAD's answers are read; every other text stays as it is.
"""

import re

from mixtune.errors import DataError
from mixtune.sanitize.reading.message_forms import is_message_of, is_part
from mixtune.sanitize.reading.values import Json, JsonObject, parse_column

_BEGIN = re.compile(
    r'\s*(?:\[\s*)?\{\s*"(?:role|from|speaker|content|value|parts|messages|tools|type|text|answer_start|score|completion)"\s*:'
)
_SQUAD, _SCORED = {"text", "answer_start"}, {"score", "completion"}
_CONVERSATION = {"messages", "tools", "parallel_tool_calls"}


def read_cells(row: JsonObject) -> JsonObject:
    """Return a row, texts in it that surely are JSON of a known form as values."""
    begun = {name: text for name, text in row.items() if isinstance(text, str) and _BEGIN.match(text)}
    values = {name: value for name, text in begun.items() if (value := _structure(text)) is not None}
    return {**row, **values} if values else row


def _structure(text: str) -> Json:
    """Return the value of a text that is JSON of a known form; None for any other."""
    try:
        value = parse_column(text)
    except DataError:
        return None
    if isinstance(value, dict):
        is_known = is_message_of(value) or value.keys() == _SQUAD or _is_conversation(value)
    else:
        is_known = isinstance(value, list) and bool(value) and all(map(_is_item, value))
    return value if is_known else None


def _is_conversation(value: JsonObject) -> bool:
    messages = value.get("messages")
    return value.keys() <= _CONVERSATION and isinstance(messages, list) and all(map(is_message_of, messages))


def _is_item(value: Json) -> bool:
    return isinstance(value, dict) and (is_message_of(value) or is_part(value) or value.keys() == _SCORED)
