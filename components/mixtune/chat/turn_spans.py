"""Where a chat template puts the turns to learn: by its generation marks, by its markers, or by prefix rendering.

A turn is what the model would have to write: from the end of the generation prompt to the end-of-turn token,
which is part of it.
"""

import re
from collections.abc import Sequence, Set
from typing import Any, NamedTuple

from mixtune.chat.sandbox import Spans
from mixtune.chat.template import ChatTemplate, Conversation, Rendered, TemplateRefusal, TurnMarkers

_PLACEHOLDER = "mixtune something else"


class Turns(NamedTuple):
    """A conversation as text, and where the turns to learn are in it."""

    text: str = ""
    spans: Spans = []  # noqa: RUF012 - never changed
    problem: str = ""
    """Why they cannot be told; empty if they can."""


def find_turns(template: ChatTemplate, conversation: Conversation, train_on: Set[str]) -> Turns:
    """Render a conversation and find the turns of some roles in it.

    Every turn of the assistant's is checked to hold its message's content.
    """
    try:
        rendered = template.render(conversation.messages, conversation.tools)
        turns = Turns(rendered.text)
        if "assistant" in train_on:
            turns = _find_answers(template, conversation, rendered)
        if turns.problem or train_on == {"assistant"}:
            return turns
        others = _find_contents(template, conversation, rendered.text, train_on - {"assistant"})
    except TemplateRefusal as error:
        return Turns(problem=f"template refuses it: {error}")
    return others if others.problem else Turns(turns.text, sorted(turns.spans + others.spans))


def _find_answers(template: ChatTemplate, conversation: Conversation, rendered: Rendered) -> Turns:
    text, markers = rendered.text, template.markers(conversation.tools)
    answers = [number for number, message in enumerate(conversation.messages) if message["role"] == "assistant"]
    contents = [_content(conversation.messages[number]) for number in answers]
    if markers.has_marks:
        spans = [(start, _skip_end_of_turn(text, end, markers)) for start, end in rendered.marks]
    else:
        header = re.escape(markers.header)
        starts = [match.end() for match in re.finditer(header, text)] if header else []
        if len(starts) != len(answers):
            starts = _prompt_lengths(template, conversation, answers, text)
        spans = list(zip(starts, _find_ends(text, starts, contents, markers), strict=True))
    if len(spans) != len(answers):
        return Turns(problem="the template does not show where the assistant speaks")
    if any(content not in text[start:end] for content, (start, end) in zip(contents, spans, strict=True)):
        return Turns(problem="the template does not write what the assistant says")
    return Turns(text, spans)


def _prompt_lengths(template: ChatTemplate, conversation: Conversation, answers: list[int], text: str) -> list[int]:
    """Return where each answer begins, if the text begins with each answer's prompt; else nothing."""
    messages, tools = conversation.messages, conversation.tools
    prompts = [template.render(messages[:number], tools, prompt=True).text for number in answers]
    return [len(prompt) for prompt in prompts] if all(text.startswith(prompt) for prompt in prompts) else []


def _find_ends(text: str, starts: Sequence[int], contents: Sequence[str], markers: TurnMarkers) -> list[int]:
    """Return the end of each turn: past its end-of-turn token; where the template writes none, past its content."""
    ends = []
    for start, following, content in zip(starts, [*starts[1:], len(text)], contents, strict=False):
        end = text.find(markers.end_of_turn, start, following) if markers.end_of_turn else -1
        if end >= 0:
            ends.append(end + len(markers.end_of_turn))
        else:
            ends.append(max(start, text.find(content, start, following) + len(content)))
    return ends


def _find_contents(template: ChatTemplate, conversation: Conversation, text: str, roles: Set[str]) -> Turns:
    """Find the contents of messages of some roles, each by rendering with something else in its place."""
    messages, spans = conversation.messages, []
    for number, message in enumerate(messages):
        content = _content(message)
        if message["role"] not in roles or not content:
            continue
        changed = [*messages[:number], {**message, "content": _PLACEHOLDER}, *messages[number + 1 :]]
        before, placeholder, _ = template.render(changed, conversation.tools).text.partition(_PLACEHOLDER)
        end = len(before) + len(content)
        if not placeholder or text[:end] != before + content:
            return Turns(problem=f"the template does not write what the {message['role']} says")
        spans.append((len(before), _skip_end_of_turn(text, end, template.markers(conversation.tools))))
    return Turns(text, spans)


def _content(message: dict[str, Any]) -> str:
    return str(message["content"] or "").strip()


def _skip_end_of_turn(text: str, end: int, markers: TurnMarkers) -> int:
    return end + len(markers.end_of_turn) if text.startswith(markers.end_of_turn, end) else end
