"""A model that asks itself: users' turns drawn from its own chat template, and its answers, each judged fit or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from mixtune.artifacts.samples import Sample, prompt_hash
from mixtune.errors import ConfigError, ModelError
from mixtune.inference.engine import Completion, Sampling
from mixtune.inference.prompts import encode, render_question

AXIS = "rehearsal"
END_OF_THOUGHT = "</think>"
"""What a reasoning model writes before it answers."""
LONGEST_LOOP, LOOPS = 32, 8
"""A piece of so many tokens at most, so many times in a row, is a loop."""
_MARK = "qzxv"


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How texts are drawn."""

    temperature: float = 1.0
    """Above 0; 1: what the model itself would say, which is what rehearsal is to keep."""
    top_p: float = 1.0
    """Above 0, at most 1: only the most probable tokens, which together have this probability."""
    max_prompt_tokens: int = 512
    max_new_tokens: int = 1024
    """Of an answer."""
    seed: int = 42

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ConfigError(f"rehearse: temperature is above 0, got {self.temperature:g}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"rehearse: top_p is above 0 and at most 1, got {self.top_p:g}")
        for name in ("max_prompt_tokens", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"rehearse: {name} is 1 or more, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"rehearse: seed is 0 to 2**63 - 1, got {self.seed}")

    def sampling(self, names: Sequence[int], stop_ids: frozenset[int] = frozenset()) -> Sampling:
        """The random numbers of texts with these names."""
        return Sampling(
            temperature=self.temperature, top_p=self.top_p, seed=self.seed, names=tuple(names), stop_ids=stop_ids
        )


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Where a chat template lets a user speak."""

    before: str
    """What it writes up to the user's first word."""
    stop_ids: frozenset[int]
    """The token that ends the user's words."""


def find_turn(tokenizer: Any) -> Turn:
    """What the chat template puts around a user's words.

    Raises:
        ModelError: Nothing before them, or no special token behind them: there is nothing to draw from.
    """
    text = render_question(tokenizer, _MARK)
    before, _, after = text.partition(_MARK)
    special = special_ids(tokenizer)
    ids = encode(tokenizer, after)
    if not before or _MARK not in text or not ids or ids[0] not in special:
        raise ModelError(
            f"{tokenizer.name_or_path}: its chat template has no place from which a user's turn could be drawn: it "
            f"writes {before[-40:]!r} before a user's words and {after[:40]!r} behind them, and needs a control token "
            "there; give prompts_uri"
        )
    return Turn(before=before, stop_ids=frozenset(ids[:1]))


def special_ids(tokenizer: Any) -> frozenset[int]:
    """The model's control tokens."""
    added = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added | set(tokenizer.all_special_ids))


@dataclass(frozen=True)
class Asker:
    """Draws the conversations with these numbers; who draws them, and with which others, makes no difference."""

    tokenizer: Any
    drawing: Drawing
    numbers: tuple[int, ...]
    prompts: tuple[str, ...] = ()
    """One per number, where they are given; else the model makes them."""

    def __call__(self, engine: Any) -> list[Sample]:
        """One sample per number: `text` asked, `response` answered, and why not in `error`."""
        asked = [(prompt, "") for prompt in self.prompts] or self._ask(engine)
        fit = [place for place, (_, error) in enumerate(asked) if not error]
        rendered = {place: render_question(self.tokenizer, asked[place][0]) for place in fit}
        sampling = self.drawing.sampling([2 * self.numbers[place] + 1 for place in fit])
        found = (
            engine.generate(
                [encode(self.tokenizer, rendered[place]) for place in fit], self.drawing.max_new_tokens, sampling
            )
            if fit
            else []
        )
        answers = {place: self._read(done, "answer") for place, done in zip(fit, found, strict=True)}
        return [
            Sample(
                axis=AXIS,
                subject="all",
                item_id=f"{number:09}",
                prompt_hash=prompt_hash(rendered.get(place, "")),
                text=asked[place][0],
                response=answers.get(place, ("", ""))[0],
                error=asked[place][1] or answers[place][1],
            )
            for place, number in enumerate(self.numbers)
        ]

    @cached_property
    def _special(self) -> frozenset[int]:
        return special_ids(self.tokenizer)

    def _ask(self, engine: Any) -> list[tuple[str, str]]:
        turn = find_turn(self.tokenizer)
        before = encode(self.tokenizer, turn.before)
        sampling = self.drawing.sampling([2 * number for number in self.numbers], turn.stop_ids)
        done = engine.generate([before] * len(self.numbers), self.drawing.max_prompt_tokens, sampling)
        return [self._read(one, "prompt") for one in done]

    def _read(self, done: Completion, kind: str) -> tuple[str, str]:
        """The text of a continuation, and what is wrong with it."""
        text = str(self.tokenizer.decode(done.token_ids, skip_special_tokens=True)).strip()
        wrong = {
            "control token": bool(self._special & set(done.token_ids)),
            "loop": has_loop(done.token_ids),
            "cut": done.truncated,
            "empty": not text.rpartition(END_OF_THOUGHT)[2].strip(),
            "broken letters": "\ufffd" in text,
        }
        return text, next((f"{kind}: {name}" for name, found in wrong.items() if found), "")


def has_loop(ids: Sequence[int]) -> bool:
    """Whether a piece of a text stands there again and again."""
    tokens = np.asarray(ids, dtype=np.int64)
    for size in range(1, min(LONGEST_LOOP, len(tokens) // LOOPS) + 1):
        same = np.concatenate([[False], tokens[size:] == tokens[:-size], [False]])
        ends = np.flatnonzero(~same)
        if int(np.diff(ends).max()) - 1 >= size * (LOOPS - 1):
            return True
    return False
