"""Where a chat template puts the assistant's turns: by its generation marks, by its markers, or by prefix rendering.

A turn is what the model would have to write: from the end of the generation prompt to the end-of-turn token,
which is part of it.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mixtune.records import Message, Record

Messages = list[dict[str, Any]]

_QUESTION, _ANSWER, _SECOND = "mixtune question", "mixtune answer", "mixtune second"


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A conversation as text."""

    text: str
    marks: list[tuple[int, int]] = field(default_factory=list)
    """Character spans of the template's generation marks."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What a template does with a conversation of two questions and two answers."""

    has_marks: bool
    """It marks what the assistant generates."""
    header: str
    """What it writes before every answer, if that begins with a control token; else empty."""
    end_of_turn: str
    """The control token that it writes after an answer; empty if there is none."""


@dataclass(frozen=True, kw_only=True)
class Spans:
    """A conversation as text, and where the assistant's turns are in it."""

    text: str = ""
    spans: list[tuple[int, int]] = field(default_factory=list)
    problem: str = ""
    """Why they cannot be told; empty if they can."""


Render = Callable[..., Rendered]


def template_messages(record: Record) -> tuple[Messages, list[dict[str, Any]] | None]:
    """A record's messages and tools under the names that chat templates read."""
    tools = [{"type": "function", "function": tool} for tool in record.get("tools") or []]
    return [_template_message(message) for message in record["messages"]], tools or None


def probe_template(render: Render, control: re.Pattern[str]) -> Probe:
    """Find out how a template marks the assistant's turns."""
    question = [{"role": "user", "content": _QUESTION}]
    answered = [*question, {"role": "assistant", "content": _ANSWER}]
    head, prompted, whole = render(question).text, render(question, prompt=True).text, render(answered)
    header = prompted[len(head) :] if prompted.startswith(head) else ""
    if not header or not control.match(header) or header not in whole.text:
        header = ""
    after = control.search(whole.text, whole.text.rfind(_ANSWER) + len(_ANSWER))
    return Probe(has_marks=bool(whole.marks), header=header, end_of_turn=after[0] if after else "")


def find_spans(render: Render, messages: Messages, tools: Any, probe: Probe) -> Spans:
    """Render a conversation and find the assistant's turns in it.

    Every turn found is checked to hold what the assistant said in it.
    """
    rendered = render(messages, tools)
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if probe.has_marks:
        starts = [start for start, _ in rendered.marks]
        ends = [_past_end_of_turn(rendered.text, end, probe) for _, end in rendered.marks]
    else:
        starts = _after_headers(rendered.text, probe) if probe.header else []
        if len(starts) != len(answers):
            starts = _prefix_lengths(render, messages, tools, answers, rendered.text)
        ends = _turn_ends(rendered.text, starts, [_said(messages[number]) for number in answers], probe)
    spans = list(zip(starts, ends, strict=True))
    if len(spans) != len(answers):
        return Spans(problem="the template does not show where the assistant speaks")
    for number, (start, end) in zip(answers, spans, strict=True):
        if _said(messages[number]) not in rendered.text[start:end]:
            return Spans(problem="the template does not write what the assistant says")
    return Spans(text=rendered.text, spans=spans)


def _template_message(message: Message) -> dict[str, Any]:
    written: dict[str, Any] = {"role": message["role"], "content": message["content"]}
    if message.get("reasoning"):
        written["reasoning_content"] = written["thinking"] = message["reasoning"]
    if message.get("tool_calls"):
        written["tool_calls"] = [
            {"type": "function", **({"id": call["id"]} if "id" in call else {}), "function": _function(dict(call))}
            for call in message["tool_calls"]
        ]
    if message.get("tool_call_id"):
        written["tool_call_id"] = message["tool_call_id"]
    return written


def _function(call: dict[str, Any]) -> dict[str, Any]:
    arguments = call.get("arguments", {})
    return {"name": call["name"], "arguments": json.loads(arguments) if isinstance(arguments, str) else arguments}


def _after_headers(text: str, probe: Probe) -> list[int]:
    return [match.end() for match in re.finditer(re.escape(probe.header), text)]


def _prefix_lengths(render: Render, messages: Messages, tools: Any, answers: list[int], text: str) -> list[int]:
    heads = [render(messages[:number], tools, prompt=True).text for number in answers]
    return [len(head) for head in heads] if all(text.startswith(head) for head in heads) else []


def _turn_ends(text: str, starts: list[int], said: list[str], probe: Probe) -> list[int]:
    """The end-of-turn token after each start; where the template writes none, the end of what was said."""
    ends = []
    for start, following, content in zip(starts, [*starts[1:], len(text)], said, strict=False):
        found = text.find(probe.end_of_turn, start, following) if probe.end_of_turn else -1
        if found >= 0:
            ends.append(found + len(probe.end_of_turn))
        else:
            ends.append(max(start, text.find(content, start, following) + len(content)))
    return ends


def _said(message: dict[str, Any]) -> str:
    return str(message["content"] or "").strip()


def _past_end_of_turn(text: str, end: int, probe: Probe) -> int:
    return end + len(probe.end_of_turn) if probe.end_of_turn and text.startswith(probe.end_of_turn, end) else end
