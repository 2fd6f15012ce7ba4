"""What an engine is asked and what it answers, whichever it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mixtune.errors import ModelError


@dataclass(frozen=True, kw_only=True)
class Request:
    """One context and the continuations whose log-probabilities are asked for."""

    context: tuple[int, ...]
    continuations: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The answer to a request."""

    logprobs: tuple[float, ...]
    """Sum over the tokens, one per continuation, in nats."""
    truncated: bool
    """The context was cut on the left to the model's length."""
    latency_seconds: float
    """The request's share of its batch's time."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How continuations are drawn, each with random numbers of its own: who else is in a batch makes no difference."""

    temperature: float
    """Above 0; 1 is the model's own distribution."""
    top_p: float
    """Above 0, at most 1: only the most probable tokens, which together have this probability at least."""
    seed: int
    names: tuple[int, ...]
    """One number per prompt, 0 or more: which random numbers it has."""
    stop_ids: frozenset[int] = frozenset()
    """Further tokens that end a continuation."""

    def uniforms(self, count: int) -> np.ndarray:
        """Random numbers in 0..1, (prompts, count)."""
        return np.stack([self._numbers(name).random(count) for name in self.names])

    def seeds(self) -> list[int]:
        """A seed per prompt, for engines that draw by themselves."""
        return [int(self._numbers(name).integers(2**31)) for name in self.names]

    def _numbers(self, name: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, name]))


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A continuation."""

    token_ids: tuple[int, ...]
    """Without the token that ended the turn."""
    truncated: bool
    """`max_new_tokens` ran out first, or the prompt was cut on the left to the model's length."""
    latency_seconds: float
    """From the start of its batch to its own last token."""


def check_finite(values: Iterable[float]) -> None:
    """Make sure that what a model says can be measured.

    Raises:
        ModelError: A log-probability, or the largest logit of a position, is not finite.
    """
    if not all(map(math.isfinite, values)):
        raise ModelError(
            "the model's logits are not finite: its weights are broken, or too large for this dtype; "
            "evaluate with dtype float32, else train again with a lower learning rate"
        )
