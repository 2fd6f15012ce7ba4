"""The parts of a conversation that chat templates lose: which there are, which are missing in a text, taking them off.

All functions take messages and tools in the form of templates.
"""

import json
from collections.abc import Iterable, Sequence, Set

from mixtune.records import THOUGHT_KEYS, TemplateValue, Written

_PARTS = {"system": "system", "tool": "tool_results"}


def list_parts(messages: Sequence[TemplateValue], tools: Sequence[TemplateValue] | None) -> set[str]:
    """Return which of `settings.chat.LOSABLE` a conversation has."""
    parts = {"tools"} if tools else set()
    for message in messages:
        if part := _PARTS.get(message["role"]):
            parts.add(part)
        if message.get("reasoning"):
            parts.add("reasoning")
        if message.get("tool_calls"):
            parts.add("tool_calls")
    return parts


def without_parts(
    messages: Sequence[TemplateValue], tools: Sequence[TemplateValue] | None, parts: Set[str]
) -> tuple[Sequence[TemplateValue], Sequence[TemplateValue] | None]:
    """Return messages and tools without some parts."""
    if not parts:
        return messages, tools
    roles = {role for role, part in _PARTS.items() if part in parts}
    keys = {key for key in THOUGHT_KEYS if "reasoning" in parts} | ({"tool_calls"} & parts)
    stripped = [message for message in messages if message["role"] not in roles]
    if keys:
        stripped = [{key: value for key, value in message.items() if key not in keys} for message in stripped]
    return stripped, None if "tools" in parts else tools


def says_something(message: TemplateValue) -> bool:
    """Return whether a message of the assistant's is not empty."""
    return bool(message["content"].strip() or message.get("reasoning") or message.get("tool_calls"))


def missing_in_answer(message: TemplateValue, answer: str) -> set[str]:
    """Return the parts of an assistant's message that an answer's text lacks; `content` among them."""
    content = message["content"].strip()
    missing = set() if content in answer else {"content"}
    reasoning, calls = message.get("reasoning"), message.get("tool_calls")
    if not reasoning and not calls:
        return missing
    rest = answer.replace(content, "", 1) if content else answer
    if reasoning and reasoning not in content and not is_written(reasoning, rest):
        missing.add("reasoning")
    if calls and not _are_calls_written([call["function"] for call in calls], rest):
        missing.add("tool_calls")
    return missing


def missing_around(messages: Sequence[TemplateValue], tools: Sequence[TemplateValue] | None, text: str) -> set[str]:
    """Return the parts that a conversation's text lacks, but for those of the assistant's messages; `content` too."""
    missing, place = set[str](), 0
    for message in messages:
        if message["role"] == "assistant":
            continue
        content = message["content"]
        index = text.find(content, place)  # texts mostly stand in their order: each is looked for behind the one before
        if index >= 0:
            place = index + len(content)
        elif content not in text and not is_written(content, text):
            missing.add(_PARTS.get(message["role"], "content"))
    if tools and not all(_is_tool_written(tool["function"], text) for tool in tools):
        missing.add("tools")
    return missing


def is_written(value: str, text: str) -> bool:
    """Return whether a text holds another one, as it is but for white space around it, or as JSON writes it."""
    value = value.strip()
    if value in text or json.dumps(value, ensure_ascii=False)[1:-1] in text:
        return True
    return not value.isascii() and "\ufdd0" not in value and json.dumps(value)[1:-1] in text  # never what was set aside


def _is_call_written(function: TemplateValue, text: str) -> bool:
    arguments = function["arguments"]
    if isinstance(arguments, str):
        return function["name"] in text and is_written(arguments, text)
    return function["name"] in text and all(is_written(leaf, text) for leaf in _leaves(arguments))


def _are_calls_written(calls: Sequence[TemplateValue], text: str) -> bool:
    """Return whether every call is written, each in a place of its own: names that repeat stand as often."""
    names = [call["name"] for call in calls]
    return all(_is_call_written(call, text) and text.count(call["name"]) >= names.count(call["name"]) for call in calls)


def _is_tool_written(tool: TemplateValue, text: str) -> bool:
    properties = (tool.get("parameters") or {}).get("properties") or {}
    return is_written(tool["name"], text) and all(is_written(name, text) for name in properties)


def _leaves(value: object) -> Iterable[str]:
    """Yield the keys and the values, as texts, of a call's arguments; what has several spellings is left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield str(key)
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    elif isinstance(value, str):
        yield value
    elif isinstance(value, (int, Written)) and not isinstance(value, bool):
        yield str(value)
