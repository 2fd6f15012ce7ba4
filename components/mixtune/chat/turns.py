"""Conversations to training examples: every learned turn behind the very prompt that the model will be asked with.

A turn is what the model would have to write: rendered up to and with the turn, a conversation holds, behind the text
that it is rendered to as a prompt, the turn with its calls, its thought and its end. An example may hold several turns,
if its text begins with each turn's prompt and turn. Templates that show earlier turns in another way than the model
writes them (without their thoughts, with another end) give an example for every such turn: none is learned otherwise
than it is asked for, and none twice.
"""

from collections.abc import Sequence, Set
from typing import NamedTuple

from mixtune.chat.habits import TemplateRefusal
from mixtune.chat.headers import answer_behind
from mixtune.chat.lost_parts import (
    is_written,
    list_parts,
    missing_around,
    missing_in_answer,
    says_something,
    without_parts,
)
from mixtune.chat.refused_share import ALWAYS_THINKS, NO_END, NO_PLACE, PART_NAMES
from mixtune.chat.sandbox import Spans
from mixtune.chat.template import NO_VARIABLES, ChatTemplate, Conversation
from mixtune.chat.thinking import Variables, closing_of, fill_thought, last_opening, leading_empty_thought, leaves_open
from mixtune.errors import DataError
from mixtune.records import TemplateValue
from mixtune.settings.chat import ChatSettings

NOT_AS_IS = "the chat template does not write what is said as it is"
NOT_SHOWN = "the chat template does not show where the assistant speaks"
NOT_ASKED = "the chat template asks for no answer behind an answer"
_PLACEHOLDER = "mixtune something else"


class TurnProblem(DataError):
    """A record whose turns cannot be told in the texts that a chat template renders."""


class Source(NamedTuple):
    """How the text of an example is rendered, from messages at the conversation's beginning."""

    num_messages: int
    variables: Variables = NO_VARIABLES
    appended: str = ""
    """The end of the last turn, where the template writes it only in front of the next one."""


class Example(NamedTuple):
    """A text to learn from."""

    text: str
    spans: Spans
    """To be learned."""
    turns: tuple[int, ...] = ()
    """Numbers of the assistant's messages in them, one a span; empty where other roles are learned, too."""
    source: Source | None = None
    """None where it was put together of two texts."""
    num_control: int = 0
    """Control tokens in the text."""
    marks: Spans | None = None
    """The template's generation marks in it; None where they are not known."""


class Examples(NamedTuple):
    """What a conversation gives to learn from."""

    examples: tuple[Example, ...] = ()
    problem: str = ""
    """Why it gives nothing; empty if it gives something."""
    lost: frozenset[str] = frozenset()
    """Parts that are not in its texts, as the settings allow,"""
    removed: frozenset[str] = frozenset()
    """and those of them that were taken off it."""


class _Turn(NamedTuple):
    number: int
    prompt: str
    answer: str
    pieces: Spans
    """Of the answer, to be learned."""
    example: Example
    """That ends with it, without spans."""


def thinks(message: TemplateValue, settings: ChatSettings) -> bool:
    """Return whether an answer is asked for with a thought."""
    return settings.thinking == "on" or (settings.thinking == "record" and bool(message.get("reasoning")))


def find_examples(
    template: ChatTemplate, conversation: Conversation, settings: ChatSettings, train_on: Set[str]
) -> Examples:
    """Return the examples of a conversation, for the turns of some roles."""
    messages, tools, _, _ = conversation
    removed = {"reasoning"} if settings.thinking == "off" and "reasoning" in list_parts(messages, tools) else set()
    while True:
        finder = _Finder(template, *without_parts(messages, tools, removed), settings)
        problem = ""
        try:
            examples = finder.examples(train_on)
        except TemplateRefusal as error:
            problem, finder.lost = f"the chat template refuses it: {error}", list_parts(finder.messages, finder.tools)
        except TurnProblem as error:
            problem = str(error)
        refused = sorted(part for part in finder.lost if settings.on_lost.get(part, "refuse") == "refuse")
        if not problem and refused:
            problem = _lacking(refused[0])
        elif removing := finder.lost & _droppable(settings):
            removed |= removing
            continue
        elif not problem and finder.lacks_thought:
            problem = ALWAYS_THINKS
        if problem or not examples:
            return Examples(problem=problem or "no token to learn")
        control = template.control_pattern
        counted = (example._replace(num_control=len(control.findall(example.text))) for example in examples)
        return Examples(tuple(counted), "", frozenset(removed | finder.lost), frozenset(removed))


def find_last_turn(template: ChatTemplate, conversation: Conversation, settings: ChatSettings) -> tuple[str, str]:
    """Return the prompt of a conversation's last message, the assistant's, and the answer as it is learned.

    Lost parts are left as the template has it, if `on_lost` does not take them off. Raises as `_Finder.turn` does.
    """
    messages, tools, _, _ = conversation
    removed = {"reasoning"} if settings.thinking == "off" else set[str]()
    while True:
        finder = _Finder(template, *without_parts(messages, tools, removed), settings)
        parts = _droppable(settings) & list_parts(finder.messages, finder.tools)
        try:
            turn = finder.turn(len(finder.messages) - 1)
            parts &= finder.lost | missing_around(finder.messages[:-1], finder.tools, turn.prompt)
        except TemplateRefusal:
            if not parts:
                raise
        removed |= parts
        if not parts and "content" in finder.lost:
            raise TurnProblem(_lacking("content"))
        if not parts:
            return turn.prompt, turn.answer


def find_prompt(
    template: ChatTemplate, conversation: Conversation, settings: ChatSettings, *, thinks: bool | None
) -> str:
    """Return a conversation as a prompt, without lost parts that `on_lost` takes off; see `ChatTemplate.prompt`."""
    messages, tools, _, _ = conversation
    parts = _droppable(settings) & list_parts(messages, tools)
    try:
        text = template.prompt(messages, tools, thinks=thinks)
        parts &= missing_around(messages, tools, text)
    except TemplateRefusal:
        if not parts:
            raise
    return template.prompt(*without_parts(messages, tools, parts), thinks=thinks) if parts else text


def _droppable(settings: ChatSettings) -> set[str]:
    return {part for part, policy in settings.on_lost.items() if policy == "drop_field"}


def _lacking(part: str) -> str:
    """Return the problem that a part is not written; the content is never allowed to be lost."""
    return NO_PLACE + PART_NAMES[part] if part in PART_NAMES else NOT_AS_IS


class _Finder:
    """Finds the examples of one conversation."""

    def __init__(
        self,
        template: ChatTemplate,
        messages: Sequence[TemplateValue],
        tools: Sequence[TemplateValue] | None,
        settings: ChatSettings,
    ) -> None:
        self.template, self.messages, self.tools, self.settings = template, messages, tools, settings
        self.habits = template.habits(tools)
        self.lost: set[str] = set()
        self.lacks_thought = False

    def examples(self, train_on: Set[str]) -> list[Example]:
        """Return the examples, or raise what a template raises; what their texts lack is put into `lost`."""
        turns = []
        if "assistant" in train_on:
            numbers = [number for number, message in enumerate(self.messages) if message["role"] == "assistant"]
            numbers = [number for number in numbers if self.messages[number].get("learn", True)]
            turns = [self.turn(number) for number in numbers if self._is_asked_for(number)]
            self.lacks_thought = self.settings.thinking == "record" and any(map(self._lacks_thought, turns))
        thinks_last = bool(turns) and thinks(self.messages[turns[-1].number], self.settings)
        variables = self.habits.thoughts.variables(thinks_last)
        whole, marks = self.template.render(self.messages, self.tools, variables)
        bases = [Example(whole, [], source=Source(len(self.messages), variables), marks=marks)]
        others = train_on - {"assistant"}
        if turns and not (others or whole.startswith(turns[-1].prompt + turns[-1].answer)):
            bases = []
        bases += [turn.example for turn in reversed(turns)]
        examples = _share_out(turns, bases)
        if others:
            examples = self._with_others(examples, whole, others)
        for example in examples:
            count = example.source.num_messages if example.source else example.turns[-1]
            self.lost |= missing_around(self.messages[:count], self.tools, example.text)
            for message in self.messages[:count]:
                if message["role"] == "assistant" and not message.get("learn", True):  # its thought may be gone
                    self.lost |= missing_in_answer(message, example.text) - {"reasoning"}
        return examples

    def _is_asked_for(self, number: int) -> bool:
        """Return whether an assistant's message says something that a prompt asks for: a greeting is context."""
        before, is_last = self.messages[:number], len(self.messages) == number + 1
        if not is_last and not any(message["role"] in ("user", "tool") for message in before):
            try:
                self.turn(number)
            except (TemplateRefusal, TurnProblem):
                return False
        return says_something(self.messages[number])

    def _lacks_thought(self, turn: _Turn) -> bool:
        """Return whether an answer without a thought is learned behind a prompt that the template does not have."""
        thoughts, opening = self.habits.thoughts, last_opening(turn.prompt)
        if thinks(self.messages[turn.number], self.settings) or not (opening or thoughts.opened or thoughts.shut):
            return False
        before, variables = self.messages[: turn.number], thoughts.variables(False)
        return bool(opening) or self.template.render(before, self.tools, variables, prompt=True).text != turn.prompt

    def turn(self, number: int) -> _Turn:
        """Find the turn that a message is."""
        message, thoughts = self.messages[number], self.habits.thoughts
        is_thinking = thinks(message, self.settings)
        variables = thoughts.variables(is_thinking)
        prompt = self.template.prompt(self.messages[:number], self.tools, thinks=is_thinking)
        if not self.template.lists_tools(self.messages[:number], self.tools, thinks=is_thinking):
            self.lost.add("tools")
        whole, marks = self.template.render(self.messages[: number + 1], self.tools, variables)
        start, thought = self._align(prompt, whole, number), ""
        reasoning, closing = (message.get("reasoning") or "").strip(), thoughts.closing
        is_hidden = start is None or not is_written(reasoning, whole[start:])
        if is_hidden and is_thinking and closing and prompt.endswith(thoughts.opened):
            if start is None:
                start = self._align(prompt, whole, number, thoughts.opened)
            thought = reasoning + closing
            if start is not None and whole.startswith(closing, start):
                start += len(closing)
        elif is_thinking and start is not None and thoughts.empty and (is_hidden or not reasoning):
            shown = leading_empty_thought(whole[start:].lstrip())
            thought = "" if shown and not reasoning else fill_thought(thoughts.empty, reasoning)
            start += len(thoughts.shut) if thought and whole.startswith(thoughts.shut, start) else 0
        if start is None:
            start = self._align_behind_result(whole, number, variables)
        if start is None:
            self.lost |= missing_in_answer(message, whole) - {"content"}
            hidden = self.lost & list_parts([message], None)
            hidden |= missing_around(self.messages[:number], self.tools, prompt) - {"content"}
            self.lost |= hidden
            unseen = ALWAYS_THINKS if last_opening(prompt) and not is_thinking else NOT_SHOWN
            raise TurnProblem(_lacking(min(hidden)) if hidden else unseen)
        answer, appended = self._cut(whole[start:], message)
        pieces = [(0, len(thought) + len(answer))]
        if self.habits.has_marks:
            pieces = self._marked(message, answer, [(a - start, b - start) for a, b in marks], len(thought))
        self.lost |= missing_in_answer(message, thought + answer)
        if is_thinking and not reasoning and not thought and leaves_open(prompt, answer):
            thought = closing_of(last_opening(prompt), "")
            pieces = [(0, len(thought) + len(answer))]
        if leaves_open(prompt, thought + answer):
            raise TurnProblem(
                "the chat template leaves a thought open that its prompt begins" if is_thinking else ALWAYS_THINKS
            )
        text, source = prompt + thought + answer, None
        if whole.startswith(prompt) and not thought:
            source = Source(number + 1, variables, appended)
            text = whole.rstrip() + appended if appended else whole
        return _Turn(number, prompt, thought + answer, pieces, Example(text, [], source=source))

    def _align(self, prompt: str, whole: str, number: int, opened: str = "") -> int | None:
        """Return where a turn begins in the text that ends with it; None where that cannot be told.

        That is behind the prompt, `opened` taken off it; or else behind what the prompt writes after the message
        before, or that from its last control token on. That message is found as one that says something else.
        """
        if self.habits.are_roles_alike:
            return None
        prompt = prompt.removesuffix(opened)
        if whole.startswith(prompt):
            return len(prompt)
        opening = prompt.rstrip()
        if last_opening(opening) and whole.startswith(opening):
            return len(whole) - len(whole[len(opening) :].lstrip())
        if not number:
            return None
        messages, is_thinking = list(self.messages[: number + 1]), thinks(self.messages[number], self.settings)
        messages[number - 1] = {**messages[number - 1], "content": _PLACEHOLDER}
        variables = self.habits.thoughts.variables(is_thinking)
        asked = self.template.prompt(messages[:number], self.tools, thinks=is_thinking).removesuffix(opened)
        shown = self.template.render(messages, self.tools, variables).text.rpartition(_PLACEHOLDER)[2]
        _, marker, after = asked.rpartition(_PLACEHOLDER)
        answer = answer_behind(after, shown, self.template.control_pattern) if marker else None
        return len(whole) - len(answer) if answer is not None and whole.endswith(answer) else None

    def _align_behind_result(self, whole: str, number: int, variables: Variables) -> int | None:
        """Return where an answer begins that stands right behind a tool's result, without the header of a prompt."""
        if not number or self.messages[number - 1]["role"] != "tool":
            return None
        before = self.template.render(self.messages[:number], self.tools, variables).text
        content = self.messages[number]["content"].strip()
        is_next = bool(content) and whole.startswith(before) and whole[len(before) :].lstrip().startswith(content)
        return len(before) if is_next else None

    def _cut(self, answer: str, message: TemplateValue) -> tuple[str, str]:
        """Return an answer up to its end of turn, and that end where the template does not write it."""
        habits = self.habits
        end = habits.end_of_call if message.get("tool_calls") and habits.end_of_call else habits.end_of_turn
        if habits.is_end_next:
            if answer.startswith(habits.end_of_turn):  # of the answer before, which its prompt leaves without
                raise TurnProblem(NOT_ASKED)
            answer = answer.rstrip()
            appended = "" if answer.endswith(end) else end
            return answer + appended, appended
        tokens = [(match[0], match.end()) for match in self.template.control_pattern.finditer(answer)]
        tail = answer.rstrip()
        ends = []
        for token, place in reversed(tokens):
            if place != len(tail):
                break
            ends.append((token, place))
            tail = tail.removesuffix(token).rstrip()
        if not ends:
            raise TurnProblem(NO_END)
        known = [place for token, place in reversed(ends) if token in {end, self.template.eos}]
        return answer[: known[0] if known else ends[0][1]], ""

    def _marked(self, message: TemplateValue, answer: str, marks: Spans, shift: int) -> Spans:
        """Return the pieces of an answer in generation marks, the space between them and its end of turn included.

        All of it where the marks leave out a part of what is said. `shift`: before the answer.
        """
        marked = [(max(a, 0), min(b, len(answer))) for a, b in marks if b > 0 and a < len(answer)]
        marked = [(a, b) for a, b in marked if answer[a:b].strip()]
        if not marked:
            raise TurnProblem("the chat template's generation marks leave out what the assistant says")
        if missing_in_answer(message, "".join(answer[a:b] for a, b in marked)):
            return [(0, shift + len(answer))]
        pieces = [(0, 0)]
        for first, last in marked:
            if answer[pieces[-1][1] : first].strip():
                pieces.append((first, last))
            else:
                pieces[-1] = (pieces[-1][0], last)
        first, last = pieces[-1]
        if answer[last:].strip() == self.habits.end_of_turn:
            pieces[-1] = (first, len(answer))
        return [(a + shift if a or not shift else 0, b + shift) for a, b in pieces if b]

    def _with_others(self, examples: list[Example], text: str, roles: Set[str]) -> list[Example]:
        """Return examples the first of which holds the contents of some roles, too."""
        spans = self._contents(text, roles)
        first = examples[0] if examples and examples[0].text == text else None
        rest = examples[1:] if first else examples
        source = Source(len(self.messages))
        joined = Example(text, sorted([*(first.spans if first else []), *spans]), source=source)
        return [joined, *rest]

    def _contents(self, text: str, roles: Set[str]) -> Spans:
        """Find the contents of messages of some roles, each by rendering with something else in its place."""
        spans: Spans = []
        for number, message in enumerate(self.messages):
            content = message["content"].strip()
            if message["role"] not in roles or not content or not message.get("learn", True):
                continue
            changed = [*self.messages[:number], {**message, "content": _PLACEHOLDER}, *self.messages[number + 1 :]]
            before, placeholder, _ = self.template.render(changed, self.tools).text.partition(_PLACEHOLDER)
            end = len(before) + len(content)
            if not placeholder or text[:end] != before + content:
                raise TurnProblem(f"the chat template does not write what the {message['role']} says")
            match = None if self.habits.is_end_next else self.template.control_pattern.match(text, end)
            spans.append((len(before), match.end() if match else end))
        return spans


def _share_out(turns: Sequence[_Turn], bases: Sequence[Example]) -> list[Example]:
    """Return the first of the texts that hold turns as they are asked for, every turn in one of them."""
    pending, examples = list(turns), []
    for base in bases:
        if not pending:
            break
        covered = [turn for turn in pending if base.text.startswith(turn.prompt + turn.answer)]
        if covered:
            spans = [(len(turn.prompt) + a, len(turn.prompt) + b) for turn in covered for a, b in turn.pieces]
            examples.append(base._replace(spans=spans, turns=tuple(turn.number for turn in covered)))
        pending = [turn for turn in pending if turn not in covered]
    return examples
