"""Scoring and generating with a Hugging Face model, on any device.

What requests have in common is computed once: the longest common prefix of a group of prompts (the five shots of an
MMLU subject, a customer's question under all its labels) goes through the model one time, and its keys and values
are shared. Logits are computed only where they are read.
"""

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from mixtune.inference.engine import Completion, Request, Sampling, Scores, check_finite

MIN_SHARED_TOKENS = 8
"""A common prefix that is shorter is not worth a forward pass of its own."""

MAX_LOGITS = 2**28
"""Logits of one batch at most: 1 GiB in float32."""


@dataclass(frozen=True)
class _Row:
    """One sequence of a batch: `targets` are read at its last positions."""

    request: int
    choice: int
    ids: tuple[int, ...]
    targets: tuple[int, ...]


@dataclass(frozen=True)
class _Asked:
    """What is asked of one batch of prompts; without `sampling`, the most probable tokens."""

    max_new_tokens: int
    sampling: Sampling | None
    uniforms: torch.Tensor | None
    """(prompts, max_new_tokens)."""


class TransformersEngine:
    """A model and what is asked of it; deterministic, and greedy unless told to draw."""

    def __init__(self, model: Any, *, max_length: int, stop_ids: frozenset[int], batch_tokens: int) -> None:
        """Wrap a loaded model.

        Args:
            model: A causal language model in evaluation mode.
            max_length: Longest sequence that the model takes, in tokens.
            stop_ids: Tokens that end an answer.
            batch_tokens: Tokens of a batch at most, padding and shared prefix included.
        """
        self.model, self.max_length, self.stop_ids, self.batch_tokens = model, max_length, stop_ids, batch_tokens
        self.device = next(model.parameters()).device
        self._vocab = int(model.config.get_text_config().vocab_size)
        self._keeps_logits = "logits_to_keep" in inspect.signature(_inner(model).forward).parameters

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Log-probabilities of continuations; what requests have in common is computed once.

        Raises:
            ModelError: One is not finite.
        """
        logprobs = [[0.0] * len(request.continuations) for request in requests]
        seconds = [0.0] * len(requests)
        limit = self.max_length
        for group in _groups(requests):
            rows = [_Row(row.request, row.choice, row.ids[-limit:], row.targets) for row in group]
            started = time.perf_counter()
            for row, values in self._score_group(rows):
                if row.choice < 0:
                    logprobs[row.request] = values
                else:
                    logprobs[row.request][row.choice] = sum(values)
            share = (time.perf_counter() - started) / len({row.request for row in rows})
            for index in {row.request for row in rows}:
                seconds[index] = share
        check_finite(value for values in logprobs for value in values)
        cut = [len(request.context) + max(map(len, request.continuations)) - 1 > limit for request in requests]
        return [
            Scores(logprobs=tuple(values), truncated=long, latency_seconds=spent)
            for values, long, spent in zip(logprobs, cut, seconds, strict=True)
        ]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Continuations, each up to its end of turn or `max_new_tokens`; greedy without `sampling`.

        Raises:
            ModelError: The model's logits are not finite.
        """
        uniforms = torch.tensor(sampling.uniforms(max_new_tokens), device=self.device) if sampling else None
        room = max(1, self.max_length - max_new_tokens)
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        out: dict[int, Completion] = {}
        while order:
            longest = min(room, len(prompts[order[0]]))
            count = max(1, self.batch_tokens // (longest + max_new_tokens))
            batch, order = order[:count], order[count:]
            cut = [list(prompts[index][-room:]) for index in batch]
            asked = _Asked(max_new_tokens, sampling, uniforms[batch] if uniforms is not None else None)
            for index, done in zip(batch, self._generate_batch(cut, asked), strict=True):
                long = len(prompts[index]) > room
                out[index] = Completion(token_ids=done[0], truncated=done[1] or long, latency_seconds=done[2])
        return [out[index] for index in range(len(prompts))]

    def _score_group(self, rows: list[_Row]) -> Iterator[tuple[_Row, list[float]]]:
        prefix = _common_prefix(rows)
        cache = self._prefix_cache(rows[0].ids[:prefix]) if prefix >= MIN_SHARED_TOKENS and len(rows) > 1 else None
        prefix = prefix if cache else 0
        rows = sorted(rows, key=lambda row: len(row.ids))
        while rows:
            count = self._batch_rows(rows, prefix)
            batch, rows = rows[:count], rows[count:]
            yield from zip(batch, self._score_batch(batch, prefix, cache), strict=True)

    def _batch_rows(self, rows: list[_Row], prefix: int) -> int:
        """How many of the rows, shortest first, go into one batch."""
        count, read = 0, 0
        for row in rows:
            read = max(read, _positions(row))
            whole = max(len(row.ids), prefix)
            if count and ((count + 1) * whole > self.batch_tokens or (count + 1) * read * self._vocab > MAX_LOGITS):
                break
            count += 1
        return count

    def _prefix_cache(self, ids: tuple[int, ...]) -> DynamicCache | None:
        """Keys and values of a common prefix; None where the model's cache cannot be shared."""
        out = self._forward(torch.tensor([ids], device=self.device), keep=1, past_key_values=None)
        return out.past_key_values if _shareable(out.past_key_values) else None

    def _score_batch(self, rows: list[_Row], prefix: int, cache: DynamicCache | None) -> list[list[float]]:
        tails = [row.ids[prefix:] for row in rows]
        ids, mask = _left_pad(tails, self.device)
        positions = prefix + (mask.cumsum(1) - 1).clamp(min=0)
        if prefix:
            mask = torch.cat([mask.new_ones(len(rows), prefix), mask], dim=1)
        past = _expand(cache, len(rows)) if cache else None
        keep = max(_positions(row) for row in rows)
        extra = {"attention_mask": mask, "position_ids": positions, "past_key_values": past}
        logits = self._forward(ids, keep=keep, **extra).logits
        return [_read(logits[index], row) for index, row in enumerate(rows)]

    def _forward(self, ids: torch.Tensor, *, keep: int, **inputs: Any) -> Any:
        kept = {"logits_to_keep": keep} if self._keeps_logits else {}
        return self.model(input_ids=ids, use_cache=True, **inputs, **kept)

    def _generate_batch(self, prompts: list[list[int]], asked: "_Asked") -> list[tuple[tuple[int, ...], bool, float]]:
        started = time.perf_counter()
        ids, mask = _left_pad(prompts, self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        answers: list[list[int]] = [[] for _ in prompts]
        spent = [0.0] * len(prompts)
        cut = [True] * len(prompts)
        alive = list(range(len(prompts)))
        past: Any = None
        stop_ids = self.stop_ids | (asked.sampling.stop_ids if asked.sampling else frozenset())
        for step in range(asked.max_new_tokens):
            inputs = {"attention_mask": mask, "position_ids": positions, "past_key_values": past}
            out = self._forward(ids, keep=1, **inputs)
            best, chosen = out.logits[:, -1].max(-1)
            check_finite(best.tolist())
            if asked.sampling and asked.uniforms is not None:
                chosen = draw(out.logits[:, -1], asked.uniforms[alive, step], asked.sampling)
            past, tokens = out.past_key_values, chosen.tolist()
            keep = []
            for row, (index, token) in enumerate(zip(alive, tokens, strict=True)):
                if token in stop_ids:
                    cut[index] = False
                else:
                    answers[index].append(token)
                    keep.append(row)
                spent[index] = time.perf_counter() - started
            if not keep:
                break
            mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
            positions, ids = positions[:, -1:] + 1, chosen[:, None]
            if len(keep) < len(alive):
                rows = torch.tensor(keep, device=self.device)
                past.batch_select_indices(rows)
                ids, mask, positions = ids[rows], mask[rows], positions[rows]
                alive = [alive[row] for row in keep]
        return [(tuple(answer), long, time_) for answer, long, time_ in zip(answers, cut, spent, strict=True)]


def draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """One token per row, by the inverse of its cumulated probabilities.

    Args:
        logits: (rows, vocabulary).
        uniforms: (rows,), each in 0..1.
        sampling: Temperature and top_p.

    Returns:
        Token ids, (rows,).
    """
    chances = (logits.double() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        falling = chances.sort(-1, descending=True).values
        needed = falling.cumsum(-1) - falling < sampling.top_p
        least = falling.masked_fill(~needed, 1).amin(-1, keepdim=True)
        chances = chances.masked_fill(chances < least, 0)
    sums = chances.cumsum(-1)
    places = torch.searchsorted(sums, uniforms[:, None] * sums[:, -1:], right=True)[:, 0]
    return places.clamp(max=logits.shape[-1] - 1)


def _inner(model: Any) -> Any:
    """The model under a PEFT wrapper, whose own `forward` hides its parameters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _groups(requests: Sequence[Request]) -> list[list[_Row]]:
    """Rows that share a prefix: all one-token questions together, each question with long continuations alone."""
    together: list[_Row] = []
    alone: list[list[_Row]] = []
    for index, request in enumerate(requests):
        if all(len(item) == 1 for item in request.continuations):
            targets = tuple(item[0] for item in request.continuations)
            together.append(_Row(index, -1, request.context, targets))
            continue
        rows = [
            _Row(index, choice, (request.context + item)[:-1], item)
            for choice, item in enumerate(request.continuations)
        ]
        if len(rows) == 1:
            together += rows
        else:
            alone.append(rows)
    return ([together] if together else []) + alone


def _positions(row: _Row) -> int:
    """How many last positions of a row are read."""
    return 1 if row.choice < 0 else min(len(row.targets), len(row.ids))


def _read(logits: torch.Tensor, row: _Row) -> list[float]:
    """Log-probabilities of a row's targets: all at the last position, or one each at the last ones."""
    last = logits[-_positions(row) :].float()
    total = last.logsumexp(-1)
    if row.choice < 0:
        return [float(value) for value in (last[0, list(row.targets)] - total[0]).tolist()]
    targets = torch.tensor(row.targets[-len(last) :], device=logits.device)
    return [float(value) for value in (last.gather(1, targets[:, None])[:, 0] - total).double().tolist()]


def _common_prefix(rows: list[_Row]) -> int:
    """Length of what all rows begin with; every row keeps the positions that are read."""
    shortest = min(len(row.ids) - _positions(row) for row in rows)
    first, last = min(row.ids for row in rows), max(row.ids for row in rows)
    count = 0
    while count < shortest and first[count] == last[count]:
        count += 1
    return count


def _left_pad(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, (rows, longest), padded on the left, so that every last position is a real one."""
    longest = max(len(item) for item in sequences)
    ids = [[0] * (longest - len(item)) + list(item) for item in sequences]
    mask = [[0] * (longest - len(item)) + [1] * len(item) for item in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _shareable(cache: Any) -> bool:
    """Whether a cache is plain keys and values, which can be repeated for a batch."""
    return type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)


def _expand(cache: DynamicCache, rows: int) -> DynamicCache:
    """The cache for so many rows, without copying: appending to it copies what it must."""
    layers: list[Any] = cache.layers
    return DynamicCache(
        [(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1)) for layer in layers]
    )
