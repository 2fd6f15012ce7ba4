"""What stands around a conversation in a row, and means the same in every schema: system text, history, tools.

Tools and their calls that are spelled in texts, as Hermes and Qwen write them, are read here, too.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

import orjson

from mixtune.errors import DataError
from mixtune.records import Message
from mixtune.sanitize.reading import fields as names
from mixtune.sanitize.reading.fields import account, first_filled
from mixtune.sanitize.reading.message_forms import is_message, read_call, read_messages, read_system
from mixtune.sanitize.reading.values import (
    Json,
    JsonObject,
    Unread,
    label_of,
    parse_column,
    parse_objects,
    plain_json,
    printed,
    text_of,
)

_SPELLED_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>\s*", re.DOTALL)
_SPELLED_RESULT = re.compile(r"\s*<tool_response>\s*((?:(?!<tool_response>).)*?)\s*</tool_response>\s*", re.DOTALL)
_TOLD = "|".join(re.sub(" +", r"\\s+", text) for text in names.TABLES["told"]["sentences"].strip().split("\n"))
_SPELLED_TOOLS = re.compile(
    rf"(?si)(?:# Tools\s+)?(?:{_TOLD})(?:\s|{_TOLD})*<tools>\s*([\[{{].*?)</tools>\.?(?:\s|{_TOLD})*"
)
"""Tools in a system text, and how they are to be called, in the words of Hermes and Qwen alone."""
_TAGGED = re.compile(r"(?s)<tools>\s*(.*?)\s*</tools>")
_LISTED_CALLS = re.compile(r"(?s)(.*?)<TOOLCALL>\s*(\[.*\])\s*</TOOLCALL>\s*")
"""Calls as NVIDIA's data spell them."""
_OTHER_CALLS = re.compile(rf"(?m)^\s?(?:{'|'.join(map(re.escape, names.TABLES['spelled']['calls'].split()))})")
_CLOSING = (")", "]", "}", ">")
"""What a text that spells a call ends with."""
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


def with_thought(messages: list[Message], row: JsonObject, unread: Unread) -> list[Message]:
    """Return messages with the thought that stands beside them, where it can belong to but one answer."""
    thought = names.thought_of(row, unread)
    answers = [message for message in messages if message["role"] == "assistant"]
    if thought is None or messages[-1:] != answers or answers[0].get("reasoning", thought) != thought:
        unread.update(name for name in names.REASONING if thought is not None and row.get(name) == thought)
        return messages
    return [*messages[:-1], {**answers[0], "reasoning": text_of(thought)}]


def _history(history: Json, unread: Unread) -> list[Message]:
    if isinstance(history, (list, tuple)) and all(map(is_message, history)):
        return read_messages(list(history), unread)
    out: list[Message] = []
    for pair in history if isinstance(history, (list, tuple)) else [None]:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise DataError("its history is neither pairs of question and answer nor messages")
        out += question_and_answer(text_of(pair[0]), text_of(pair[1]))
    return out


def read_spelled_calls(messages: list[Message], unread: Unread) -> list[Message]:
    """Return messages whose calls stand in their text, as Hermes and Qwen write them, with calls beside the text.

    Raises:
        DataError: A call is not JSON, or spelled in another way.
    """
    out = list[Message]()
    for message in messages:
        text, _, calls = message["content"].partition("<tool_call>")
        is_answer = message["role"] == "assistant" and "tool_calls" not in message
        may_call = is_answer and message["content"].rstrip()[-1:] in _CLOSING
        if may_call and (listed := _LISTED_CALLS.fullmatch(message["content"])):
            called = [read_call(call, unread) for call in parse_column(listed[2], "a list of calls is")]
            message = {**message, "content": listed[1].strip(), "tool_calls": called}
        elif may_call and _OTHER_CALLS.search(message["content"]):
            raise DataError("a call of a tool is spelled in a text in a way that is not read; write it as `tool_calls`")
        elif message["role"] == "assistant" and calls and not _SPELLED_CALL.sub("", "<tool_call>" + calls):
            called = [read_call(printed(call), unread) for call in _SPELLED_CALL.findall("<tool_call>" + calls)]
            message = {**message, "content": text.strip(), "tool_calls": called}
        elif message["role"] == "tool" and (result := _SPELLED_RESULT.fullmatch(message["content"])):
            message = {**message, "content": result[1]}
        out.append(message)
    return out


def without_spelled_tools(messages: list[Message], tools: list[JsonObject], unread: Unread) -> list[Message]:
    """Return messages whose system text does not spell out the tools beside them: a template shows those itself."""
    text = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    match = _SPELLED_TOOLS.search(text) if "<tools>" in text else None
    if not match or not all(re.search(rf"[\"']{re.escape(tool['name'])}[\"']", match[1]) for tool in tools):
        return messages
    unread["tools in the system text"] += 1
    text = (text[: match.start()] + text[match.end() :]).strip()
    return [{**messages[0], "content": text}, *messages[1:]] if text else messages[1:]


def tools_of(row: JsonObject, unread: Unread) -> list[JsonObject]:
    """Return the tools that stand beside a conversation."""
    tools = first_filled(row, names.TOOLS, unread)
    return [] if tools is None else read_tools(tools, unread)


def read_tools(value: Json, unread: Unread) -> list[JsonObject]:
    """Return tools in a record's form, from OpenAI's, Converse's, Anthropic's or Gemini's, or any of them as text."""
    try:
        key = orjson.dumps(value, default=lambda item: {"\ufdd2": repr(item)})
    except orjson.JSONEncodeError:  # an integer of more than 64 bits
        return [_tool(item, unread) for item in _tool_items(_given(value))]
    if key not in _TOOLS:
        if len(_TOOLS) >= _MANY_TOOLS:
            _TOOLS.clear()
        passed_over: Unread = Counter()
        _TOOLS[key] = (
            [_tool(item, passed_over) for item in _tool_items(_given(value))],
            passed_over,
        )
    tools, passed_over = _TOOLS[key]
    unread.update(passed_over)
    return tools


def _given(value: Json) -> Json:
    """Return what a field of tools holds; as text it may be several tools, one behind the other."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        tools = parse_objects(value, "its tools are")
        return tools if len(tools) > 1 else tools[0]
    return parse_column(value, "its tools are")


def _tool_items(value: Json) -> list[Json]:
    """Return the tools in a field, one by one."""
    if isinstance(value, dict):
        inner = next(
            (value[key] for key in ("tools", "functionDeclarations", "function_declarations") if key in value), None
        )
        return [value] if inner is None else _tool_items(inner)
    if not isinstance(value, (list, tuple)):
        raise DataError("tools are not a list")
    items = [_parsed(item) for item in value]
    flat = []
    for item in items:
        nested = isinstance(item, list) or (
            isinstance(item, dict) and not {"functionDeclarations", "function_declarations"}.isdisjoint(item)
        )
        flat += _tool_items(item) if nested else [item]
    return [item for item in flat if not (isinstance(item, dict) and set(item) == {"cachePoint"})]


def _parsed(item: Json) -> Json:
    """Return a tool, or several, from JSON text, from `<tools>` around it, or from one that Python printed a line."""
    if not isinstance(item, str):
        return item
    match = None if item.lstrip()[:1] in ("{", "[") else _TAGGED.search(item)
    text = match[1] if match else item
    lines = [printed(line) for line in text.strip().split("\n")]
    return lines if all(isinstance(line, dict) for line in lines) else parse_objects(text, "a tool is")


_RESULTS = ("return", "response")
"""What a tool gives back, as transformers' `get_json_schema` and Google's declarations call it; templates show them."""


def _tool(tool: Json, unread: Unread) -> JsonObject:
    spec = next((tool[key] for key in ("function", "toolSpec") if key in tool), tool) if isinstance(tool, dict) else {}
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise DataError("a tool has no name")
    read = ("name", "description", "parameters", "input_schema", "inputSchema", "arguments", "type", *_RESULTS)
    account(spec, frozenset(read), unread, "tools.")
    if spec is not tool:
        account(tool, frozenset(("function", "toolSpec", "type")), unread, "tools.")
    schema = parse_column(next((spec[key] for key in read[2:6] if spec.get(key)), None)) or {}
    if isinstance(schema, dict) and set(schema) == {"json"}:
        schema = schema["json"]
    return {
        "name": spec["name"],
        "description": text_of(spec.get("description")),
        "parameters": plain_json(schema, "a tool's schema"),
        **{key: plain_json(spec[key], "a tool's schema") for key in _RESULTS if spec.get(key)},
    }
