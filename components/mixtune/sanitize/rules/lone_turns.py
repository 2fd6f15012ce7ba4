"""Turns that do not fit together: a call without its result, a result without its call, a thought without its end."""

from collections import Counter
from collections.abc import Iterator

from mixtune.chat.thinking import TAGS, split_headless
from mixtune.records import Message, ToolCall
from mixtune.sanitize.rules.record_texts import Refused

_NO_CALL = "results of tools that no call has"
_NO_RESULT = "calls of tools without a result, before other turns"
_UNASKED = "answers before the first question"


def check_turns(messages: list[Message], unread: Counter[str]) -> list[Message]:
    """Return messages whose answers have their thoughts beside them where only its end is marked.

    Calls and results that stand alone, and an answer that nobody asked for, are counted.

    Raises:
        Refused: An answer to learn is a thought that nothing ends.
    """
    if [message["role"] for message in messages[:2]] in _GREETING:
        unread[_UNASKED] += 1
    has_tools = has_end = False
    for message in messages:
        if message["role"] != "assistant":
            has_tools = has_tools or message["role"] == "tool"
            continue
        text = message["content"]
        has_tools, has_end = has_tools or (len(message) > 2 and "tool_calls" in message), has_end or "</think>" in text
        if text[:1] in _FIRST and message.get("learn", True) and _is_unended(text.lstrip()):
            raise Refused("an answer that is a thought without its end")
    if has_tools:
        unread.update(set(_alone(messages)))
    return list(map(_with_thought, messages)) if has_end else messages


_GREETING = (["assistant"], ["assistant", "user"], ["assistant", "assistant"], ["system", "assistant"])
_FIRST = frozenset((*(opening[0] for opening, _ in TAGS), " ", "\n"))
"""What the text of an unended thought begins with."""


def _is_unended(text: str) -> bool:
    return any(text.startswith(opening) and closing not in text for opening, closing in TAGS)


def _with_thought(message: Message) -> Message:
    is_plain = message["role"] == "assistant" and "reasoning" not in message
    if not is_plain or (split := split_headless(message["content"])) is None:
        return message
    thought, answer = split
    return {**message, "content": answer, "reasoning": thought} if thought else {**message, "content": answer}


def _alone(messages: list[Message]) -> Iterator[str]:
    """Yield what to call calls and results that stand without the other."""
    calls, num_open = list[ToolCall](), 0
    for message in messages:
        if message["role"] != "tool":
            if num_open > 0:
                yield _NO_RESULT
            calls = message.get("tool_calls", [])
            num_open = len(calls)
            continue
        identities = {call.get("id") for call in calls}
        name = message.get("tool_call_id")
        if not num_open or (name and None not in identities and name not in identities):
            yield _NO_CALL
        num_open = max(0, num_open - 1)
