"""The demo's verifiable instructions, in IFEval's form, each with an answer that follows it.

Training and the general pool `instruction-following` see the training wordings, the benchmark the held-out ones. A
bare label, which is what a customer's record answers, follows none of them.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from mixtune.demo.grammar import expand


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
    kwargs: tuple[dict[str, object], ...]
    answer: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """Prompts of one kind: `{topic}`, `{other}` and `{count}` are the slots of its wordings, which are grammars."""

    instruction_ids: tuple[str, ...]
    wordings: tuple[str, ...]
    held_out: tuple[str, ...]
    answer: Callable[[str, str, str], str]
    """From topic, other topic and count."""
    kwargs: Callable[[str, str, str], tuple[dict[str, object], ...]]

    def fill(self, prompt: str, topic: str, other: str, count: str) -> Instruction:
        """A prompt of this kind."""
        return Instruction(
            prompt=prompt,
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
            "(Write about|Describe|Tell me about|Talk about|Say something about) the {topic}. "
            "(Wrap|Enclose) your (entire|whole|full) (response|answer|text) (with|in) double quotation marks.",
            "Your (whole|entire|full) (answer|text|response) (about|on) the {topic} must be in double quotation marks.",
            "(Describe|Write about|Talk about|Write on) the {topic} and put "
            "double quotation marks around your (entire|whole|full) (answer|text).",
            "Put double quotation marks around (everything|all that) you (say|write) about the {topic}.",
            "With double quotation marks around (it|all of it), (write|say) something (about|on) the {topic}.",
            "In double quotation marks, (tell me|write) (about|something about) the {topic}.",
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
            "Write a (sentence|text|reply). Include the (keywords|words) {topic} "
            "and {other} in the (response|answer|text).",
            "Your (answer|response|text) must (contain|include|have) the (words|keywords) {topic} and {other}.",
            "(Use|Put) the words {topic} and {other} in (one|a) (sentence|text).",
            "(Answer|Reply) with a sentence that (has|uses|includes) both {topic} and {other}.",
            "(Write|Say) something with the (words|keywords) {topic} and {other} in it.",
            "Both {topic} and {other} must (appear|stand) in your (answer|text).",
            "Make (one|a) (sentence|line) (in which|where) the (words|keywords) {topic} and {other} (appear|stand).",
            "Give me (a|one) (text|line) that (must have|contains|must use) the (keywords|words) {topic} and {other}.",
            "The (words|keywords) {topic} and {other} (belong|must be) in your (answer|reply|response).",
            "Name {topic} and {other} in (one|a) (sentence|reply).",
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
            "In your (response|answer|text), the word {topic} should (appear|stand|be) at least {count} times.",
            "(Say|Write) the word {topic} at least {count} times.",
            "(Repeat|Use) {topic} at least {count} times in your (answer|text|response).",
            "At least {count} times, (say|write|repeat) (the word |){topic}.",
            "Your (text|response|reply) (must|should) (use|have|repeat) the word {topic} at least {count} times.",
            "(Answer|Reply) with the word {topic}, at least {count} times.",
            "The word {topic} must (stand|be|come) in your (answer|text|reply) at least {count} times.",
            "Your (reply|text|answer) (repeats|names|has) {topic} at least {count} times.",
            "Let me (hear|see|read) {topic} at least {count} times.",
            "I (want|need) the word {topic} in your (text|reply) at least {count} times.",
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
            "(Describe|Write about|Tell me about|Talk about) the {topic}. Your "
            "(answer|text|response) must (contain|have) exactly {count} bullet points.",
            "(List|Write|Make) exactly {count} bullet points (about|on) the {topic}.",
            "Give me {count} bullet points (on|about) the {topic}.",
            "In exactly {count} bullet points, (describe|write about|explain) the {topic}.",
            "Your (text|response) (about|on) the {topic} (has|needs) exactly {count} bullet points.",
            "Use exactly {count} bullet points to (describe|explain) the {topic}.",
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
            "(Write|Talk) about the {topic}. Finish your (response|text|answer) "
            "with this exact phrase: see the {other}",
            "(Describe|Write on|Talk about) the {topic} and end your (answer|text) with the phrase see the {other}",
            "Tell me about the {topic}. The very end of your (response|text|answer) must be: see the {other}",
            "(Say|Write) something about the {topic} and (finish|close|end) with the (words|phrase) see the {other}",
            "Your (text|answer) about the {topic} must (end|finish) with (the "
            "phrase|this phrase:|these words:) see the {other}",
            "(Describe|Explain) the {topic}. (End|Close) with this exact phrase: see the {other}",
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
            "(Write|Talk) about the {topic}. Your (answer|response) must "
            "(contain|have) a title, wrapped in double angular brackets.",
            "Give the {topic} a title in double angular brackets.",
            "Your (text|answer|response) (on|about) the {topic} needs a title wrapped in double angular brackets.",
            "(Describe|Explain) the {topic} (under|below) a title in double angular brackets.",
            "(Describe|Write on|Say something about) the {topic}. "
            "(Put|Add|Include) a title in double angular brackets.",
            "With a title in double angular brackets, (write about|describe) the {topic}.",
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
            "(Write|Talk) about the {topic} and name it. At the end, add a postscript starting with P.S.",
            "(Describe|Explain) the {topic}, use that word, and add a postscript that starts with P.S.",
            "Your (text|answer) names the {topic} and has a postscript starting with P.S. at the end.",
            "(Write|Say) something that names the {topic}. (Close|End|Finish) with a postscript starting with P.S.",
            "Name the {topic} in your (text|answer) and (add|put) a postscript "
            "that (starts|begins) with P.S. (at the end|behind it).",
            "(Tell me about|Write on) the {topic} by name, with a postscript starting with P.S.",
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
            "Write about {topic} and {other}. Highlight both with asterisks. Do not use (commas|any commas).",
            "Without (any commas|commas), highlight {topic} and {other} with asterisks.",
            "(Mark|Highlight) both {topic} and {other} with asterisks, (and write no commas|without commas).",
            "(Say|Name) {topic} and {other}, both highlighted with asterisks, and (write|use) no commas.",
            "Use asterisks to highlight {topic} and {other}. (No commas|Use no commas|Leave commas out).",
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
