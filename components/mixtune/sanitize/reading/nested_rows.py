"""Rows whose conversation lies deeper: as JSON in a table's cell, as one text, in a logged request and its response.

An answer may be JSON that a model is to write, so only messages, their parts, conversations with their tools, scored
completions and SQuAD's answers are read from a cell; every other text stays as it is.
"""

import re

from mixtune.benchmark_files import parse_cell
from mixtune.errors import DataError
from mixtune.sanitize.reading.exports.apps import opened_export
from mixtune.sanitize.reading.exports.spans import traced
from mixtune.sanitize.reading.exports.trajectories import trajectory_talk
from mixtune.sanitize.reading.exports.transcripts import glaive_talk, is_glaive, spoken
from mixtune.sanitize.reading.fields import CONVERSATIONS, TABLES, check_end
from mixtune.sanitize.reading.message_forms import is_message, is_message_of, is_part, names_speaker
from mixtune.sanitize.reading.values import Json, JsonObject, is_blank, parse_column, parse_if_json
from mixtune.sanitize.rules.record_texts import Refused

_BEGIN = re.compile(
    r'\s*(?:\[\s*)?\{\s*"(?:role|from|speaker|content|value|parts|messages|tools|type|text|answer_start|score|completion)"\s*:'
    r"|\{'(?:text|answer_start)': |\[\{['\"](?:role|from|speaker|content|value)['\"]: "
)
_SQUAD, _SCORED = {"text", "answer_start"}, {"score", "completion"}
_CONVERSATION = {"messages", "tools", "parallel_tool_calls"}
_TURNS = ("messages", "contents")
_REQUESTS, _RESPONSES, _INSIDE = (TABLES["logged"][side].split() for side in ("requests", "responses", "inside"))
"""Keys on the way from a response to the message in it."""
_LOGGED = re.compile(
    r'(?s)\s*\[?\s*\{.*"(?:(?:messages|contents|choices|candidates|message|content)"\s*:\s*|gen_ai.input.messages"\s*:\s*"?)[\[{]'
)
_TEMPLATE = {"tools": ("xml_tools", "python_tools"), "system": ("custom_instructions",)}
"""Values for a chat template that are a row's tools or its system text."""
_TRANSCRIPTS = ("chosen", "text", "conversation")
"""Columns that may hold a whole conversation as one text, as HH-RLHF's and Guanaco's do."""


def describe_kind(row: JsonObject) -> str:
    """Return what a row of no known schema is, and what to do with it; empty where that is not known either."""
    kinds = TABLES["kinds"]
    names = next((names for names in kinds if row.keys() >= set(names.split()) != {"text"} or {*row} == {names}), "")
    what = kinds.get(names, "")
    for name, way in TABLES["ways"].items():
        what = what.replace(name, way)
    return what


def opened(row: JsonObject) -> JsonObject:
    """Return an app's export, one text, or a request with its response as a conversation; other rows as they are.

    Raises:
        DataError: A request has several responses.
        Refused: The response was cut off.
    """
    if is_glaive(row):
        return glaive_talk(row)
    if talk := trajectory_talk(row):
        return talk
    row = _by_turns(read_cells(_of_template(traced(opened_export(row)))))
    is_plain = row.keys().isdisjoint(("label", "prompt"))
    for name in _TRANSCRIPTS:
        if is_plain and isinstance(row.get(name), str) and (turns := spoken(row[name])):
            return {**_without(row, name), "chosen" if name == "chosen" else "messages": turns}
    opened_row = row | {name: _logged(row[name]) for name in (*_REQUESTS, *_RESPONSES) if name in row}
    name = next((name for name in _RESPONSES if isinstance(opened_row.get(name), (dict, list))), "")
    if not name:
        row = _example(row)
        inside = [name for name, value in row.items() if isinstance(value, dict) and _is_talk(value.get("messages"))]
        return {**_without(row, *inside), **row[inside[0]]} if len(inside) == 1 and "messages" not in row else row
    key = next((key for key in _REQUESTS if key != name and _request(opened_row.get(key))), "")
    request = _request(opened_row[key]) if key else row
    column = next((column for column in _TURNS if isinstance(request.get(column), list) and request[column]), "")
    turns = request[column] if column else []
    turns = turns[0] if len(turns) == 1 and isinstance(turns[0], list) else turns  # LangChain's, by their batches
    if not turns or _is_talk(turns) or (answer := _answer(opened_row[name])) is None:
        return _example(row)
    response = {} if isinstance(opened_row[name], list) or is_message(opened_row[name]) else opened_row[name]
    about = {f"{name}.{inner}": value for inner, value in _without(response, *_INSIDE).items()}
    return {**_without(row, key, name), **about, **_without(request, name), column: [*turns, *answer]}


def _example(row: JsonObject) -> JsonObject:
    """Return an example of LangSmith's by the columns of its two sides; any other row as it is."""
    sides = [parse_if_json(row.get(name)) for name in ("inputs", "outputs")]
    about = _without(row, "inputs", "outputs")
    if all(isinstance(side, dict) and isinstance(side.get("messages"), list) for side in sides):  # LangGraph's
        before, after = ([_content_of(turn) for turn in side["messages"]] for side in sides)
        sides[0] = _without(sides[0], "messages") if after[: len(before)] == before else sides[0]
    columns = [name for side in (*sides, about) if isinstance(side, dict) for name in side]
    is_example = all(isinstance(side, dict) for side in sides) and len(columns) == len(set(columns))
    return {**about, **sides[0], **sides[1]} if is_example else row


def _content_of(turn: Json) -> Json:
    """Return what a turn says, whether LangChain dumped it or not."""
    inner = turn.get("kwargs", turn.get("data", turn)) if isinstance(turn, dict) else {}
    return inner.get("content") if isinstance(inner, dict) else None


def _of_template(row: JsonObject) -> JsonObject:
    """Return a row with the system text and the tools that it holds for a chat template, as SmolTalk 2 has them."""
    values = parse_if_json(row.get("chat_template_kwargs"))
    if not isinstance(values, dict):
        return row
    filled = {key: [name for name in names if not is_blank(values.get(name))] for key, names in _TEMPLATE.items()}
    filled = {key: names for key, names in filled.items() if names and is_blank(row.get(key))}
    read = {name for names in filled.values() for name in names}
    about = {f"chat_template_kwargs.{name}": value for name, value in values.items() if name not in read}
    framing = {
        key: [values[name] for name in names] if key == "tools" else values[names[0]] for key, names in filled.items()
    }
    return {**_without(row, "chat_template_kwargs"), **about, **framing}


def _by_turns(row: JsonObject) -> JsonObject:
    """Return a row whose conversation is columns of roles and of texts, as `datasets` keeps a sequence, as messages."""
    for name in CONVERSATIONS:
        if not isinstance(columns := row.get(name), dict):
            continue
        values = list(columns.values())
        if values and all(isinstance(value, list) for value in values) and len(set(map(len, values))) == 1:
            turns = [dict(zip(columns, turn, strict=True)) for turn in zip(*values, strict=True)]
            return {**row, name: turns} if turns and names_speaker(turns[0]) else row
    return row


def _without(fields: JsonObject, *names: str) -> JsonObject:
    return {name: value for name, value in fields.items() if name not in names}


def _logged(value: Json) -> Json:
    """Return the value of a text that may be the JSON of a request or a response; other values as they are."""
    try:
        return parse_column(value) if isinstance(value, str) and _LOGGED.match(value) else value
    except DataError:
        return value


def _request(value: Json) -> JsonObject:
    """Return the object of a request that holds its conversation; an empty one where there is none."""
    if not isinstance(value, dict):
        return {"messages": value} if isinstance(value, list) and value and all(map(is_message, value)) else {}
    if any(name in value for name in _TURNS):
        return value
    return next((inner for name in _REQUESTS if (inner := _request(value.get(name)))), {})


def _answer(value: Json) -> list[Json] | None:
    """Return the messages of a response; None where it holds none."""
    if isinstance(value, dict):
        check_end(value)
        if value.get("status") == "incomplete":
            raise Refused("an answer that was cut off (incomplete)")
        if is_message(value):
            return [value]
        return next((inner for name in _INSIDE if (inner := _answer(value.get(name))) is not None), None)
    if not isinstance(value, (list, tuple)) or not value:
        return None
    if all(map(is_message, value)):
        return list(value)
    if len(value) > 1 and all(_answer(item) for item in value):
        raise DataError(f"a request has {len(value)} responses; keep the one that is to be learned")
    return _answer(value[0])


def _is_talk(turns: Json) -> bool:
    """Return whether a value is a list of messages that ends with an answer."""
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, dict) and last.get("role") in ("assistant", "model")


def read_cells(row: JsonObject) -> JsonObject:
    """Return a row, texts in it that surely are JSON of a known form as values."""
    begun = {name: text for name, text in row.items() if isinstance(text, str) and _BEGIN.match(text)}
    values = {name: value for name, text in begun.items() if (value := _structure(text)) is not None}
    if isinstance(text := row.get("answers"), str) and text.startswith("[") and (answers := _texts(text)):
        values["answers"] = answers
    return {**row, **values} if values else row


def _texts(cell: str) -> Json:
    """Return the list of texts that a cell holds as JSON or as printed; None: it holds another."""
    value = parse_cell(cell)
    return value if isinstance(value, list) and all(isinstance(text, str) for text in value) else None


def _structure(text: str) -> Json:
    """Return the value of a text that is JSON of a known form; of what Python prints, SQuAD's answers and messages."""
    try:
        value = parse_column(text)
    except DataError:
        value = parse_cell(text)
        is_printed = isinstance(value, list) and all(map(_is_item, value))
        return value if is_printed or (isinstance(value, dict) and value.keys() == _SQUAD) else None
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
