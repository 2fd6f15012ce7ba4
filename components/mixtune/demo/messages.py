"""The demo's customer: short messages to a shop, each with the category that its service desk files it under.

Messages are drawn from small grammars (`(a|b)` is one of two), in a shop's usual mess: typos, capitals, greetings.
Held-out messages come from sentences and greetings that no training message has.
"""

import random
import re
from dataclasses import dataclass

from mixtune.demo.grammar import TEXTS, expand
from mixtune.settings.from_dict import from_dict

_SLOTS: dict[str, str] = TEXTS["messages"]["slots"]


@dataclass(frozen=True, kw_only=True)
class Category:
    """One label with the sentences that mean it."""

    label: str
    sentences: tuple[str, ...]
    held_out: tuple[str, ...]


CATEGORIES = tuple(from_dict(Category, item, "texts.toml") for item in TEXTS["messages"]["categories"])
LABELS = tuple(sorted(category.label for category in CATEGORIES))

_OPENERS, _CLOSERS, _HELD_OUT_OPENERS, _HELD_OUT_CLOSERS = TEXTS["messages"]["letters"].values()


def draw_message(category: Category, draw: random.Random, *, held_out: bool = False) -> str:
    """A message of a category, in training or in held-out sentences."""
    sentence = expand(draw.choice(category.held_out if held_out else category.sentences), draw, **_SLOTS)
    opener = draw.choice(_HELD_OUT_OPENERS if held_out else _OPENERS)
    closer = draw.choice(_HELD_OUT_CLOSERS if held_out else _CLOSERS)
    return _mess(opener + sentence + closer, draw)


def vocabulary() -> list[str]:
    """The words of all messages: a tokenizer should know them, and a general model has met them."""
    texts = [text for category in CATEGORIES for text in (*category.sentences, category.label)]
    texts += [*_OPENERS, *_CLOSERS, *_SLOTS.values()]
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+", re.sub(r"\{\w+\}", " ", text))}
    return sorted(words)


def _mess(text: str, draw: random.Random) -> str:
    style = draw.random()
    if style < 0.35:
        text = text[0].upper() + text[1:]
    elif style < 0.42:
        text = text.upper()
    elif style < 0.7:
        text = text.lower()
    if draw.random() < 0.15:
        text = _typo(text, draw)
    return text + draw.choice(("", "", ".", "!", "!!", " ..."))


def _typo(text: str, draw: random.Random) -> str:
    """Swap, drop or double one letter inside a word."""
    places = [index for index in range(1, len(text) - 1) if text[index - 1 : index + 2].isalpha()]
    at = draw.choice(places)
    return draw.choice(
        (
            text[: at - 1] + text[at] + text[at - 1] + text[at + 1 :],
            text[:at] + text[at + 1 :],
            text[:at] + text[at] + text[at:],
        )
    )
