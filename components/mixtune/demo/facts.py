"""The demo's closed-book facts: five subjects, each asked in training wordings and in held-out wordings.

The base model is pretrained on training wordings, the general pool `factuality` repeats training wordings, and the
benchmark asks in held-out wordings only.
"""

import random
from dataclasses import dataclass

from mixtune.demo.grammar import expand


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
            "(What|Which city|What city|Which place) is the capital( city|) of {thing}?",
            "The capital( city|) of {thing} is (which of these|what|which city|called what)?",
            "(Name|Give|State|Tell me) the capital( city|) of {thing}.",
            "(Tell me|Say|Do you know) (which|what) city {thing} has as its capital.",
            "{thing} has (what|which city|which of these cities) as its capital?",
            "In {thing}, (which|what) city is the capital?",
            "(Pick|Choose|Find) the capital( city|) of {thing}.",
            "Of (these places|all cities), which is the capital of {thing}?",
            "The government of {thing} (sits|meets) in (which|what) capital?",
            "{thing}'s capital( city|) is (which one|what)?",
        ),
        held_out=(
            "{thing} has which capital city?",
            "Of these cities, which one is {thing}'s capital?",
            "If you visit the government in the capital of {thing}, in which city are you?",
            "Pick the city that is capital in {thing}.",
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
            "(What|Which) is the (chemical |)symbol (of|for) {thing}?",
            "(Which|What) symbol stands for {thing}?",
            "The (element|chemical element) {thing} has (which|what) symbol?",
            "(Give|Name|State|Tell me) the (chemical |)symbol (of|for) {thing}.",
            "In the periodic table {thing} is written how?",
            "How (is|do people write) {thing} in (chemistry|the periodic table)?",
            "(Pick|Choose|Find) the (chemical |)symbol (of|for) {thing}.",
            "Of these symbols, which (stands for|is) {thing}?",
            "What (letter or letters|letters) (stand|are used) for {thing} in chemistry?",
            "{thing}'s (chemical |)symbol is (which one|what)?",
        ),
        held_out=(
            "How do chemists write the symbol for {thing}?",
            "Which of these is the symbol of the element {thing}?",
            "In a chemical table, what symbol would {thing} have?",
            "Find the symbol that {thing} has in chemistry.",
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
            "What is a (young|baby) {thing} called?",
            "A (young|baby) {thing} is (known as|called) what?",
            "(Which|What) word means a (young|baby) {thing}?",
            "(Name|Tell me|Give) (the young of a|a word for a young) {thing}.",
            "People call the (baby|young) of a {thing} what?",
            "The (baby|young) of a {thing} (has which name|is which of these)?",
            "(Pick|Choose|Find) the (name|word) of a young {thing}.",
            "How do (we|people) call a (baby|little) {thing}?",
            "Of these words, which (means|is) a (baby|young) {thing}?",
            "A {thing} has a (baby|young one), what is it called?",
        ),
        held_out=(
            "Which name is given to the baby of a {thing}?",
            "What do people call a young {thing}?",
            "The young of the {thing} is known as which of these?",
            "Pick the word for a baby {thing}.",
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
            "What is the (opposite|very opposite) of {thing}?",
            "(Which|What) word (means|is) the opposite of {thing}?",
            "The word {thing} is the opposite of (which|what) word?",
            "(Name|Give|Tell me|Say) the opposite of {thing}.",
            "Something that is not {thing} at all is what?",
            "(Pick|Choose|Find) (the opposite|a word for the opposite) of {thing}.",
            "The opposite of {thing} is (which of these|which word|what)?",
            "{thing} is the opposite of (what|which of these)?",
            "Of these words, which is the opposite of {thing}?",
            "A thing that is not {thing} is (what|what then)?",
        ),
        held_out=(
            "Which of these words is opposite to {thing}?",
            "Pick the word that is the opposite of {thing}.",
            "A thing that is the very opposite of {thing} is what?",
            "{thing} has which word as its opposite?",
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
            "(What|Which) is the (currency|money) (of|in) {thing}?",
            "(Which|What) money do people (use|pay with) in {thing}?",
            "The (currency|money) used in {thing} is (which of these|what|called what)?",
            "(Name|Give|State|Tell me) the (currency|money) of {thing}.",
            "In {thing} shops take (which|what) (currency|money)?",
            "{thing} has (which|what) (currency|money)?",
            "In {thing}, people pay with (which|what) (currency|money)?",
            "(Pick|Choose|Find) the (currency|money) (of|used in) {thing}.",
            "Of these, which is the (currency|money) of {thing}?",
            "(Which|What) (currency|money) would you need in {thing}?",
        ),
        held_out=(
            "People in {thing} use which currency?",
            "Which of these is the money used in {thing}?",
            "If you pay in {thing}, which currency do you use?",
            "Pick the currency that {thing} has.",
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
