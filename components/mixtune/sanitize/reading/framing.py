"""What stands around a conversation in a row, and means the same in every schema: system text, history, tools."""

from collections import Counter
from dataclasses import dataclass, field

import orjson

from mixtune.errors import DataError
from mixtune.records import Message
from mixtune.sanitize.reading import fields as names
from mixtune.sanitize.reading.fields import account, first_filled
from mixtune.sanitize.reading.message_forms import is_message, read_messages, read_system
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, label_of, parse_column, plain_json, text_of

_TOOLS = dict[bytes, tuple[list[JsonObject], Unread]]()
_MANY_TOOLS = 256
"""Lists of tools as they were read, by what they were read from: the rows of a file have few."""


@dataclass(kw_only=True, slots=True)
class Fields:
    """What a schema reads of a row."""

    messages: list[Message]
    tools: list[JsonObject] = field(default_factory=list)
    label: str = ""
    group: str = ""
    consent: str = ""
    weight: Json = None


def finished(fields: Fields, row: JsonObject) -> Fields:
    """Return fields with those that mean the same in every schema."""
    fields.group, fields.consent = (label_of(row[name]) if name in row else "" for name in names.KEPT)
    return fields


def question_and_answer(question: str, answer: str) -> list[Message]:
    """Return the two turns."""
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def framed(messages: list[Message], row: JsonObject, unread: Unread) -> list[Message]:
    """Return messages with the system text and the history that stand beside them."""
    if (history := first_filled(row, names.HISTORY, unread)) is not None:
        messages = [*_history(parse_column(history, "its history is"), unread), *messages]
    if (system := first_filled(row, names.SYSTEM, unread)) is not None:
        messages = with_system(messages, [read_system(system, unread)])
    return messages


def with_system(messages: list[Message], texts: list[str]) -> list[Message]:
    """Return messages behind the first of some system texts, if any; a DataError where they begin with another."""
    if not texts or not texts[0].strip():
        return messages
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"].strip() == texts[0].strip():
            return messages
        raise DataError("a system text stands beside messages that begin with another one; keep one of them")
    return [{"role": "system", "content": texts[0]}, *messages]


def _history(history: Json, unread: Unread) -> list[Message]:
    if isinstance(history, (list, tuple)) and all(map(is_message, history)):
        return read_messages(list(history), unread)
    out: list[Message] = []
    for pair in history if isinstance(history, (list, tuple)) else [None]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise DataError("its history is neither pairs of question and answer nor messages")
        out += question_and_answer(text_of(pair[0]), text_of(pair[1]))
    return out


def tools_of(row: JsonObject, unread: Unread) -> list[JsonObject]:
    """Return the tools that stand beside a conversation."""
    tools = first_filled(row, names.TOOLS, unread)
    return [] if tools is None else read_tools(tools, unread)


def read_tools(value: Json, unread: Unread) -> list[JsonObject]:
    """Return tools in a record's form, from OpenAI's, Converse's, Anthropic's or Gemini's, or any of them as text."""
    try:
        key = orjson.dumps(value, default=lambda item: {"\ufdd2": repr(item)})
    except orjson.JSONEncodeError:  # an integer of more than 64 bits
        return [_tool(item, unread) for item in _tool_items(parse_column(value, "its tools are"))]
    if key not in _TOOLS:
        if len(_TOOLS) >= _MANY_TOOLS:
            _TOOLS.clear()
        passed_over: Unread = Counter()
        _TOOLS[key] = (
            [_tool(item, passed_over) for item in _tool_items(parse_column(value, "its tools are"))],
            passed_over,
        )
    tools, passed_over = _TOOLS[key]
    unread.update(passed_over)
    return tools


def _tool_items(value: Json) -> list[Json]:
    """Return the tools in a field, one by one."""
    if isinstance(value, dict):
        inner = next(
            (value[key] for key in ("tools", "functionDeclarations", "function_declarations") if key in value), None
        )
        return [value] if inner is None else _tool_items(inner)
    if not isinstance(value, (list, tuple)):
        raise DataError("tools are not a list")
    items = [parse_column(item, "a tool is") for item in value]
    flat = []
    for item in items:
        nested = isinstance(item, dict) and not {"functionDeclarations", "function_declarations"}.isdisjoint(item)
        flat += _tool_items(item) if nested else [item]
    return [item for item in flat if not (isinstance(item, dict) and set(item) == {"cachePoint"})]


_RESULTS = ("return", "response")
"""What a tool gives back, as transformers' `get_json_schema` and Google's declarations call it; templates show them."""


def _tool(tool: Json, unread: Unread) -> JsonObject:
    spec = next((tool[key] for key in ("function", "toolSpec") if key in tool), tool) if isinstance(tool, dict) else {}
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise DataError("a tool has no name")
    read = ("name", "description", "parameters", "input_schema", "inputSchema", "type", *_RESULTS)
    account(spec, frozenset(read), unread, "tools.")
    if spec is not tool:
        account(tool, frozenset(("function", "toolSpec", "type")), unread, "tools.")
    schema = parse_column(next((spec[key] for key in read[2:5] if spec.get(key)), None)) or {}
    if isinstance(schema, dict) and set(schema) == {"json"}:
        schema = schema["json"]
    return {
        "name": spec["name"],
        "description": text_of(spec.get("description")),
        "parameters": plain_json(schema, "a tool's schema"),
        **{key: plain_json(spec[key], "a tool's schema") for key in _RESULTS if spec.get(key)},
    }
