"""The demo's closed-book facts: five subjects, each asked in training wordings and in held-out wordings.

The base model is pretrained on training wordings, the general pool `factuality` repeats training wordings, and the
benchmark asks in held-out wordings only.
"""

import random
from dataclasses import dataclass

from mixtune.demo.grammar import TEXTS, expand
from mixtune.settings.from_dict import from_dict


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Facts of one kind: a thing and the one right answer."""

    name: str
    facts: tuple[tuple[str, str], ...]
    """(thing, answer); no two things share an answer, so that every other answer is a wrong choice."""
    wordings: tuple[str, ...]
    """Grammars of questions, `{thing}` their slot: those that training may see."""
    held_out: tuple[str, ...]
    """Questions that only the benchmark asks."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A fact as four-way multiple choice."""

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int


def _pairs(text: str) -> list[list[str]]:
    return [item.split("=") for item in text.split()]


SUBJECTS = tuple(
    from_dict(Subject, {**subject, "facts": _pairs(subject["facts"])}, "texts.toml")
    for subject in TEXTS["facts"]["subjects"]
)


def draw_choice(subject: Subject, fact: int, wording: str, draw: random.Random) -> Choice:
    """One fact as multiple choice, with three other answers of its subject in random order."""
    thing, answer = subject.facts[fact]
    others = [other for _, other in subject.facts if other != answer]
    choices = [answer, *draw.sample(others, 3)]
    draw.shuffle(choices)
    return Choice(
        subject=subject.name,
        question=expand(wording, draw, thing=thing),
        choices=tuple(choices),
        answer=choices.index(answer),
    )


def held_out_choices(draw: random.Random) -> list[Choice]:
    """The benchmark: every fact once in every held-out wording."""
    return [
        draw_choice(subject, fact, wording, draw)
        for subject in SUBJECTS
        for fact in range(len(subject.facts))
        for wording in subject.held_out
    ]


def open_question(draw: random.Random) -> tuple[str, str]:
    """A fact as an open question in a training wording, and its answer."""
    subject = draw.choice(SUBJECTS)
    thing, answer = draw.choice(subject.facts)
    return expand(draw.choice(subject.wordings), draw, thing=thing), answer
