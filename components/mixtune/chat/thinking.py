"""Thoughts: what a chat template does with them, and how a thought that stands in an answer's text is told from it.

A hybrid model's template has a switch (`enable_thinking`): on, the model writes its thought; off, the prompt holds an
empty one and the model answers at once. Some templates have no switch and ask for every answer with a thought.
"""

import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

from mixtune.records import Message

Variables = Mapping[str, bool | str]
"""What a template is given beside messages and tools."""


class Switch(NamedTuple):
    """A template's variable that turns thoughts on or off."""

    name: str
    on: bool | str
    off: bool | str


_DATA = tomllib.loads(Path(__file__).with_name("thinking.toml").read_text(encoding="utf-8"))
SWITCHES = tuple(Switch(*row) for row in _DATA["switches"])
"""Switches that templates have."""
TAGS: tuple[tuple[str, str], ...] = tuple((opening, closing) for opening, closing in _DATA["tags"])
"""What families write around a thought."""
_OPENED = re.compile(rf"\s*({'|'.join(re.escape(opening) for opening, _ in TAGS)})\s*\Z")
_EMPTY = re.compile(
    "(?:" + "|".join(re.escape(opening) + r"\s*" + re.escape(closing) for opening, closing in TAGS) + r")\s*\Z"
)
_EMPTY_AHEAD = re.compile(_EMPTY.pattern.removesuffix(r"\Z"))
_LEADING = {
    (opening, closing): re.compile(rf"\s*{re.escape(opening)}(.*?){re.escape(closing)}(.*)\Z", re.DOTALL)
    for opening, closing in TAGS
}
_HEADLESS = re.compile(
    r"((?:(?!<think>).)*?)(?:\n|(?<=[^\s`\"'(]))</think>(?=\s*\n|[^\s`\"'.,;:!?)<])\s*(\S.*)\Z", re.DOTALL
)
"""A thought whose opening tag stood in the prompt: the closing one ends its line, or is spoken of nowhere around it."""


class Thoughts(NamedTuple):
    """What a chat template does with thoughts."""

    switches: tuple[Switch, ...] = ()
    """What turns them on or off; empty: nothing does."""
    opened: str = ""
    """What prompts for thoughts end with and a plain answer lacks: an opened thought;"""
    closing: str = ""
    """and what ends it, where the template writes no thought itself."""
    shut: str = ""
    """An empty thought that is written before every plain answer, and whole in no prompt."""
    empty: str = ""
    """One that prompts do not open, or that ends prompts without thoughts: a thought that is left out looks like it."""
    is_inline: bool = False
    """A thought is written only if it stands in the answer's text,"""
    inline_opening: str = "<think>\n"
    """behind this; empty where every answer is written behind it."""
    tags: tuple[tuple[str, str], ...] = ()
    """Between which an answer's beginning is a thought for the template, too; between others it is plain text."""

    def variables(self, is_on: bool) -> Variables:
        """Return what the template is given for an answer with or without a thought."""
        return turned(self.switches, is_on)


def find_switches(names: Set[str], texts: Set[str]) -> tuple[Switch, ...]:
    """Return the switches of a template, by the variables that it reads and the text constants in it."""
    by_name = {
        item.name: item
        for item in reversed(SWITCHES)
        if item.name in names and (isinstance(item.on, bool) or {item.on, item.off} <= texts)
    }
    return tuple(by_name[name] for name in sorted(by_name))


def turned(switches: Iterable[Switch], is_on: bool) -> Variables:
    """Return the values of switches that turn thoughts on or off."""
    return {item.name: item.on if is_on else item.off for item in switches}


def is_opening(text: str) -> bool:
    """Return whether a text is a tag that opens a thought."""
    return bool(_OPENED.match(text))


def closing_of(opened: str, shown: str) -> str:
    """Return what ends an opened thought; `shown`, before a plain answer, may be that; empty if nothing is opened."""
    match = _OPENED.match(opened)
    tag = dict(TAGS)[match[1]] if match else ""
    return shown if tag and shown.strip() == tag else tag and f"\n{tag}\n\n"


def last_opening(prompt: str) -> str:
    """Return the tag that opens a thought, and the space behind it, at a prompt's end; empty if there is none."""
    text = prompt.rstrip()
    return next((prompt[len(text) - len(opening) :] for opening, _ in TAGS if text.endswith(opening)), "")


def last_closing(prompt: str) -> str:
    """Return the tag that ends a thought, and the space behind it, at a prompt's end; empty if there is none."""
    text = prompt.rstrip()
    return next((prompt[len(text) - len(closing) :] for _, closing in TAGS if text.endswith(closing)), "")


def leaves_open(prompt: str, answer: str) -> bool:
    """Return whether a prompt opens a thought that its answer does not end, or opens again."""
    opening = last_opening(prompt).strip()
    return bool(opening) and (dict(TAGS)[opening] not in answer or answer.lstrip().startswith(opening))


def ending_empty_thought(prompt: str) -> str:
    """Return the empty thought, and the space behind it, that a prompt ends with."""
    match = _EMPTY.search(prompt)
    return match[0] if match else ""


def leading_closing(text: str) -> str:
    """Return the tag, and the space around it, that ends a thought at a text's beginning; empty if there is none."""
    bare = text.lstrip()
    rest = next((bare[len(tag) :].lstrip() for _, tag in TAGS if bare.startswith(tag)), text)
    return text.removesuffix(rest)


def leading_empty_thought(text: str) -> str:
    """Return the empty thought, and the space behind it, that a text begins with."""
    match = _EMPTY_AHEAD.match(text)
    return match[0] if match else ""


def fill_thought(empty: str, thought: str) -> str:
    """Return an empty thought with a thought in it, the lines around it kept."""
    opening, closing = next(pair for pair in TAGS if pair[1] in empty)
    before, _, rest = empty.partition(opening)
    space, _, after = rest.partition(closing)
    half = (len(space) + 1) // 2
    return before + opening + space[:half] + thought + space[half:] + closing + after


def inline_thought(thought: str, answer: str, opening: str = "<think>\n") -> str:
    """Return an answer's text with its thought in it."""
    return f"{opening}{thought}\n</think>\n\n{answer}"


def mentioned_tags(template: str) -> tuple[tuple[str, str], ...]:
    """Return the tags around thoughts whose closing one is in a template's text."""
    return tuple(pair for pair in TAGS if pair[1] in template)


def lift_thoughts(messages: Sequence[Message], tags: Sequence[tuple[str, str]] = TAGS) -> list[Message]:
    """Return messages whose answers' leading thoughts, between tags, stand in `reasoning`; an empty thought is none."""
    return [_lift(message, tags) if message["role"] == "assistant" else message for message in messages]


def split_headless(text: str) -> tuple[str, str] | None:
    """Return the thought and the answer of a text that a prompt opened the thought of; None where it has none."""
    match = _HEADLESS.match(text) if "</think>" in text else None
    return (match[1].strip(), match[2]) if match else None


def _lift(message: Message, tags: Sequence[tuple[str, str]]) -> Message:
    content = message["content"]
    if ">" not in content and "]" not in content and "▷" not in content:
        return message
    match = next(filter(None, (_LEADING[pair].match(content) for pair in tags)), None)
    if not match and TAGS[0] in tags:
        match = _HEADLESS.match(content)
    if not match:
        return message
    thought, answer = match[1].strip(), match[2].lstrip()
    if message.get("reasoning", thought).strip() != thought:
        return message
    lifted = Message(**{**message, "content": answer})
    if thought:
        lifted["reasoning"] = thought
    return lifted
