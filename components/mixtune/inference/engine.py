"""What an engine and a tokenizer are: the requests that an engine takes and the answers that it gives."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
    """Nats, summed over the tokens of each continuation."""
    truncated: bool
    """The context was cut on the left to the model's length."""
    latency_seconds: float
    """The request's share of its batch's time."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are sampled; each prompt has its own random stream, so results do not depend on batching."""

    temperature: float
    """Above 0; 1 is the model's own distribution."""
    top_p: float
    """Above 0, at most 1: sample from the most probable tokens that together have at least this probability."""
    seed: int
    stream_ids: tuple[int, ...]
    """The random stream of each prompt, 0 or more."""
    stop_ids: frozenset[int] = frozenset()
    """Further tokens that end a continuation."""

    def uniforms(self, count: int) -> np.ndarray:
        """Return random numbers in 0..1, (num_prompts, count)."""
        return np.stack([self._stream(stream).random(count) for stream in self.stream_ids])

    def seeds(self) -> list[int]:
        """Return a seed per prompt, for engines that sample by themselves."""
        return [int(self._stream(stream).integers(2**31)) for stream in self.stream_ids]

    def _stream(self, stream: int) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=[self.seed, stream]))


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A generated continuation."""

    token_ids: tuple[int, ...]
    """Without the token that ended the turn."""
    truncated: bool
    """`max_new_tokens` ran out first, or the prompt was cut on the left to the model's length."""
    latency_seconds: float
    """From the start of its batch to its own last token."""


class Engine(Protocol):
    """A loaded model."""

    max_length: int
    """Longest sequence that the model takes, in tokens."""

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Return the log-probabilities of continuations; a ModelError where one is not finite."""

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return a continuation per prompt, up to its end of turn or `max_new_tokens`; greedy without `sampling`.

        Raises:
            ModelError: The model's logits are not finite.
        """


class Tokenizer(Protocol):
    """What is used of a Hugging Face tokenizer."""

    name_or_path: str
    chat_template: str | None
    bos_token: str | None
    eos_token_id: int | None
    all_special_tokens: list[str]

    def __call__(self, text: str, **options: bool) -> Mapping[str, list[int]]:
        """Return the `input_ids` of a text."""

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool) -> str:
        """Return the text of tokens."""


def check_finite(values: Iterable[float]) -> None:
    """Check that a model's log-probabilities or logits are finite; a ModelError says what to do."""
    if not all(map(math.isfinite, values)):
        raise ModelError(
            "the model's logits are not finite: its weights are broken, or too large for this dtype; "
            "evaluate with dtype float32, else train again with a lower learning rate"
        )
