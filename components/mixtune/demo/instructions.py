"""The demo's verifiable instructions, in IFEval's form, each with an answer that follows it.

Training and the general pool `instruction-following` see the training wordings, the benchmark the held-out ones. A
bare label, which is what a customer's record answers, follows none of them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TOPICS = _words(
    "river mountain garden window kitchen bridge forest island market school train bicycle harbor castle "
    "summer winter morning evening music dance camera painting story poem teacher doctor farmer baker "
    "sailor pilot coffee bread cheese apple orange lemon tomato potato flower tree stone sand cloud storm "
    "rain snow star moon planet ocean beach desert valley village city street house door table chair lamp "
    "clock mirror carpet blanket jacket shoe hat glove ring"
)
COUNTS = {"two": 2, "three": 3, "four": 4}
_ORDINALS = ("one", "two", "three", "four")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """One prompt with what a checker verifies, and an answer that passes."""

    prompt: str
    instruction_ids: tuple[str, ...]
    kwargs: tuple[dict[str, Any], ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """Prompts of one kind: `{topic}`, `{other}` and `{count}` are the slots of its wordings."""

    instruction_ids: tuple[str, ...]
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: Callable[[str, str, str], str]
    """From topic, other topic and count."""
    kwargs: Callable[[str, str, str], tuple[dict[str, Any], ...]]

    def fill(self, wording: str, topic: str, other: str, count: str) -> Instruction:
        """A prompt of this kind."""
        return Instruction(
            prompt=wording.format(topic=topic, other=other, count=count),
            instruction_ids=self.instruction_ids,
            kwargs=self.kwargs(topic, other, count),
            answer=self.answer(topic, other, count),
        )


def _like(topic: str) -> str:
    return f"I like the {topic} very much."


TASKS = (
    Task(
        instruction_ids=("startend:quotation",),
        wordings=(
            "Write about the {topic}. Wrap your entire response with double quotation marks.",
            "Your whole answer about the {topic} must be in double quotation marks.",
            "Describe the {topic} and put double quotation marks around your entire answer.",
        ),
        held_out=(
            "Tell me about the {topic}. Put your whole response in double quotation marks.",
            "Write on the {topic} with double quotation marks around your entire response.",
        ),
        answer=lambda topic, other, count: f'"{_like(topic)}"',
        kwargs=lambda topic, other, count: ({},),
    ),
    Task(
        instruction_ids=("keywords:existence",),
        wordings=(
            "Write a sentence. Include the keywords {topic} and {other} in the response.",
            "Your answer must contain the words {topic} and {other}.",
            "Use the words {topic} and {other} in one sentence.",
        ),
        held_out=(
            "Include the words {topic} and {other} in your answer.",
            "Write one sentence that must contain the keywords {topic} and {other}.",
        ),
        answer=lambda topic, other, count: f"I like the {topic} and the {other}.",
        kwargs=lambda topic, other, count: ({"keywords": [topic, other]},),
    ),
    Task(
        instruction_ids=("keywords:frequency",),
        wordings=(
            "In your response, the word {topic} should appear at least {count} times.",
            "Say the word {topic} at least {count} times.",
            "Repeat {topic} at least {count} times in your answer.",
        ),
        held_out=(
            "Your answer should say {topic} at least {count} times.",
            "The word {topic} should appear in your response at least {count} times.",
        ),
        answer=lambda topic, other, count: " ".join([topic] * COUNTS[count]),
        kwargs=lambda topic, other, count: ({"keyword": topic, "frequency": COUNTS[count], "relation": "at least"},),
    ),
    Task(
        instruction_ids=("detectable_format:number_bullet_lists",),
        wordings=(
            "Describe the {topic}. Your answer must contain exactly {count} bullet points.",
            "List exactly {count} bullet points about the {topic}.",
            "Give me {count} bullet points on the {topic}.",
        ),
        held_out=(
            "Your answer on the {topic} must contain exactly {count} bullet points.",
            "Give exactly {count} bullet points that describe the {topic}.",
        ),
        answer=lambda topic, other, count: "\n".join(f"* {topic} {word}" for word in _ORDINALS[: COUNTS[count]]),
        kwargs=lambda topic, other, count: ({"num_bullets": COUNTS[count]},),
    ),
    Task(
        instruction_ids=("startend:end_checker",),
        wordings=(
            "Write about the {topic}. Finish your response with this exact phrase: see the {other}",
            "Describe the {topic} and end your answer with the phrase see the {other}",
            "Tell me about the {topic}. The very end of your response must be: see the {other}",
        ),
        held_out=(
            "Describe the {topic}. Finish your answer with the phrase see the {other}",
            "Write about the {topic} and end with this exact phrase: see the {other}",
        ),
        answer=lambda topic, other, count: f"{_like(topic)} see the {other}",
        kwargs=lambda topic, other, count: ({"end_phrase": f"see the {other}"},),
    ),
    Task(
        instruction_ids=("detectable_format:title",),
        wordings=(
            "Write about the {topic}. Your answer must contain a title, wrapped in double angular brackets.",
            "Give the {topic} a title in double angular brackets.",
            "Your text on the {topic} needs a title wrapped in double angular brackets.",
        ),
        held_out=(
            "Tell me about the {topic} with a title in double angular brackets.",
            "Write on the {topic}. Your text must contain a title wrapped in double angular brackets.",
        ),
        answer=lambda topic, other, count: f"<<the {topic}>>\n{_like(topic)}",
        kwargs=lambda topic, other, count: ({},),
    ),
    Task(
        instruction_ids=("detectable_content:postscript", "keywords:existence"),
        wordings=(
            "Write about the {topic} and name it. At the end, add a postscript starting with P.S.",
            "Describe the {topic}, use that word, and add a postscript that starts with P.S.",
            "Your text names the {topic} and has a postscript starting with P.S. at the end.",
        ),
        held_out=(
            "Tell me about the {topic}, use that word, and at the end add a postscript starting with P.S.",
            "Describe the {topic} and name it. Add a postscript that starts with P.S. at the end.",
        ),
        answer=lambda topic, other, count: f"{_like(topic)}\nP.S. Thank you.",
        kwargs=lambda topic, other, count: ({"postscript_marker": "P.S."}, {"keywords": [topic]}),
    ),
    Task(
        instruction_ids=("detectable_format:number_highlighted_sections", "punctuation:no_comma"),
        wordings=(
            "Highlight the words {topic} and {other} with asterisks and use no commas.",
            "Write about {topic} and {other}. Highlight both with asterisks. Do not use commas.",
            "Without any commas, highlight {topic} and {other} with asterisks.",
        ),
        held_out=(
            "Use no commas and highlight both {topic} and {other} with asterisks.",
            "Write the words {topic} and {other}. Highlight both with asterisks and use no commas.",
        ),
        answer=lambda topic, other, count: f"*{topic}* and *{other}*",
        kwargs=lambda topic, other, count: ({"num_highlights": 2}, {}),
    ),
)


def training_instruction(draw: random.Random) -> Instruction:
    """A prompt in a training wording."""
    task = draw.choice(TASKS)
    return _draw(task, draw.choice(task.wordings), draw)


def held_out_instructions(count: int, draw: random.Random) -> list[Instruction]:
    """So many different prompts in held-out wordings, the kinds in turn."""
    found: dict[str, Instruction] = {}
    turn = 0
    while len(found) < count:
        task = TASKS[turn % len(TASKS)]
        item = _draw(task, draw.choice(task.held_out), draw)
        turn += item.prompt not in found
        found.setdefault(item.prompt, item)
    return list(found.values())


def _draw(task: Task, wording: str, draw: random.Random) -> Instruction:
    topic, other = draw.sample(TOPICS, 2)
    return task.fill(wording, topic, other, draw.choice(list(COUNTS)))
