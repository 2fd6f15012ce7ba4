"""Thoughts: what a chat template does with them, and how a thought that stands in an answer's text is told from it.

A hybrid model's template has a switch (`enable_thinking`): on, the model writes its thought; off, the prompt holds an
empty one and the model answers at once. Some templates have no switch and open a thought in every prompt.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mixtune.records import Message

SWITCHES = {"enable_thinking": True, "thinking": True, "skip_think": False}
"""Names under which templates take the switch, and its value where thoughts are written."""
TAGS = (
    *((f"<{name}>", f"</{name}>") for name in ("think", "thinking", "thought", "reasoning", "seed:think")),
    ("[THINK]", "[/THINK]"), ("◁think▷", "◁/think▷"), ("<|channel>thought", "<channel|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"), ("<|START_THINKING|>", "<|END_THINKING|>"),
)  # fmt: skip
"""What families write around a thought."""
_OPENED = re.compile(rf"\s*({'|'.join(re.escape(opening) for opening, _ in TAGS)})\s*\Z")
_EMPTY = re.compile(
    "(?:" + "|".join(re.escape(opening) + r"\s*" + re.escape(closing) for opening, closing in TAGS) + r")\s*\Z"
)
_EMPTY_AHEAD = re.compile(_EMPTY.pattern.removesuffix(r"\Z"))
_LEADING = tuple(
    re.compile(rf"\s*{re.escape(opening)}(.*?){re.escape(closing)}(.*)\Z", re.DOTALL) for opening, closing in TAGS
)
_HEADLESS = re.compile(r"((?:(?!<think>).)*?)\n</think>\n+(.*\S.*)\Z", re.DOTALL)
"""A thought whose opening tag stood in the prompt: the closing one is a line of its own."""


class Thoughts(NamedTuple):
    """What a chat template does with thoughts."""

    switches: tuple[str, ...] = ()
    """Variables that turn them on or off; empty: none does."""
    opened: str = ""
    """What prompts for thoughts end with and a plain answer lacks: an opened thought;"""
    closing: str = ""
    """and what ends it, where the template writes no thought itself."""
    shut: str = ""
    """An empty thought that is written before every plain answer, and in no prompt."""
    empty: str = ""
    """The same, or the one that ends prompts without thoughts: a thought that a template leaves out looks like it."""
    is_inline: bool = False
    """A thought is written only if it stands in the answer's text."""
    are_known: bool = False
    """A thought at an answer's beginning is one for the template, too."""

    def variables(self, is_on: bool) -> dict[str, bool]:
        """Return what the template is given for an answer with or without a thought."""
        return switch(self.switches, is_on)


def switch(names: Iterable[str], is_on: bool) -> dict[str, bool]:
    """Return the values of switches that turn thoughts on or off."""
    return {name: SWITCHES[name] is is_on for name in names}


def closing_of(opened: str, shown: str) -> str:
    """Return what ends an opened thought; `shown`, before a plain answer, may be that; empty if nothing is opened."""
    match = _OPENED.match(opened)
    tag = dict(TAGS)[match[1]] if match else ""
    return shown if tag and shown.strip() == tag else tag and f"\n{tag}\n\n"


def last_opening(prompt: str) -> str:
    """Return the tag that opens a thought, and the space behind it, at a prompt's end; empty if there is none."""
    text = prompt.rstrip()
    return next((prompt[len(text) - len(opening) :] for opening, _ in TAGS if text.endswith(opening)), "")


def leaves_open(prompt: str, answer: str) -> bool:
    """Return whether a prompt opens a thought that its answer does not end, or opens again."""
    opening = last_opening(prompt).strip()
    return bool(opening) and (dict(TAGS)[opening] not in answer or answer.lstrip().startswith(opening))


def ending_empty_thought(prompt: str) -> str:
    """Return the empty thought, and the space behind it, that a prompt ends with."""
    match = _EMPTY.search(prompt)
    return match[0] if match else ""


def without_leading_closing(text: str) -> str:
    """Return a text without the tag, and the space around it, that ends a thought at its beginning."""
    return next((text.lstrip()[len(tag) :].lstrip() for _, tag in TAGS if text.lstrip().startswith(tag)), text)


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


def inline_thought(thought: str, answer: str) -> str:
    """Return an answer's text with its thought in it."""
    return f"<think>\n{thought}\n</think>\n\n{answer}"


def mentions_thoughts(template: str) -> bool:
    """Return whether a template's text has a tag that ends a thought."""
    return any(closing in template for _, closing in TAGS)


def lift_thoughts(messages: Sequence[Message]) -> list[Message]:
    """Return messages whose answers' leading thoughts stand in `reasoning`; an empty thought is none."""
    return [_lift(message) if message["role"] == "assistant" else message for message in messages]


def _lift(message: Message) -> Message:
    content = message["content"]
    if ">" not in content and "]" not in content and "▷" not in content:
        return message
    match = next(filter(None, (pattern.match(content) for pattern in _LEADING)), None) or _HEADLESS.match(content)
    if not match:
        return message
    thought, answer = match[1].strip(), match[2].lstrip()
    if message.get("reasoning", thought).strip() != thought:
        return message
    lifted = Message(**{**message, "content": answer})
    if thought:
        lifted["reasoning"] = thought
    return lifted
