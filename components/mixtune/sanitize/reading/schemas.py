"""Rows to records: the schema of a file, detected from its first row or given as a column mapping."""

import json
import math
import re
import string
from collections.abc import Callable
from functools import partial
from typing import Any

from mixtune.errors import ConfigError, DataError
from mixtune.records import ROLES, Message, Record

COLUMNS = ("prompt", "completion", "system", "label", "id", "group", "consent", "weight", "messages", "tools")
"""What a column mapping may name; a value is a column, or a template with `{column}` in it."""
_FIELD = re.compile(r"\{([^{}]+)\}")
_SHAREGPT = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system", "tool": "tool",
    "observation": "tool", "function_response": "tool",
}  # fmt: skip
_ROLE_NAMES = {"developer": "system", "bot": "assistant", "function": "tool"}
"""Other names of roles, as OpenAI and Nova have them."""
PAIRS = (
    ("instruction", "output"),
    ("instruction", "response"),
    ("input", "output"),
    ("prompt", "completion"),
    ("prompt", "response"),
    ("question", "answer"),
    ("query", "response"),
)
"""Columns of a question and its answer, as published data sets name them; the first pair that a row has is taken."""
_BESIDE = ("input", "context")
"""Columns that an instruction goes on in, as Alpaca and Dolly have them."""
_KEPT = ("group", "consent")
"""Columns that mean the same in whatever schema; a class is a label only where a schema or a mapping says so."""
LABELS = ("label", "category", "intent", "class")
"""Columns of a class, beside a `text`."""

Mapper = Callable[[dict[str, Any]], dict[str, Any]]


def find_mapper(row: dict[str, Any], columns: dict[str, str]) -> tuple[str, Mapper]:
    """Return the schema of a file, and what turns a row of it into a record's fields.

    Args:
        row: The first readable row.
        columns: A column mapping; empty: the schema is detected.

    Raises:
        ConfigError: A mapping of unknown keys, or of columns that the file does not have.
        DataError: No known schema.
    """
    if columns:
        check_columns(row, columns)
        return "mapping", partial(_mapped, columns=columns)
    name, mapper = _detect(row)

    def with_kept(value: dict[str, Any]) -> dict[str, Any]:
        fields = mapper(value)
        for key in _KEPT:
            if key in value:
                fields.setdefault(key, value[key])
        return fields

    return name, with_kept


def _detect(row: dict[str, Any]) -> tuple[str, Mapper]:
    if isinstance(row.get("messages"), list):
        return ("converse" if _is_converse(row) else "chat"), _chat
    if isinstance(row.get("conversations"), list):
        return "sharegpt", _sharegpt
    if {"question", "choices", "answer"} <= set(row) and not isinstance(row["choices"], str):
        return "question/choices/answer", _multiple_choice
    for prompt, completion in PAIRS:
        if prompt in row and completion in row:
            beside = next((key for key in _BESIDE if prompt == "instruction" and key in row), "")
            return f"{prompt}/{completion}", partial(_pair, prompt=prompt, completion=completion, beside=beside)
    for label in LABELS:
        if "text" in row and label in row:
            mapping = {"prompt": "text", "completion": label, "label": label}
            return f"text/{label}", partial(_mapped, columns=mapping)
    raise DataError(
        f"no known schema in columns {', '.join(sorted(row))}; give columns={{'prompt': ..., 'completion': ...}}"
    )


def check_columns(row: dict[str, Any], columns: dict[str, str]) -> None:
    """Check a column mapping against a row.

    Raises:
        ConfigError: An unknown key, a missing column, or neither messages nor prompt and completion.
    """
    check_mapping(columns)
    for key, value in columns.items():
        for name in _FIELD.findall(value) if "{" in value else [value]:
            if name not in row:
                raise ConfigError(
                    f"columns: {key} is {value!r}, but there is no column {name!r}; there are {sorted(row)}"
                )


def check_mapping(columns: dict[str, str]) -> None:
    """Check a column mapping by itself; an empty one is none.

    Raises:
        ConfigError: An unknown key, or neither messages nor prompt and completion.
    """
    if unknown := sorted(set(columns) - set(COLUMNS)):
        raise ConfigError(f"columns: unknown key {unknown[0]!r}; there are {', '.join(COLUMNS)}")
    if columns and "messages" not in columns and not {"prompt", "completion"} <= set(columns):
        raise ConfigError("columns: give `messages`, or both `prompt` and `completion`")


def to_record(fields: dict[str, Any], file: str, line: int) -> Record:
    """Return a record from its fields, checked; its `id` stays empty, since cleaning changes its content.

    Raises:
        DataError: The messages are not a conversation that ends with an answer; the reason alone, without content.
    """
    messages = fields["messages"]
    if not _is_canonical(messages):
        messages = [_message(message) for message in messages]
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError("the last message is not the assistant's")
    for message in messages:
        if message["role"] == "user":
            break
    else:
        raise DataError("no message of the user's")
    record: Record = {"id": "", "messages": messages, "origin": {"file": file, "line": line}}
    if tools := fields.get("tools"):
        record["tools"] = [_tool(tool) for tool in tools]
    for key in ("label", "group", "consent"):
        if fields.get(key) not in (None, ""):
            record[key] = str(fields[key])
    if fields.get("weight") not in (None, ""):
        record["weight"] = _weight(fields["weight"])
    return record


def _is_canonical(messages: Any) -> bool:
    """Return whether messages already have a record's form, without calls and reasoning, as most do."""
    if type(messages) is not list:
        return False
    for message in messages:
        if type(message) is not dict or len(message) != 2:
            return False
        if message.get("role") not in ROLES or type(message.get("content")) is not str:
            return False
    return True


def _weight(value: Any) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = -1.0
    if not 0 <= weight < math.inf:
        raise DataError("its weight is not a number of 0 or more")
    return weight


def _mapped(row: dict[str, Any], columns: dict[str, str]) -> dict[str, Any]:
    values = {key: _value(row, value) for key, value in columns.items() if key not in ("messages", "tools")}
    fields: dict[str, Any] = {key: values[key] for key in ("label", "group", "consent", "weight") if key in values}
    if "tools" in columns:
        fields["tools"] = _loaded(row[columns["tools"]])
    fields |= {key: row[key] for key in _KEPT if key in row and key not in columns}
    if "messages" in columns:
        return {**fields, "messages": _loaded(row[columns["messages"]])}
    turns = [("system", values.get("system", "")), ("user", values["prompt"]), ("assistant", values["completion"])]
    return {**fields, "messages": [{"role": role, "content": text} for role, text in turns if text or role != "system"]}


def _value(row: dict[str, Any], value: str) -> str:
    if "{" not in value:
        return _text(row.get(value))
    return _FIELD.sub(lambda match: _text(row.get(match[1])), value)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return "\n\n".join(_text(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _multiple_choice(row: dict[str, Any]) -> dict[str, Any]:
    """Return a question with lettered choices; the answer is a place, counted from 0, or a letter."""
    letters = string.ascii_uppercase[: len(row["choices"])]
    answer = row["answer"] if row["answer"] in list(letters) else letters[int(row["answer"])]
    lines = [f"{letter}. {_text(choice)}" for letter, choice in zip(letters, row["choices"], strict=True)]
    question = "\n".join([_text(row["question"]), *lines])
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _pair(row: dict[str, Any], prompt: str, completion: str, beside: str) -> dict[str, Any]:
    question = "\n\n".join([_text(row[prompt]), *([_text(row[beside])] if beside and row.get(beside) else [])])
    turns = [("system", _text(row.get("system"))), ("user", question), ("assistant", _text(row[completion]))]
    return {"messages": [{"role": role, "content": text} for role, text in turns if text or role != "system"]}


def _is_converse(row: dict[str, Any]) -> bool:
    return list in [type(turn.get("content")) for turn in row["messages"] if isinstance(turn, dict)]


def _chat(row: dict[str, Any]) -> dict[str, Any]:
    tools, messages = row.get("tools"), row["messages"]
    if not tools and row.get("toolConfig"):
        tools = [item["toolSpec"] for item in row["toolConfig"].get("tools", [])]
    if _is_converse(row):
        messages = [turn for message in messages for turn in _turns(message)]
    if isinstance(system := row.get("system"), list):
        text = "\n\n".join(part["text"] for part in system if part.get("text"))
        messages = [*([{"role": "system", "content": text}] if text else []), *messages]
    return {"label": row.get("label"), "messages": messages, "tools": _loaded(tools)}


def _turns(message: Any) -> list[Any]:
    """Return one message in our form; Nova Converse's parts become text, reasoning, calls and tool turns."""
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        return [message]
    out: dict[str, Any] = {"role": message.get("role"), "content": ""}
    results = []
    for part in message["content"]:
        if not isinstance(part, dict):
            raise DataError("a content part is not an object")
        if "text" in part:
            out["content"] += ("\n" if out["content"] else "") + part["text"]
        elif "reasoningContent" in part:
            out["reasoning"] = part["reasoningContent"]["reasoningText"]["text"]
        elif "toolUse" in part:
            call = part["toolUse"]
            out.setdefault("tool_calls", []).append(
                {"id": call["toolUseId"], "name": call["name"], "arguments": call["input"]}
            )
        elif "toolResult" in part:
            result = part["toolResult"]
            texts = [item["text"] if "text" in item else json.dumps(item.get("json")) for item in result["content"]]
            results.append({"role": "tool", "content": "\n".join(texts), "tool_call_id": result["toolUseId"]})
        else:
            raise DataError(
                f"content part of an unknown kind: {', '.join(sorted(part))}; text, reasoning and tools are read"
            )
    return results + ([out] if out["content"] or out.get("tool_calls") or not results else [])


def _sharegpt(row: dict[str, Any]) -> dict[str, Any]:
    system = [{"role": "system", "content": row["system"]}] if row.get("system") else []
    return {"messages": system + [_turn(turn) for turn in row["conversations"]], "tools": _loaded(row.get("tools"))}


def _turn(turn: Any) -> Any:
    if isinstance(turn, dict) and "role" in turn:
        return turn
    if not isinstance(turn, dict) or turn.get("from") not in _SHAREGPT:
        raise DataError(f"a turn is not from one of {', '.join(sorted(_SHAREGPT))}")
    return {"role": _SHAREGPT[turn["from"]], "content": turn.get("value")}


def _message(message: Any) -> Message:
    role = message.get("role") if isinstance(message, dict) else None
    role = _ROLE_NAMES.get(str(role), role)
    if role not in ROLES:
        raise DataError(f"a message's role is not one of {', '.join(ROLES)}")
    content = message.get("content")
    if len(message) == 2 and isinstance(content, str):
        return {"role": role, "content": content}
    calls = [_call(call) for call in message.get("tool_calls") or []]
    if not isinstance(content, str) and not (content is None and calls):
        raise DataError("a message's content is not text")
    out: Message = {"role": role, "content": content or ""}
    if reasoning := message.get("reasoning") or message.get("reasoning_content"):
        out["reasoning"] = _text(reasoning)
    if calls:
        out["tool_calls"] = calls
    if message.get("tool_call_id"):
        out["tool_call_id"] = str(message["tool_call_id"])
    return out


def _call(call: Any) -> Any:
    function = call.get("function", call) if isinstance(call, dict) else {}
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError("a tool call has no name")
    arguments = _loaded(function.get("arguments") or {})
    if not isinstance(arguments, dict):
        raise DataError("a tool call's arguments are not an object")
    identity = {"id": str(call["id"])} if call.get("id") else {}
    return {**identity, "name": function["name"], "arguments": arguments}


def _tool(tool: Any) -> dict[str, Any]:
    spec = tool.get("function", tool) if isinstance(tool, dict) else {}
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise DataError("a tool has no name")
    schema = spec.get("parameters") or (spec.get("inputSchema") or {}).get("json") or {}
    return {"name": spec["name"], "description": _text(spec.get("description")), "parameters": schema}


def _loaded(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise DataError("a JSON column does not hold JSON") from error
