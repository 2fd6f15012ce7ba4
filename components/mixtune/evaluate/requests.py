"""What an engine is asked and what it answers, whichever it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

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
class Completion:
    """A greedy continuation."""

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
