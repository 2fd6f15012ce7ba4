"""Turns as OpenAI's messages: LangChain's, whose speaker is their `type`, the AI SDK's, items of OpenAI's Responses."""

import re
from collections.abc import Iterator
from typing import TypeGuard

from mixtune.sanitize.reading.fields import CALLS, REASONING
from mixtune.sanitize.reading.values import Json, JsonObject, is_blank, json_text

_SPEAKERS = ("human", "ai", "system", "tool")
_ITEMS = {"function_call": "name", "function_call_output": "output", "reasoning": "summary"}
"""Items without a role, and the field that each has."""
_STEP = re.compile("step-start|dynamic-tool|tool-.+")
_ANSWERED = ("output", "result", "errorText")
_CALLED = frozenset(("input", "args", *_ANSWERED))


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


def plain_turns(turns: list[Json]) -> list[Json]:
    """Return turns of any of these forms as messages of OpenAI's."""
    turns = _in_order(turns)
    return joined([step for turn in turns for step in (_steps(turn) if _has_steps(turn) else [turn])])


def _in_order(turns: list[Json]) -> list[Json]:
    """Return turns from the first to the last, `SYSTEM` as the assistant where it answers `USER` by turns.

    The Assistants API lists the newest one first; in dialogues of tasks, as SGD's, the system is who answers.
    """
    first = turns[0] if turns else None
    if not isinstance(first, dict):
        return turns
    if isinstance(first.get("created_at"), int):
        times = [turn["created_at"] for turn in turns if isinstance(turn, dict) and "created_at" in turn]
        is_newest_first = len(times) == len(turns) and times[0] > times[-1] and times == sorted(times, reverse=True)
        turns = turns[::-1] if is_newest_first else turns
    if str(first.get("speaker")).upper() not in ("USER", "SYSTEM"):
        return turns
    speakers = [str(turn.get("speaker")).upper() if isinstance(turn, dict) else "" for turn in turns]
    if set(speakers) != {"USER", "SYSTEM"} or speakers[-1] != "SYSTEM":
        return turns
    return [{**turn, "speaker": "assistant"} if turn["speaker"].upper() == "SYSTEM" else turn for turn in turns]


def _has_steps(turn: Json) -> bool:
    """Return whether a message is one of the AI SDK's: of its interface, or of its models with calls."""
    parts = turn.get("parts", turn.get("content")) if isinstance(turn, dict) else None
    return isinstance(parts, (list, tuple)) and any(
        isinstance(part, dict)
        and (_STEP.fullmatch(str(part.get("type"))) or ("parts" in turn and {"type", "text"} <= part.keys()))
        for part in parts
    )


def _steps(turn: JsonObject) -> Iterator[Json]:
    """Yield a message of the AI SDK's step by step: its texts and thoughts with its calls, then what the tools say."""
    about = {key: value for key, value in turn.items() if key not in ("parts", "content")}
    steps: list[tuple[list[Json], list[JsonObject]]] = [([], [])]
    for part in turn["parts"] if "parts" in turn else turn["content"]:
        kind = str(part.get("type")) if isinstance(part, dict) else ""
        call = {**part, **(part.get("toolInvocation") or {})} if _STEP.fullmatch(kind) else {}
        if not _CALLED.isdisjoint(call):
            steps[-1][1].append({"toolName": kind.removeprefix("tool-"), **call})
            continue
        if kind == "step-start" or steps[-1][1]:
            steps.append(([], []))
        is_text = kind in ("text", "reasoning") and "text" in part
        steps[-1][0].extend([] if kind == "step-start" else [{"type": kind, "text": part["text"]} if is_text else part])
    for contents, calls in steps:
        tool_calls = [
            {"id": call.get("toolCallId"), "name": call["toolName"], "arguments": call.get("input", call.get("args"))}
            for call in calls
            if call["type"] != "tool-result"
        ]
        if contents or tool_calls:
            yield {**about, "content": contents, **({"tool_calls": tool_calls} if tool_calls else {})}
        for call in calls:
            result: Json = next((call[key] for key in _ANSWERED if call.get(key) is not None), None)
            if result is not None or call.get("state") in ("output-available", "result"):
                is_typed = call["type"] == "tool-result" and isinstance(result, dict) and "value" in result
                result = result["value"] if is_typed else result
                content = result if isinstance(result, str) else json_text(result)
                yield {"role": "tool", "tool_call_id": call.get("toolCallId"), "content": content}


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
