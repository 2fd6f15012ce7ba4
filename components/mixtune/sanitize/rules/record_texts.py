"""The texts of a record, wherever they stand: listed, replaced, and checked that enough of them remains."""

from collections.abc import Callable
from typing import Any

from mixtune.records import Message, Record


class Refused(Exception):
    """Raised for a record that is dropped; its text is the reason."""


def all_texts(record: Record) -> list[str]:
    """Return all texts of a record: contents, reasoning, tools, their calls, the label."""
    messages = record["messages"]
    texts = [message["content"] for message in messages]
    for message in messages:
        if len(message) > 2:
            for key in ("reasoning", "tool_calls", "tool_call_id"):
                _collect(message.get(key), texts)
    if "tools" in record:
        _collect(record["tools"], texts)
    if "label" in record:
        texts.append(record["label"])
    return texts


def replace_texts(record: Record, clean: Callable[[str], str]) -> None:
    """Replace every text of a record by its clean form; Refused where two keys of an object became one."""
    record["messages"] = [_replaced_in(message, clean) for message in record["messages"]]
    if "tools" in record:
        record["tools"] = _replaced(record["tools"], clean)
    if "label" in record:
        record["label"] = clean(record["label"])


def check_emptied(messages: list[Message], had: list[bool]) -> None:
    """Refuse messages of which one that had a text has none any more."""
    for message, before in zip(messages, had, strict=True):
        if before and is_blank(message["content"]) and not message.get("tool_calls"):
            raise Refused("empty")


def check_empty(messages: list[Message]) -> None:
    """Refuse messages without a question, or without an answer."""
    for message in messages:
        if message["role"] in ("user", "tool") and not is_blank(message["content"]):
            break
    else:
        raise Refused("empty")
    if is_blank(messages[-1]["content"]) and not messages[-1].get("tool_calls"):
        raise Refused("empty answer")


def is_blank(text: str) -> bool:
    """Return whether nothing but spaces is in a text."""
    return not text or text.isspace()


def _replaced_in(message: Message, clean: Callable[[str], str]) -> Message:
    content = clean(message["content"])
    if len(message) == 2:
        return {"role": message["role"], "content": content}
    out: Message = {**message, "content": content}
    if not is_blank(reasoning := clean(out.pop("reasoning", ""))):
        out["reasoning"] = reasoning
    if "tool_calls" in out:
        out["tool_calls"] = _replaced(out["tool_calls"], clean)
    if "tool_call_id" in out:
        out["tool_call_id"] = clean(out["tool_call_id"])
    return out


def _collect(value: object, texts: list[str]) -> None:
    """Append all texts of a value, keys included."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        for item in value:
            _collect(item, texts)
    elif isinstance(value, dict):
        texts += value
        for item in value.values():
            if type(item) is str:
                texts.append(item)
            else:
                _collect(item, texts)


def _replaced(value: object, apply: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return apply(value)
    if isinstance(value, list):
        return [_replaced(item, apply) for item in value]
    if not isinstance(value, dict):
        return value
    out = {apply(key): _replaced(item, apply) for key, item in value.items()}
    if len(out) < len(value):
        raise Refused("two keys of an object are one once they are clean")
    return out
