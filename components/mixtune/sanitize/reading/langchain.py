"""LangChain's messages, whose speaker is their `type`, in the form of OpenAI's."""

from typing import TypeGuard

from mixtune.sanitize.reading.fields import CALLS, REASONING
from mixtune.sanitize.reading.values import Json, JsonObject, is_blank


def is_message(turn: Json) -> TypeGuard[JsonObject]:
    """Return whether a value is such a message."""
    return (
        isinstance(turn, dict)
        and isinstance(turn.get("type"), str)
        and turn["type"] in ("human", "ai", "system", "tool")
    )


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
