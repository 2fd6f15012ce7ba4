"""A model that asks itself: users' turns from its own chat template, and its answers, each checked for use."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from mixtune.artifacts.samples import Sample, prompt_hash
from mixtune.chat.template import ChatTemplate
from mixtune.chat.thinking import last_opening
from mixtune.errors import ConfigError, ModelError
from mixtune.inference.engine import Completion, Engine, Sampling, Tokenizer
from mixtune.inference.prompts import encode, render_question
from mixtune.inference.thoughts import split_thought
from mixtune.settings.inference import InferenceSettings

AXIS = "rehearsal"
LONGEST_LOOP, LOOPS = 32, 8
"""A piece of at most 32 tokens, 8 times in a row, is a loop."""
_MARK = "qzxv"


@dataclass(frozen=True, kw_only=True)
class RehearseSettings(InferenceSettings):
    """The `options` of `rehearse`: how the model is loaded, and how questions and answers are sampled."""

    temperature: float = 1.0
    """Above 0; 1 is the model's own distribution, which rehearsal is to keep."""
    top_p: float = 1.0
    """Above 0, at most 1: only the most probable tokens, which together have this probability."""
    max_prompt_tokens: int = 512
    """A question that is longer is dropped."""
    max_new_tokens: int = 1024
    """An answer that is longer is dropped."""
    seed: int = 42
    chat_template_uri: str = ""
    """File with a chat template in place of the base model's own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise ConfigError(f"temperature is above 0, got {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is above 0 and at most 1, got {self.top_p:g}")
        for name in ("max_prompt_tokens", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is 1 or more, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is 0 to 2**63 - 1, got {self.seed}")

    @property
    def sampling_options(self) -> dict[str, Any]:
        """All that the texts depend on beside the model and its template."""
        inherited = {item.name for item in fields(InferenceSettings)} | {"chat_template_uri"}
        return {name: value for name, value in vars(self).items() if name not in inherited}

    def sampling(self, stream_ids: Sequence[int], stop_ids: frozenset[int] = frozenset()) -> Sampling:
        """Return the sampling of texts with these random streams."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            stream_ids=tuple(stream_ids),
            stop_ids=stop_ids,
        )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Where a chat template lets a user speak."""

    before: str
    """What it writes up to the user's first word."""
    stop_ids: frozenset[int]
    """The token that ends the user's words."""


def find_turn(tokenizer: Tokenizer) -> Turn:
    """Find what the chat template writes around a user's words.

    Raises:
        ModelError: Nothing before them, or no control token behind them: there is nothing to draw from.
    """
    template = ChatTemplate.of(tokenizer)
    before, mark, after = render_question(tokenizer, _MARK).partition(_MARK)
    end = template.control_pattern.match(after)
    if not before or not mark or not end:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template has no place from which a user's turn could be drawn: it "
            f"writes {before[-40:]!r} before a user's words and {after[:40]!r} behind them, and needs a control token "
            "there; give prompts_uri"
        )
    return Turn(before=before, stop_ids=frozenset({template.control_tokens[end[0]]}))


@dataclass(frozen=True)
class ConversationGenerator:
    """Samples conversations by their numbers; a conversation does not depend on its batch."""

    tokenizer: Tokenizer
    settings: RehearseSettings

    def __call__(self, items: Sequence[tuple[int, str]], engine: Engine) -> list[Sample]:
        """Return one sample per conversation: `text` is the question, `response` the answer, `error` why it is dropped.

        Each item is a number and a question; an empty question is sampled from the model.
        """
        numbers = [number for number, _ in items]
        questions = [(question, "") for _, question in items]
        if not all(question for question, _ in questions):
            questions = self._ask(numbers, engine)
        usable = [place for place, (_, error) in enumerate(questions) if not error]
        rendered = {place: render_question(self.tokenizer, questions[place][0]) for place in usable}
        answers = dict.fromkeys(range(len(items)), ("", ""))
        if usable:
            prompts = [encode(self.tokenizer, rendered[place]) for place in usable]
            sampling = self.settings.sampling([2 * numbers[place] + 1 for place in usable])
            completions = engine.generate(prompts, self.settings.max_new_tokens, sampling)
            for place, completion in zip(usable, completions, strict=True):
                answers[place] = self._read(completion, "answer", last_opening(rendered[place]).strip())
        return [
            Sample(
                axis=AXIS,
                subject="all",
                item_id=f"{number:09}",
                prompt_hash=prompt_hash(rendered.get(place, "")),
                text=questions[place][0],
                response=answers[place][0],
                error=questions[place][1] or answers[place][1],
            )
            for place, number in enumerate(numbers)
        ]

    @cached_property
    def _special(self) -> frozenset[int]:
        return ChatTemplate.of(self.tokenizer).special_ids

    def _ask(self, numbers: Sequence[int], engine: Engine) -> list[tuple[str, str]]:
        """Return a user's words per number, and what is wrong with them."""
        turn = find_turn(self.tokenizer)
        before = encode(self.tokenizer, turn.before)
        sampling = self.settings.sampling([2 * number for number in numbers], turn.stop_ids)
        completions = engine.generate([before] * len(numbers), self.settings.max_prompt_tokens, sampling)
        return [self._read(completion, "prompt") for completion in completions]

    def _read(self, completion: Completion, kind: str, opening: str = "") -> tuple[str, str]:
        """Return the text of a completion, behind the tag by which its prompt opens a thought, and what is wrong."""
        text = opening + self.tokenizer.decode(completion.token_ids, skip_special_tokens=True).strip()
        problems = {
            "control token": bool(self._special & set(completion.token_ids)),
            "loop": has_loop(completion.token_ids),
            "cut": completion.truncated,
            "empty": not split_thought(text).text,
            "broken letters": "\ufffd" in text,
        }
        return text, next((f"{kind}: {name}" for name, present in problems.items() if present), "")


def has_loop(ids: Sequence[int]) -> bool:
    """Return whether a piece of a text is repeated `LOOPS` times in a row."""
    tokens = np.asarray(ids, dtype=np.int64)
    for size in range(1, min(LONGEST_LOOP, len(tokens) // LOOPS) + 1):
        # a piece of `size` tokens is repeated n times where n - 1 times `size` tokens in a row equal those before
        same = np.concatenate([[False], tokens[size:] == tokens[:-size], [False]])
        ends = np.flatnonzero(~same)
        if int(np.diff(ends).max()) - 1 >= size * (LOOPS - 1):
            return True
    return False
