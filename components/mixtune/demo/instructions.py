"""The demo's verifiable instructions, in IFEval's form, each with an answer that follows it.

Training and the general pool `instruction-following` see the training wordings, the benchmark the held-out ones. A
bare label, which is what a customer's record answers, follows none of them.
"""

import random
from dataclasses import dataclass

from mixtune.demo.grammar import TEXTS, expand
from mixtune.settings.from_dict import from_dict

TOPICS: list[str] = TEXTS["instructions"]["topics"].split()
COUNTS = {"two": 2, "three": 3, "four": 4}
_ORDINALS = ("one", "two", "three", "four")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One prompt with what a checker verifies, and an answer that passes."""

    prompt: str
    instruction_ids: tuple[str, ...]
    kwargs: tuple[dict[str, object], ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """Prompts of one kind: wordings are grammars, and with answer and arguments have the slots of `texts.toml`."""

    ids: tuple[str, ...]
    """What checks the answer."""
    kwargs: tuple[dict[str, object], ...]
    """Arguments of each of these."""
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: str

    def fill(self, prompt: str, topic: str, other: str, count: str) -> Instruction:
        """A prompt of this kind."""
        number = COUNTS[count]
        slots = {
            "topic": topic,
            "other": other,
            "number": number,
            "repeated": " ".join([topic] * number),
            "bullets": "\n".join(f"* {topic} {word}" for word in _ORDINALS[:number]),
        }
        return Instruction(
            prompt=prompt,
            instruction_ids=self.ids,
            kwargs=tuple({key: _fill(value, slots) for key, value in given.items()} for given in self.kwargs),
            answer=self.answer.format(**slots),
        )


def _fill(value: object, slots: dict[str, object]) -> object:
    if isinstance(value, list):
        return [_fill(item, slots) for item in value]
    return slots["number"] if value == "{number}" else value.format(**slots) if isinstance(value, str) else value


TASKS = tuple(from_dict(Task, task, "texts.toml") for task in TEXTS["instructions"]["tasks"])


def training_instruction(draw: random.Random) -> Instruction:
    """A prompt in a training wording."""
    task = draw.choice(TASKS)
    return _draw(task, draw.choice(task.wordings), draw)


def held_out_instructions(count: int, draw: random.Random) -> list[Instruction]:
    """So many different prompts in held-out wordings, the kinds in turn."""
    instructions: dict[str, Instruction] = {}
    turn = 0
    while len(instructions) < count:
        task = TASKS[turn % len(TASKS)]
        item = _draw(task, draw.choice(task.held_out), draw)
        turn += item.prompt not in instructions
        instructions.setdefault(item.prompt, item)
    return list(instructions.values())


def _draw(task: Task, wording: str, draw: random.Random) -> Instruction:
    topic, other = draw.sample(TOPICS, 2)
    count = draw.choice(list(COUNTS))
    return task.fill(expand(wording, draw, topic=topic, other=other, count=count), topic, other, count)
