"""Thoughts of reasoning models, cut from what they answer, in the marks of families that publish weights."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

from mixtune.chat.thinking import TAGS

_WORD_MARKS, _OTHER_MARKS, _WRAPPERS = (
    [(opening, closing) for opening, closing in pairs]
    for pairs in tomllib.loads(Path(__file__).with_name("thoughts.toml").read_text(encoding="utf-8")).values()
)
_CONTROL_MARKS = [*(pair for pair in TAGS if pair not in _WORD_MARKS), *_OTHER_MARKS]
_CALL = re.compile(r"<tool_call>|<\|tool_calls_section_begin\|>")
"""A call ends a thought that was not closed, as for the parsers that serve Qwen3 and Kimi K2."""
_HARMONY = re.compile(
    r"<\|channel\|>(?P<header>(?:(?!<\|message\|>).)*)<\|message\|>(?P<body>.*?)"
    r"(?=<\|(?:end|return|call|start|channel)\|>|\Z)",
    re.DOTALL,
)
_HARMONY_PLAIN = re.compile(r"\A(?:analysis)(?P<thought>.*?)(?:assistant)(?:commentary.*?assistant)?final", re.DOTALL)

_CAPITALS = re.compile(r"\s*<(think|thinking|thought|reasoning)>", re.IGNORECASE)


class Answer(NamedTuple):
    """What a model said, taken apart."""

    text: str
    """What a user reads; empty where the thought never ended."""
    thought: str = ""
    unfinished: bool = False
    """The thought never ended, so there is no answer."""


def split_thought(text: str, prompt: str = "") -> Answer:
    """Return the answer without its thoughts; the text has its control tokens.

    The prompt counts too: many templates open the thought themselves.
    """
    tail = prompt.rstrip()
    if "<|channel|>" in text or tail.endswith("<|channel|>analysis<|message|>"):
        return _split_channels(text, tail)
    if match := _HARMONY_PLAIN.match(text):
        return Answer(text[match.end() :].strip(), match["thought"].strip())
    if match := _CAPITALS.match(text):
        text = re.sub(rf"</?{match[1]}>", lambda mark: mark[0].lower(), text)
    opens = tail.endswith("<think>") or text.lstrip().startswith("<think>")
    if opens and "</think>" not in text and (call := _CALL.search(text)):
        text = f"{text[: call.start()]}</think>{text[call.start() :]}"
    thoughts: list[str] = []
    for opening, closing in (*_CONTROL_MARKS, *_WORD_MARKS):
        is_open = tail.endswith(opening)
        anywhere = (opening, closing) in _CONTROL_MARKS
        text, unfinished = _cut(text, opening, closing, thoughts, is_open=is_open, anywhere=anywhere)
        if unfinished:
            return Answer("", "\n".join(thoughts).strip(), unfinished=True)
    if not thoughts and not text.startswith("<|START_"):
        return Answer(text)
    return Answer(_unwrap(text.strip()), "\n".join(thoughts).strip())


def visible_text(text: str) -> str:
    """Return a reference answer without its thoughts; as it is where nothing else is in it."""
    return split_thought(text).text or text


def _cut(
    text: str, opening: str, closing: str, thoughts: list[str], *, is_open: bool, anywhere: bool
) -> tuple[str, bool]:
    """Return a text without the thoughts between two marks, which are appended, and whether the last one never ends."""
    start, end = text.find(opening), text.find(closing)
    is_spoken_of = text[max(0, end - 1) : end] in (" ", "`", '"', "'") and "\n" not in text[end + len(closing) :][:1]
    bare = anywhere and end >= 0 and not 0 <= start < end and not is_spoken_of
    if is_open or bare:
        if end < 0:
            thoughts.append(text)
            return "", True
        thoughts.append(text[:end].strip().removeprefix(opening))
        text = text[end + len(closing) :]
    while (start := text.find(opening)) >= 0:
        before, end = text[:start].rstrip(" \t"), text.find(closing, start)
        speaks = end < 0 or not anywhere or not before.endswith("\n") or before.count("```") % 2
        if before and speaks:
            break  # an answer that speaks of such marks
        if end < 0:
            thoughts.append(text[start + len(opening) :])
            return "", True
        thoughts.append(text[start + len(opening) : end])
        text = text[:start] + text[end + len(closing) :]
    return text, False


def _split_channels(text: str, tail: str) -> Answer:
    """Return the final channel of a gpt-oss answer; calls of tools stay as they are written."""
    thoughts, answers, calls = [], [], []
    if tail.endswith("<|message|>"):
        text = f"<|channel|>analysis<|message|>{text}"
    channel = ""
    for match in _HARMONY.finditer(text):
        header = match["header"]
        channel = "final" if header.startswith("final") else "analysis"
        if " to=" in header:
            channel = "call"
            calls.append(match[0])
        elif channel == "final" or header.startswith("commentary"):
            channel = "final"
            answers.append(match["body"])
        else:
            thoughts.append(match["body"])
    unfinished = channel in ("", "analysis") or (not answers and not calls)
    answer = "" if unfinished else "\n".join([*answers[-1:], *calls]).strip()
    return Answer(answer, "\n".join(thoughts).strip(), unfinished)


def _unwrap(text: str) -> str:
    """Return what stands within a family's marks of an answer, if all of it does."""
    for opening, closing in _WRAPPERS:
        if text.lower().startswith(opening.lower()):
            inner, *rest = re.split(re.escape(closing), text[len(opening) :], maxsplit=1, flags=re.IGNORECASE)
            if not "".join(rest).strip():
                return inner.strip()
    return text
