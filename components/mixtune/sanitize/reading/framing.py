"""What stands around a conversation in a row, and means the same in every schema: system text, history, tools.

Tools and their calls that are spelled in texts, as Hermes and Qwen write them, are read here, too.
"""

import ast
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
    is_null_text,
    label_of,
    parse_column,
    parse_if_json,
    parse_objects,
    plain_json,
    printed,
    text_of,
)

_SPELLED_RESULT = re.compile(r"\s*<tool_response>\s*((?:(?!<tool_response>).)*?)\s*</tool_response>\s*", re.DOTALL)
_TOLD = "|".join(re.sub(" +", r"\\s+", text) for text in names.TABLES["told"]["sentences"].strip().split("\n"))
_SPELLED_TOOLS = re.compile(
    rf"(?si)(?:# Tools\s+)?(?:{_TOLD})(?:\s|{_TOLD})*<tools>\s*([\[{{].*?)</tools>\.?(?:\s|{_TOLD})*"
)
"""Tools in a system text, and how they are to be called, in the words of Hermes and Qwen alone."""
_TAGGED = re.compile(r"(?s)<tools>\s*(.*?)\s*</tools>")
_SPELLED = names.TABLES["spelled"]
_AROUND, _PLAIN, _OTHER = (re.compile(f"(?m){_SPELLED[name]}") for name in ("around", "plain", "other"))
_NAMED, _ARGUMENT = (re.compile("(?s)" + _SPELLED[name].replace("\n", "|")) for name in ("named", "argument"))
_OTHER_CALLS = re.compile(rf"(?m)^\s?(?:{'|'.join(map(re.escape, _SPELLED['calls'].split()))})")
_FENCE = re.compile(r"\A```\w*|```\Z")
_CLOSING = (")", "]", "}", ">", "`")
"""What a text that spells a call ends with."""
_NOT_READ = "a call of a tool is spelled in a text in a way that is not read; write it as `tool_calls`"
_GIVEN = frozenset(("arguments", "parameters", "args", "input"))
_CALL = _GIVEN | {"name", "id", "type"}
_UNLISTED = "calls of tools that are not listed"
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


def read_spelled_calls(messages: list[Message], tools: list[JsonObject], unread: Unread) -> list[Message]:
    """Return messages whose calls stand in their text, as models' templates spell them, with calls beside the text.

    Raises:
        DataError: A call is not JSON, or spelled in another way.
    """
    by_name = {tool["name"]: tool for tool in tools}
    out = [_with_spelled_calls(message, by_name, unread) for message in messages] if tools else messages
    calling = [message["tool_calls"] for message in out if "tool_calls" in message]
    if calling and not {call["name"] for calls in calling for call in calls} <= by_name.keys():
        unread.update([_UNLISTED])
    return out


def _with_spelled_calls(message: Message, tools: dict[str, JsonObject], unread: Unread) -> Message:
    text = message["content"]
    if message["role"] == "tool" and (result := _SPELLED_RESULT.fullmatch(text)):
        return {**message, "content": result[1]}
    if message["role"] != "assistant" or "tool_calls" in message:
        return message
    ends = text.rstrip()[-1:] in _CLOSING
    speech, called = _spelled(text, tools) if ends else (text, [])
    others = {name for match in _OTHER.finditer(text) for name in match.groups()}
    if not called and (tools.keys() & others or (ends and _OTHER_CALLS.search(text))):
        raise DataError(_NOT_READ)
    if not called:
        return message
    return {**message, "content": speech.strip(), "tool_calls": [read_call(call, unread) for call in called]}


def _spelled(text: str, tools: dict[str, JsonObject]) -> tuple[str, list[Json]]:
    """Return what a text says before the calls that it ends with, and these; none where it surely ends with none.

    Without the marks of a call, all of them have to be of tools that are listed.
    """
    marks = [match.start() for pattern in (_NAMED, _AROUND, _PLAIN) if (match := pattern.search(text))]
    spelled = text[min(marks, default=len(text)) :]
    pairs = [[group for group in groups if group] for groups in _NAMED.findall(spelled)]
    named: list[Json] = [{"name": name, "arguments": _arguments(body, tools.get(name, {}))} for name, *body in pairs]
    pieces = [_FENCE.sub("", piece.strip()).strip() for piece in _AROUND.split(_NAMED.sub("", spelled))]
    plain = [_json_calls(piece) or _python_calls(piece) for piece in pieces if piece]
    calls = [call for part in plain for call in part]
    is_listed = {_function_of(call)["name"] for call in calls} <= tools.keys()
    is_marked = _AROUND.search(spelled) and all(piece[:1] in ("", "[", "{") for piece in pieces)
    is_sure = all(plain) and (is_listed or is_marked) and not (named and calls)
    return (text[: len(text) - len(spelled)], named or calls) if is_sure else (text, [])


def _arguments(body: list[str], tool: JsonObject) -> Json:
    """Return the arguments of a call: JSON, or values by their names, each of the type that its tool's schema says."""
    if not body or body[0].lstrip().startswith("{"):
        return "".join(body)
    if _ARGUMENT.sub("", body[0]).strip():
        raise DataError(_NOT_READ)
    schemas = tool.get("parameters", {}).get("properties") or {}
    matches = [[group for group in match.groups() if group is not None] for match in _ARGUMENT.finditer(body[0])]
    return {name: _typed(text, schemas.get(name)) for name, text in matches}


def _typed(text: str, schema: Json) -> Json:
    """Return the value of an argument; without a type, only a text that is not JSON is surely what it says."""
    kind = schema.get("type") if isinstance(schema, dict) else None
    if str(kind).lower() in ("string", "str"):
        return text
    value = parse_if_json(text)
    if (value == text) == isinstance(kind, str):
        raise DataError(_NOT_READ)
    return value


def _json_calls(text: str) -> list[Json]:
    """Return the calls that a text is as JSON, or one as Python prints it; none where it is anything else."""
    try:
        value = printed(text)
        values = parse_objects(text, "a call is") if value is text else [value]
    except DataError:
        return []
    wrapped = values[0] if values else {}
    values = wrapped["tool_calls"] if isinstance(wrapped, dict) and wrapped.keys() == {"tool_calls"} else values
    calls = [call for value in values for call in (value if isinstance(value, list) else [value])]
    functions = list(map(_function_of, calls))
    return calls if all(map(_is_plain_call, functions)) else []


def _is_plain_call(function: JsonObject) -> bool:
    is_whole = isinstance(function.get("name"), str) and len(function.keys() & _GIVEN) == 1
    return is_whole and function.keys() <= _CALL


def _function_of(call: Json) -> JsonObject:
    function = call.get("function", call) if isinstance(call, dict) else {}
    return function if isinstance(function, dict) else {}


def _python_calls(text: str) -> list[Json]:
    """Return the calls that a text is as Python spells them, in a list or by lines; none where it is anything else."""
    try:
        values = [line.value if isinstance(line, ast.Expr) else line for line in ast.parse(text).body]
        nodes = [node for value in values for node in (value.elts if isinstance(value, ast.List) else [value])]
        return list(map(_python_call, nodes))
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return []


def _python_call(node: ast.AST) -> Json:
    if not isinstance(node, ast.Call) or node.args or not all(word.arg for word in node.keywords):
        raise ValueError("no call by names alone")
    return {
        "name": ast.unparse(node.func),
        "arguments": {word.arg: ast.literal_eval(word.value) for word in node.keywords},
    }


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
        tools = _parsed(value)
        return tools if len(tools) > 1 else tools[0]
    if is_null_text(value) or value == "None":
        return []
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
        raise DataError("a tool has no name; leave out those that a provider runs itself")
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
