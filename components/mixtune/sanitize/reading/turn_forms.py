"""Turns as OpenAI's messages: LangChain's, whose speaker is their `type`, and items of OpenAI's Responses API."""

from typing import TypeGuard

from mixtune.sanitize.reading.fields import CALLS, REASONING
from mixtune.sanitize.reading.values import Json, JsonObject, is_blank

_SPEAKERS = ("human", "ai", "system", "tool")
_ITEMS = {"function_call": "name", "function_call_output": "output", "reasoning": "summary"}
"""Items without a role, and the field that each has."""


def is_message(turn: Json) -> TypeGuard[JsonObject]:
    """Return whether a value is a message of LangChain's."""
    return isinstance(turn, dict) and isinstance(turn.get("type"), str) and turn["type"] in _SPEAKERS


def is_item(turn: Json) -> TypeGuard[JsonObject]:
    """Return whether a value is an item of the Responses API that is no message."""
    return isinstance(turn, dict) and turn.get("role") is None and _ITEMS.get(str(turn.get("type"))) in turn


def spoken(turn: JsonObject) -> JsonObject:
    """Return a message with its speaker as `role`, and with calls and a thought that `additional_kwargs` alone hold."""
    data = turn.get("data")
    turn = {**(data if isinstance(data, dict) else turn), "role": turn["type"]}
    turn.pop("type", None)
    extra = turn.get("additional_kwargs")
    if not isinstance(extra, dict):
        return turn
    names = REASONING if turn.get("tool_calls") else (*REASONING, *CALLS)
    inner = {name: extra[name] for name in names if not is_blank(extra.get(name)) and is_blank(turn.get(name))}
    return {**turn, **inner, "additional_kwargs": {name: extra[name] for name in extra if name not in inner}}


def joined(items: list[Json]) -> list[Json]:
    """Return items as messages: an answer is its thought, its text and the calls behind it; else a list as it is."""
    if not any(map(is_item, items)):
        return items
    out = list[Json]()
    thought: list[Json] = []
    for turn in items:
        item = {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else turn
        kind = item["type"] if is_item(item) else ""
        if kind == "reasoning":
            thought += [*item["summary"], *(item.get("content") or ())]
        elif kind == "function_call_output":
            out.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item["output"]})
        elif kind == "function_call":
            call = {key: item[key] for key in ("name", "arguments") if key in item} | {"id": item.get("call_id")}
            if not (out and isinstance(out[-1], dict) and out[-1].get("role") == "assistant" and not thought):
                out.append({"role": "assistant", "content": "", "thinking": _texts(thought)})
            out[-1] = {**out[-1], "tool_calls": [*out[-1].get("tool_calls", ()), call]}
            thought = []
        else:
            is_answer = bool(thought) and isinstance(item, dict) and item.get("role") == "assistant"
            out.append({**item, "thinking": _texts(thought)} if is_answer else item)
            thought = [] if is_answer else thought
    return out


def _texts(parts: list[Json]) -> str:
    return "\n".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))
