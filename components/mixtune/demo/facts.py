"""The demo's closed-book facts: five subjects, each asked in training wordings and in held-out wordings.

The base model is pretrained on training wordings, the general pool `factuality` repeats training wordings, and the
benchmark asks in held-out wordings only.
"""

import random
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Facts of one kind: a thing and the one right answer."""

    name: str
    facts: tuple[tuple[str, str], ...]
    """(thing, answer); no two things share an answer, so that every other answer is a wrong choice."""
    wordings: tuple[str, ...]
    """Questions with `{}` for the thing: those that training may see."""
    held_out: tuple[str, ...]
    """Questions that only the benchmark asks."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A fact as four-way multiple choice."""

    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int


def _pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((thing, answer) for thing, answer in (item.split("=") for item in text.split()))


SUBJECTS = (
    Subject(
        name="world_geography",
        facts=_pairs(
            "France=Paris Italy=Rome Spain=Madrid Japan=Tokyo Egypt=Cairo Peru=Lima Cuba=Havana Kenya=Nairobi "
            "Norway=Oslo Poland=Warsaw Greece=Athens Austria=Vienna China=Beijing Russia=Moscow Canada=Ottawa "
            "Sweden=Stockholm Ireland=Dublin Portugal=Lisbon Germany=Berlin Turkey=Ankara India=Delhi Iran=Tehran "
            "Hungary=Budapest Finland=Helsinki"
        ),
        wordings=(
            "What is the capital of {}?",
            "Which city is the capital of {}?",
            "The capital city of {} is which of these?",
            "Name the capital of {}.",
            "Tell me which city {} has as its capital.",
        ),
        held_out=(
            "{} has which capital city?",
            "Of these cities, which one is {}'s capital?",
            "If you visit the government in the capital of {}, in which city are you?",
            "Pick the city that is capital in {}.",
        ),
    ),
    Subject(
        name="chemistry",
        facts=_pairs(
            "gold=Au silver=Ag iron=Fe copper=Cu lead=Pb tin=Sn sodium=Na potassium=K hydrogen=H helium=He oxygen=O "
            "nitrogen=N carbon=C calcium=Ca zinc=Zn nickel=Ni neon=Ne sulfur=S mercury=Hg aluminium=Al tungsten=W "
            "iodine=I uranium=U silicon=Si"
        ),
        wordings=(
            "What is the chemical symbol of {}?",
            "Which symbol stands for {}?",
            "The element {} has which symbol?",
            "Give the chemical symbol for {}.",
            "In the periodic table {} is written how?",
        ),
        held_out=(
            "How do chemists write the symbol for {}?",
            "Which of these is the symbol of the element {}?",
            "In a chemical table, what symbol would {} have?",
            "Find the symbol that {} has in chemistry.",
        ),
    ),
    Subject(
        name="zoology",
        facts=_pairs(
            "dog=puppy cat=kitten cow=calf horse=foal sheep=lamb goat=kid pig=piglet hen=chick duck=duckling "
            "goose=gosling deer=fawn lion=cub kangaroo=joey frog=tadpole swan=cygnet owl=owlet butterfly=caterpillar "
            "hare=leveret eel=elver fish=fry"
        ),
        wordings=(
            "What is a young {} called?",
            "A baby {} is known as what?",
            "Which word means a young {}?",
            "Name the young of a {}.",
            "People call the baby of a {} what?",
        ),
        held_out=(
            "Which name is given to the baby of a {}?",
            "What do people call a young {}?",
            "The young of the {} is known as which of these?",
            "Pick the word for a baby {}.",
        ),
    ),
    Subject(
        name="vocabulary",
        facts=_pairs(
            "hot=cold big=small fast=slow old=new high=low light=dark rich=poor wet=dry open=closed full=empty "
            "hard=soft happy=sad early=late strong=weak loud=quiet clean=dirty near=far thick=thin sweet=bitter "
            "brave=afraid "
            "deep=shallow smooth=rough cheap=expensive wide=narrow"
        ),
        wordings=(
            "What is the opposite of {}?",
            "Which word means the opposite of {}?",
            "The word {} is the opposite of which word?",
            "Name the opposite of {}.",
            "Something that is not {} at all is what?",
        ),
        held_out=(
            "Which of these words is opposite to {}?",
            "Pick the word that is the opposite of {}.",
            "A thing that is the very opposite of {} is what?",
            "{} has which word as its opposite?",
        ),
    ),
    Subject(
        name="economics",
        facts=_pairs(
            "Japan=yen India=rupee China=yuan Russia=ruble Britain=pound Mexico=peso Brazil=real Sweden=krona "
            "Poland=zloty Hungary=forint Turkey=lira Israel=shekel Thailand=baht Korea=won Vietnam=dong "
            "Ukraine=hryvnia Peru=sol Iran=rial Kenya=shilling Nigeria=naira"
        ),
        wordings=(
            "What is the currency of {}?",
            "Which money do people use in {}?",
            "The currency used in {} is which of these?",
            "Name the currency of {}.",
            "In {} shops take which currency?",
        ),
        held_out=(
            "People in {} use which currency?",
            "Which of these is the money used in {}?",
            "If you pay in {}, which currency do you use?",
            "Pick the currency that {} has.",
        ),
    ),
)


def draw_choice(subject: Subject, fact: int, wording: str, draw: random.Random) -> Choice:
    """One fact as multiple choice, with three other answers of its subject in random order."""
    thing, answer = subject.facts[fact]
    others = [other for _, other in subject.facts if other != answer]
    choices = [answer, *draw.sample(others, 3)]
    draw.shuffle(choices)
    return Choice(
        subject=subject.name, question=wording.format(thing), choices=tuple(choices), answer=choices.index(answer)
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
    return draw.choice(subject.wordings).format(thing), answer
