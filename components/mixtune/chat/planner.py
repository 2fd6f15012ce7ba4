"""Examples of many conversations: what was found for one holds for all of its shape, and is proved on each text.

A shape is the sequence of roles, of what messages have, and, for a template that compares messages, of which say the
same. Control tokens in a rendered text are the template's alone, so conversations of one shape give texts with the same
control tokens in the same order, and turns between the same ones of them. Where a text has others, or lacks a part of
its conversation, it is looked at on its own (`turns.py`).
"""

import re
from collections import Counter
from collections.abc import Hashable, Sequence, Set
from itertools import accumulate
from typing import NamedTuple

from mixtune.chat.habits import TemplateRefusal
from mixtune.chat.lost_parts import missing_around, missing_in_answer, without_parts
from mixtune.chat.sandbox import Spans
from mixtune.chat.template import ChatTemplate, Conversation
from mixtune.chat.turns import Example, Examples, Source, find_examples
from mixtune.records import TemplateValue
from mixtune.settings.chat import ChatSettings

MOST_SHAPES = 4096
"""Shapes that are remembered; then all are forgotten."""
_NUMBERED = re.compile(r"mixtune text \d+")


class _Anchor(NamedTuple):
    """A control token of a text: which of its kind, from 0 on."""

    token: str
    number: int


class _Place(NamedTuple):
    """A turn, told by the control tokens around it."""

    turn: int
    before: _Anchor | None
    """None: the text's beginning."""
    header: str
    """Between that token and the turn."""
    last: _Anchor


class _PlannedExample(NamedTuple):
    source: Source
    num_control: int
    counts: dict[str, int]
    """Of the control tokens around turns."""
    places: tuple[_Place, ...]
    are_marked: bool
    """The template's generation marks are the turns."""


class _Plan(NamedTuple):
    examples: tuple[_PlannedExample, ...]
    removed: frozenset[str]
    lost: frozenset[str]


class Planner:
    """Finds the examples of conversations that one template renders."""

    def __init__(self, template: ChatTemplate, settings: ChatSettings, train_on: Set[str]) -> None:
        self._template, self._settings, self._train_on = template, settings, frozenset(train_on)
        self._plans: dict[Hashable, _Plan | None] = {}
        self._compares: dict[Hashable, bool] = {}
        """By shape: whether the template compares messages."""

    def find(self, conversation: Conversation) -> Examples:
        """Return the examples of a conversation, or why there are none."""
        if not conversation.is_usual:
            return self._find_alone(conversation)
        shape = self._shape(conversation)
        if plan := self._plans.get(shape):
            try:
                examples = self._apply(plan, conversation)
            except TemplateRefusal:
                examples = ()
            return Examples(examples, "", plan.lost, plan.removed) if examples else self._find_alone(conversation)
        result = self._find_alone(conversation)
        if shape not in self._plans:
            if len(self._plans) >= MOST_SHAPES:
                self._plans.clear()
            self._plans[shape] = self._make_plan(result)
        return result

    def _shape(self, conversation: Conversation) -> Hashable:
        messages = conversation.messages
        shape: Hashable = bool(conversation.tools), tuple(map(_message_shape, messages))
        if not (repeated := _repeated(messages)):
            return shape
        if shape not in self._compares:
            if len(self._compares) >= MOST_SHAPES:
                self._compares.clear()
            self._compares[shape] = self._compares_messages(conversation)
        return (shape, repeated) if self._compares[shape] else shape

    def _compares_messages(self, conversation: Conversation) -> bool:
        """Return whether such a conversation is written otherwise where its messages say the same."""
        texts = []
        for is_same in (True, False):
            messages = [
                {**message, "content": f"mixtune text {0 if is_same else number}"} if message["content"] else message
                for number, message in enumerate(conversation.messages)
            ]
            try:
                text = self._template.render(messages, conversation.tools).text
            except TemplateRefusal:
                return True
            texts.append(_NUMBERED.sub("", text))
        return texts[0] != texts[1]

    def _find_alone(self, conversation: Conversation) -> Examples:
        return find_examples(self._template, conversation, self._settings, self._train_on)

    def _make_plan(self, result: Examples) -> _Plan | None:
        """Return how conversations of a shape become examples; None where tokens do not tell."""
        planned = [self._plan_example(example) for example in result.examples]
        if not planned or None in planned:
            return None
        return _Plan(tuple(item for item in planned if item), result.removed, result.lost)

    def _plan_example(self, example: Example) -> _PlannedExample | None:
        if example.source is None or len(example.turns) != len(example.spans):
            return None
        anchors, counts = dict[int, _Anchor](), Counter[str]()
        for match in self._template.control_pattern.finditer(example.text):
            anchors[match.end()] = _Anchor(match[0], counts[match[0]])
            counts[match[0]] += 1
        places = []
        for turn, (start, end) in zip(example.turns, example.spans, strict=True):
            if end not in anchors:
                return None
            before = max((place for place in anchors if place <= start), default=0)
            header = example.text[before:start]
            places.append(_Place(turn, anchors.get(before), header, anchors[end]))
        around = {anchor.token for place in places for anchor in (place.before, place.last) if anchor}
        are_marked = example.marks == example.spans and not example.source.appended
        return _PlannedExample(
            example.source, counts.total(), {token: counts[token] for token in around}, tuple(places), are_marked
        )

    def _apply(self, plan: _Plan, conversation: Conversation) -> tuple[Example, ...]:
        """Return a conversation's examples by a plan; empty where it does not fit."""
        messages, tools = without_parts(conversation.messages, conversation.tools, plan.removed)
        examples = []
        for planned in plan.examples:
            count, variables, appended = planned.source
            text, marks = self._template.render(messages[:count], tools, variables)
            text = text.rstrip() + appended if appended else text
            spans = marks if planned.are_marked else _locate(planned, text)
            if (
                spans is None
                or len(spans) != len(planned.places)
                or not _is_whole(planned, (messages, tools), text, spans, plan.lost)
            ):
                return ()
            examples.append(Example(text, spans, num_control=planned.num_control))
        return tuple(examples)


def _locate(planned: _PlannedExample, text: str) -> Spans | None:
    """Return where the turns are in a text; None where the control tokens around them are others."""
    lengths = {}  # by token: of the text up to its n-th place, the token's places before that left out
    for token, count in planned.counts.items():
        lengths[token] = list(accumulate(map(len, text.split(token))))
        if len(lengths[token]) != count + 1:
            return None

    def end_of(anchor: _Anchor) -> int:
        return lengths[anchor.token][anchor.number] + (anchor.number + 1) * len(anchor.token)

    spans, end = Spans(), 0
    for _, before, header, last in planned.places:
        after = end_of(before) if before else 0
        start = after + len(header)
        if after < end or not text.startswith(header, after):
            return None
        end = end_of(last)
        spans.append((start, end))
    return spans


def _is_whole(
    planned: _PlannedExample,
    parts: tuple[Sequence[TemplateValue], Sequence[TemplateValue] | None],
    text: str,
    spans: Spans,
    lost: frozenset[str],
) -> bool:
    """Return whether a text lacks no part of its conversation but those that may be lost."""
    messages, tools = parts
    for place, (start, end) in zip(planned.places, spans, strict=True):
        if not lost.issuperset(missing_in_answer(messages[place.turn], text[start:end])):
            return False
    return lost.issuperset(missing_around(messages[: planned.source.num_messages], tools, text))


def _repeated(messages: Sequence[TemplateValue]) -> tuple[int, ...]:
    """Return by message the first that says the same; empty where all differ: templates look messages up."""
    contents = [message["content"] for message in messages]
    return tuple(map(contents.index, contents)) if len(set(contents)) < len(contents) else ()


def _message_shape(message: TemplateValue) -> Hashable:
    if len(message) == 2:
        return message["role"], _outline(message["content"])
    calls = tuple(len(call["function"]["arguments"]) for call in message.get("tool_calls", ()))
    thought = _outline(message.get("reasoning") or "")
    return message["role"], _outline(message["content"]), thought, calls, message.get("learn", True)


def _outline(text: str) -> tuple[bool, bool, bool]:
    """Return whether a text says something, begins and ends with white space: templates trim one end, or both."""
    return bool(text.strip()), text[:1].isspace(), text[-1:].isspace()
