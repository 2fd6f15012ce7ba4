"""How a chat template writes turns: found out by rendering a few conversations whose texts are known.

What it does with thoughts, how a turn ends, whether it takes a call's arguments as an object or as text.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from mixtune.chat.sandbox import Rendered
from mixtune.chat.thinking import (
    TAGS,
    Switch,
    Thoughts,
    Variables,
    closing_of,
    ending_empty_thought,
    inline_thought,
    is_opening,
    last_opening,
    leading_closing,
    leading_empty_thought,
    mentioned_tags,
    turned,
)
from mixtune.errors import DataError
from mixtune.records import THOUGHT_KEYS, TemplateValue, json_text

_QUESTION, _ANSWER, _THOUGHT, _VALUE = "mixtune question", "mixtune answer", "mixtune thought", "mixtune value"
_SYSTEM = {"role": "system", "content": "mixtune system"}
_USER = {"role": "user", "content": _QUESTION}
_PLAIN = {"role": "assistant", "content": _ANSWER}
_THINKING = {**_PLAIN, **dict.fromkeys(THOUGHT_KEYS, _THOUGHT)}
_RESULT = {"role": "tool", "content": "mixtune result", "tool_call_id": "mixtune001"}
_ARGUMENTS = {"mixtune_key": _VALUE}
_PARAMETERS = {"type": "object", "properties": {"mixtune_key": {"type": "string", "description": "Says what."}}}
_TOOL_NAME = "mixtune_tool"
PROBE_TOOL = {
    "type": "function",
    "function": {"name": _TOOL_NAME, "description": "Does it.", "parameters": _PARAMETERS},
}
"""A tool that no record has: where a template writes it, it writes tools."""

Render = Callable[..., Rendered]
"""`ChatTemplate.render` for the tools of a conversation."""


class TemplateRefusal(DataError):
    """A record that a chat template does not render; the reason holds nothing of the record's texts."""


class Habits(NamedTuple):
    """How a chat template writes turns."""

    thoughts: Thoughts = Thoughts()
    has_marks: bool = False
    part_contents: bool = False
    """It takes contents as lists of parts, not as texts;"""
    part_thoughts: bool = False
    """or those with a thought, which is the first part."""
    text_arguments: bool = False
    """It takes the arguments of a call as JSON text, not as an object."""
    end_of_turn: str = ""
    """The control token that ends a plain answer; empty if there is none."""
    end_of_call: str = ""
    """The control token that ends a call, where it is another one; else empty."""
    are_roles_alike: bool = False
    """It writes an answer as it writes a question, with more around it than its prompt ends with;"""
    is_end_next: bool = False
    """Turns end with the first control token of the next turn, which a conversation's last turn lacks."""

    @property
    def ends(self) -> set[str]:
        """The control tokens that end a turn."""
        return {self.end_of_turn, self.end_of_call} - {""}


class Traits(NamedTuple):
    """A template's pattern of control tokens, its switches for thoughts, its source, and its tokenizer's EOS."""

    control: re.Pattern[str]
    switches: tuple[Switch, ...] = ()
    text: str = ""
    eos: str = ""


def find_habits(render: Render, traits: Traits) -> Habits:
    """Find out how a template writes turns; a template that renders no plain question and answer has none."""
    control, off = traits.control, turned(traits.switches, False)
    is_plain = _ANSWER in _try(render, [_USER, _PLAIN], off)
    if not is_plain and _ANSWER not in _try(render, as_parts([_USER, _PLAIN]), off):
        return Habits()
    habits = Habits(part_contents=not is_plain or _takes_system_as_part(render, off))
    if habits.part_contents:
        render = _in_form(render, as_parts)
    traits = traits._replace(switches=tuple(item for item in traits.switches if _matters(item, render)))
    off = turned(traits.switches, False)
    thoughts = _find_thoughts(render, traits)
    on, render_parts = turned(traits.switches, True), _in_form(render, thoughts_as_parts)
    parts = _try(render_parts, [_USER, _THINKING], on)
    is_quoted = repr(_THOUGHT) in parts or json_text(_THOUGHT) in parts  # a list that is written as it is
    if _THOUGHT in parts and not is_quoted and _THOUGHT not in _try(render, [_USER, _THINKING], on):
        habits, thoughts = habits._replace(part_thoughts=True), _find_thoughts(render_parts, traits)
    whole, marks = render([_USER, _PLAIN], variables=off)
    habits = habits._replace(
        thoughts=thoughts,
        has_marks=bool(marks),
        are_roles_alike=_writes_roles_alike(render, off, whole),
        text_arguments=_wants_text(render, off),
        end_of_turn=_first_end(control, whole, whole.rfind(_ANSWER) + len(_ANSWER), traits.eos),
    )
    if habits.end_of_turn:
        call = _try(render, [_USER, _call(habits.text_arguments)], off)
        return habits._replace(end_of_call=_end_of_call(control, call, habits))
    end = _read_following(render, off, control, [_USER, _PLAIN], _USER)
    call = _read_following(render, off, control, [_USER, _call(habits.text_arguments)], _RESULT)
    return habits._replace(end_of_turn=end, end_of_call=call, is_end_next=True) if end else habits


def shows_tool(text: str) -> bool:
    """Return whether `PROBE_TOOL` is written in a text."""
    return _TOOL_NAME in text


def _takes_system_as_part(render: Render, variables: Variables) -> bool:
    """Return whether a system prompt is written only if contents are lists of parts, and answers are then, too."""
    messages, text = [_SYSTEM, _USER, _PLAIN], str(_SYSTEM["content"])
    if text in _try(render, messages, variables):
        return False
    in_parts = _try(render, as_parts(messages), variables)
    is_quoted = repr(text) in in_parts or json_text(text) in in_parts  # a list that is written as it is
    return text in in_parts and not is_quoted and _ANSWER in in_parts


def _writes_roles_alike(render: Render, variables: Variables, whole: str) -> bool:
    """Return whether a question in an answer's place is written alike, and no prompt ends where the answer begins."""
    asked = _try(render, [_USER, {**_USER, "content": _ANSWER}], variables)
    prompt = _try(render, [_USER], variables, prompt=True)
    return whole == asked and not (
        prompt and whole.startswith(prompt) and whole[len(prompt) :].lstrip().startswith(_ANSWER)
    )


def _matters(switch: Switch, render: Render) -> bool:
    """Return whether a switch changes a prompt, or an answer with a thought."""
    on, off = turned([switch], True), turned([switch], False)
    changes_prompt = _try(render, [_USER], on, prompt=True) != _try(render, [_USER], off, prompt=True)
    return changes_prompt or _try(render, [_USER, _THINKING], on) != _try(render, [_USER, _THINKING], off)


def _find_thoughts(render: Render, traits: Traits) -> Thoughts:
    switches, on = traits.switches, turned(traits.switches, True)
    prompt, whole = _try(render, [_USER], on, prompt=True), _try(render, [_USER, _PLAIN], on)
    place = _count_common(traits.control, prompt, whole)
    if whole.startswith(prompt) and leading_closing(whole[place:]):
        place -= len(last_opening(prompt))
    opened = prompt[place:] if whole else ""
    if opened.strip() and not is_opening(opened):
        opened = last_opening(opened)  # behind a cue that answers lack
    closing = closing_of(opened, whole[place : whole.rfind(_ANSWER)].removeprefix(opened))
    opened = opened if closing else ""
    if opened or _THOUGHT in _try(render, [_USER, _THINKING], on):
        return Thoughts(switches, opened, closing, *_find_empty(render, traits), tags=TAGS)
    inlined = {**_PLAIN, "content": inline_thought(_THOUGHT, _ANSWER)}
    shut, empty = _find_empty(render, traits)
    is_inline = not empty and "</think>" in traits.text and _THOUGHT in _try(render, [_USER, inlined], on)
    is_open = bool(last_opening(prompt)) and whole.startswith(prompt) and not leading_closing(whole[len(prompt) :])
    opening = "" if is_open else "<think>\n"
    has_form = bool(shut or empty or is_inline or is_open)
    tags = TAGS if has_form and mentioned_tags(traits.text) else mentioned_tags(traits.text)
    return Thoughts(switches, "", "", shut, empty, is_inline, opening, tags)


def _find_empty(render: Render, traits: Traits) -> tuple[str, str]:
    """Return `shut` and `empty` of `Thoughts`."""
    off = turned(traits.switches, False)
    prompt, whole = _try(render, [_USER], off, prompt=True), _try(render, [_USER, _PLAIN], off)
    answer = whole[len(prompt) :] if prompt and whole.startswith(prompt) else ""
    if opening := last_opening(prompt):
        closing = leading_closing(answer)
        return closing and opening + closing, ""
    shut = leading_empty_thought(answer)
    return shut, shut or ending_empty_thought(prompt)


def as_parts(messages: Iterable[TemplateValue]) -> list[TemplateValue]:
    """Return messages with their contents as lists of one part."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def thoughts_as_parts(messages: Iterable[TemplateValue]) -> list[TemplateValue]:
    """Return messages with the contents of those with thoughts as lists: the thought, the text if there is one."""
    return [
        {**message, "content": _thought_parts(message)} if message.get("reasoning") else message for message in messages
    ]


def _thought_parts(message: TemplateValue) -> list[TemplateValue]:
    text = [{"type": "text", "text": message["content"]}] if message["content"] else []
    return [{"type": "thinking", "thinking": message["reasoning"]}, *text]


def _in_form(render: Render, form: Callable[[Sequence[TemplateValue]], list[TemplateValue]]) -> Render:
    """Return a renderer that gives the template messages in another form."""
    return lambda messages, **named: render(form(messages), **named)


def _try(render: Render, messages: Sequence[TemplateValue], variables: Variables, **named: object) -> str:
    """Return a conversation as text; empty where the template refuses it."""
    try:
        return render(messages, variables=variables, **named).text
    except TemplateRefusal:
        return ""


def _count_common(control: re.Pattern[str], first: str, second: str) -> int:
    """Return how many letters two texts begin with alike, up to a control token that is not in both."""
    pairs = enumerate(zip(first, second, strict=False))
    count = next((number for number, (mine, theirs) in pairs if mine != theirs), min(len(first), len(second)))
    return next((match.start() for match in control.finditer(first) if match.start() < count < match.end()), count)


def _first_end(control: re.Pattern[str], text: str, place: int, eos: str) -> str:
    """Return the last of the first control tokens behind a place that stand together, or `eos` if it is among them."""
    match = control.search(text, place)
    token = ""
    while match and not (token and token == eos):
        token = match[0]
        match = control.match(text, match.end())
    return token


def _end_of_call(control: re.Pattern[str], text: str, habits: Habits) -> str:
    """Return the control token that a call ends with, where it is not that of a plain answer."""
    last = [match for match in control.finditer(text) if match.end() == len(text.rstrip())] if _VALUE in text else []
    return last[0][0] if last and last[0][0] != habits.end_of_turn else ""


def write_arguments(messages: Sequence[TemplateValue]) -> None:
    """Write the arguments of calls as JSON text, in place."""
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json_text(call["function"]["arguments"], ensure_ascii=False)


def _call(text_arguments: bool = False) -> TemplateValue:
    function = {"name": _TOOL_NAME, "arguments": dict(_ARGUMENTS)}
    call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "id": "mixtune001"}]}
    call["tool_calls"][0]["function"] = function  # type: ignore[index]
    if text_arguments:
        write_arguments([call])
    return call


def _wants_text(render: Render, variables: Variables) -> bool:
    """Return whether arguments as an object are refused, or written as Python writes them, and as text are not."""
    text = _try(render, [_USER, _call()], variables)
    if text and repr(_ARGUMENTS) not in text:
        return False
    return _VALUE in _try(render, [_USER, _call(text_arguments=True)], variables)


def _read_following(
    render: Render,
    variables: Variables,
    control: re.Pattern[str],
    messages: list[TemplateValue],
    following: TemplateValue,
) -> str:
    """Return the control token with which what follows begins; empty where it begins otherwise."""
    whole = _try(render, messages, variables).rstrip()
    longer = _try(render, [*messages, following], variables)
    begins = longer[len(whole) :].lstrip() if whole and longer.startswith(whole) else ""
    match = control.match(begins)
    return match[0] if match else ""
