"""Where a chat template puts the assistant's turns: by its generation marks, by its markers, or by prefix rendering.

A turn is what the model would have to write: from the end of the generation prompt to the end-of-turn token,
which is part of it.
"""

import re
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

Messages = list[dict[str, Any]]

_QUESTION, _ANSWER, _ELSE = "mixtune question", "mixtune answer", "mixtune something else"


class Rendered(NamedTuple):
    """A conversation as text."""

    text: str
    marks: list[tuple[int, int]]
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


class Turns(NamedTuple):
    """A conversation as text, and where the turns to learn are in it."""

    text: str
    spans: list[tuple[int, int]]
    problem: str = ""
    """Why they cannot be told; empty if they can."""


Render = Callable[..., Rendered]


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


def find_spans(
    render: Render, messages: Messages, tools: Any, probe: Probe, train_on: Set[str] = frozenset({"assistant"})
) -> Turns:
    """Render a conversation and find the turns of some roles in it.

    Every turn of the assistant's that is found is checked to hold what the assistant said in it.
    """
    rendered = render(messages, tools)
    found = Turns(rendered.text, [])
    if "assistant" in train_on:
        found = _assistant_turns(render, messages, tools, probe, rendered)
    if found.problem or train_on == {"assistant"}:
        return found
    spans = list(found.spans)
    for number, message in enumerate(messages):
        if message["role"] in train_on - {"assistant"} and _said(message):
            span = _content_span(render, messages, tools, number, rendered.text)
            if not span:
                return Turns("", [], f"the template does not write what the {message['role']} says")
            spans.append((span[0], _past_end_of_turn(rendered.text, span[1], probe)))
    return Turns(rendered.text, sorted(spans))


def _assistant_turns(render: Render, messages: Messages, tools: Any, probe: Probe, rendered: Rendered) -> Turns:
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
        return Turns("", [], "the template does not show where the assistant speaks")
    for number, (start, end) in zip(answers, spans, strict=True):
        if _said(messages[number]) not in rendered.text[start:end]:
            return Turns("", [], "the template does not write what the assistant says")
    return Turns(rendered.text, spans)


def _content_span(render: Render, messages: Messages, tools: Any, number: int, text: str) -> tuple[int, int] | None:
    """Where a message's content is: found by rendering with something else in its place."""
    other = [*messages[:number], {**messages[number], "content": _ELSE}, *messages[number + 1 :]]
    before, found, _ = render(other, tools).text.partition(_ELSE)
    end = len(before) + len(_said(messages[number]))
    return (len(before), end) if found and text[:end] == before + _said(messages[number]) else None


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
