"""Turns as OpenAI's messages: LangChain's, whose speaker is their `type`, the AI SDK's, Pydantic AI's, Coze's.

Items of OpenAI's Responses are read here, too.
"""

import re
from collections.abc import Iterator
from itertools import compress
from typing import TypeGuard

from mixtune.sanitize.reading.fields import CALLS, ENDS, REASONING, TABLES
from mixtune.sanitize.reading.values import Json, JsonObject, Unread, is_blank, json_text

_SPEAKERS = ("human", "ai", "system", "tool")
_ITEMS = {"function_call": "name", "function_call_output": "output", "reasoning": "summary"}
"""Items without a role, and the field that each has."""
_TYPES = {
    "question": "",
    "query": "",
    "answer": "",
    "function_call": "function_call",
    "tool_response": "tool",
    "tool_output": "tool",
}
"""What Coze says that a message is, and whose it is then."""
_ASKED_BY = {"system-prompt": "system", "user-prompt": "user", "tool-return": "tool", "retry-prompt": "user"}
"""Parts of a request of Pydantic AI's, and whose they are; of a tool are those with its name."""
_OF_PART = ("part_kind", "content", "tool_name", "tool_call_id", "args")
_OF_BLOCK = {"block_type": "type", "tool_call_id": "id", "tool_name": "name", "tool_kwargs": "arguments"}
_ASIDES = [("assistant", name) for name in TABLES["asides"]["types"].split()]
_STEP = re.compile("step-start|dynamic-tool|tool-.+")
_ANSWERED = ("output", "result", "errorText")
_CALLED = frozenset(("input", "args", *_ANSWERED))


def is_message(turn: Json) -> TypeGuard[JsonObject]:
    """Return whether a value is a message of LangChain's."""
    return isinstance(turn, dict) and (turn.get("type") in _SPEAKERS or _class_of(turn) in _SPEAKERS)


def _class_of(turn: JsonObject) -> str:
    """Return the speaker of a message that LangChain's `dumps` wrote, by the name of its class; of any other none."""
    is_dumped = turn.get("type") == "constructor" and isinstance(turn.get("kwargs"), dict) and turn.get("id")
    return str(turn["id"][-1]).partition("Message")[0].lower() if is_dumped else ""


def is_exchange(turn: Json) -> TypeGuard[JsonObject]:
    """Return whether a value is a request or a response of Pydantic AI's."""
    is_kind = isinstance(turn, dict) and turn.get("kind") in ("request", "response")
    return is_kind and isinstance(turn.get("parts"), list)


def is_item(turn: Json) -> TypeGuard[JsonObject]:
    """Return whether a value is an item of the Responses API that is no message."""
    return isinstance(turn, dict) and turn.get("role") is None and _ITEMS.get(str(turn.get("type"))) in turn


def spoken(turn: JsonObject) -> JsonObject:
    """Return a message with its speaker as `role`, and with calls and a thought that `additional_kwargs` alone hold."""
    data = turn.get("data", turn.get("kwargs"))
    turn = {**(data if isinstance(data, dict) else turn), "role": _class_of(turn) or turn["type"]}
    turn.pop("type", None)
    about = turn.get("response_metadata")
    turn |= {name: about[name] for name in ENDS & about.keys()} if isinstance(about, dict) else {}
    extra = turn.get("additional_kwargs")
    if not isinstance(extra, dict):
        return turn
    names = REASONING if turn.get("tool_calls") else (*REASONING, *CALLS)
    inner = {name: extra[name] for name in names if not is_blank(extra.get(name)) and is_blank(turn.get(name))}
    return {**turn, **inner, "additional_kwargs": {name: extra[name] for name in extra if name not in inner}}


def without_asides(turns: list[Json], unread: Unread) -> list[Json]:
    """Return turns without what Coze adds to its answers, which have a type there."""
    if not any(isinstance(turn, dict) and turn.get("type") == "answer" for turn in turns):
        return turns
    is_aside = [isinstance(turn, dict) and (turn.get("role"), turn.get("type")) in _ASIDES for turn in turns]
    unread.update({f"messages.{turn['type']}" for turn in compress(turns, is_aside)})
    return [turn for turn, is_left_out in zip(turns, is_aside, strict=True) if not is_left_out]


def plain_turns(turns: list[Json]) -> list[Json]:
    """Return turns of any of these forms as messages of OpenAI's."""
    turns = _in_order(list(map(_typed, _exchanged(turns))))
    return joined([step for turn in turns for step in (_steps(turn) if _has_steps(turn) else [turn])])


def _typed(turn: Json) -> Json:
    """Return a message of Coze's by its type, where that is a call or its result, and of LlamaIndex's as one object."""
    if not isinstance(turn, dict) or turn.get("role") is None:
        return turn
    if "blocks" in turn and isinstance(extra := turn.get("additional_kwargs"), dict):
        blocks = list(map(_block, turn["blocks"]))
        extra = {name: value for name, value in extra.items() if blocks == turn["blocks"] or name not in CALLS}
        return {**extra, **{name: turn[name] for name in turn if name != "additional_kwargs"}, "blocks": blocks}
    if turn.get("type") not in _TYPES:
        return turn
    about = {name: value for name, value in turn.items() if name not in ("type", "content_type")}
    return {**about, "role": _TYPES[turn["type"]] or turn["role"]}


def _block(block: Json) -> Json:
    """Return a block of LlamaIndex's, a call under the names that OpenAI has."""
    is_call = isinstance(block, dict) and block.get("block_type") == "tool_call"
    return {_OF_BLOCK.get(name, name): value for name, value in block.items()} if is_call else block


def _exchanged(turns: list[Json]) -> Iterator[Json]:
    """Yield turns, requests and responses of Pydantic AI's as messages; instructions that go on are said once."""
    last = None
    for turn in turns:
        if not is_exchange(turn):
            yield turn
            continue
        about = {name: value for name, value in turn.items() if name not in ("kind", "parts", "instructions")}
        contents = [_exchanged_part(part) for part in turn["parts"]]
        if (text := turn.get("instructions")) and text != last:
            yield {"role": "system", "content": text}
            last = text
        asked = ({**about, **content} for content in contents)
        yield from asked if turn["kind"] == "request" else [{**about, "role": "assistant", "content": contents}]


def _exchanged_part(part: JsonObject) -> JsonObject:
    """Return a part of a request as a message, of a response as a part of one."""
    kind, content, name = (part.get(key) for key in ("part_kind", "content", "tool_name"))
    about = {key: value for key, value in part.items() if key not in _OF_PART}
    if kind == "tool-call":
        return {
            **about,
            "type": "tool_call",
            "id": part.get("tool_call_id"),
            "name": name,
            "arguments": part.get("args"),
        }
    if kind not in _ASKED_BY:
        return {**about, "type": kind, "text": content}
    if not name:
        return {**about, "role": _ASKED_BY[kind], "content": content}
    text = content if isinstance(content, str) else json_text(content)
    return {**about, "role": "tool", "content": text, "tool_call_id": part.get("tool_call_id")}


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
