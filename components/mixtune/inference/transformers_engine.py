"""Scoring and generating with a Hugging Face model, on any device.

What requests have in common is computed once: the solved items of an MMLU subject for all its parts, and of other
requests whatever they begin with alike, a customer's question under all its labels (`packed_scoring`). A model that
cannot be asked so (ALiBi, state spaces) gets rows padded to one length, or rows of one length where padding moves its
answers or a row's length turns its rotary embeddings. Logits are computed only where they are read.
"""

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from mixtune.inference.engine import Completion, Request, Sampling, Scores, check_finite
from mixtune.inference.growing_cache import grow_in_place
from mixtune.inference.heartbeat import beat
from mixtune.inference.packed_scoring import PackedScorer, agrees, can_pack, fits, probe, read_sights
from mixtune.inference.text_parts import find_growing, forget_lengths, longest_shared

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LOGITS = 2**28
"""Logits of one batch at most: 1 GiB in float32."""
CPU_PACK_TOKENS, GPU_PACK_TOKENS = 768, 4096
"""Tokens of a packed pass at most: attention within one grows with its square."""


@dataclass(frozen=True)
class _Row:
    """One sequence of a batch, whose `targets` are read at its last positions."""

    request: int
    choice: int
    """Index of the continuation; -1: all of them, one token each, at the last position."""
    ids: tuple[int, ...]
    targets: tuple[int, ...]

    @property
    def num_read(self) -> int:
        """Number of last positions whose logits are read."""
        return 1 if self.choice < 0 else min(len(self.targets), len(self.ids))


class TransformersEngine:
    """A deterministic engine over a Hugging Face model."""

    def __init__(
        self, model: "PreTrainedModel", *, max_length: int, stop_ids: frozenset[int], batch_tokens: int
    ) -> None:
        """Wrap a causal language model of transformers or PEFT in evaluation mode.

        `max_length` and `batch_tokens` are tokens at most: of a sequence, and of a batch with padding and shared
        prefix.
        """
        self.model, self.max_length, self.stop_ids, self.batch_tokens = model, max_length, stop_ids, batch_tokens
        self.device = next(model.parameters()).device
        text = model.config.get_text_config()
        self._vocab, self._growing = int(text.vocab_size), find_growing(model)
        self._longest_shared = longest_shared(text) or 2**63
        # PEFT's own `forward` hides the parameters of the model under it
        unwrapped = getattr(model, "get_base_model", lambda: model)()
        parameters = inspect.signature(unwrapped.forward).parameters
        self._limits_logits = "logits_to_keep" in parameters
        self._has_state_alone = "cache_params" in parameters and "past_key_values" not in parameters
        on_cpu = self.device.type == "cpu"
        self._packed = PackedScorer(
            self._forward,
            self.device,
            model.dtype,
            sights=read_sights(text),
            max_nodes=CPU_PACK_TOKENS if on_cpu else GPU_PACK_TOKENS,
            max_reads=max(1, MAX_LOGITS // self._vocab),
        )

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Return log-probabilities of continuations; see `Engine`."""
        logprobs = [[0.0] * len(request.continuations) for request in requests]
        started = time.perf_counter()
        longest = min(self.max_length, self._longest_shared)
        packed = {number: item for number, item in enumerate(requests) if fits(item, longest)}
        packed = packed if packed and self._packs else {}
        if packed:
            self._packed.score(packed, logprobs)
        self._score_padded({number: item for number, item in enumerate(requests) if number not in packed}, logprobs)
        share = (time.perf_counter() - started) / max(1, len(requests))
        check_finite(value for values in logprobs for value in values)
        lengths = [len(request.context) + max(map(len, request.continuations)) - 1 for request in requests]
        return [
            Scores(logprobs=tuple(values), truncated=length > self.max_length, latency_seconds=share)
            for values, length in zip(logprobs, lengths, strict=True)
        ]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Return a continuation per prompt; see `Engine`."""
        room = max(1, self.max_length - max_new_tokens)
        order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
        completions: dict[int, Completion] = {}
        while order:
            longest = min(room, len(prompts[order[0]]))
            size = max(1, self.batch_tokens // (longest + max_new_tokens))
            if not self._pads or longest + max_new_tokens > self._longest_shared:
                size = min(size, sum(min(room, len(prompts[index])) == longest for index in order))
            batch, order = order[:size], order[size:]
            streams = replace(sampling, stream_ids=tuple(sampling.stream_ids[i] for i in batch)) if sampling else None
            outputs = self._generate_batch([prompts[index][-room:] for index in batch], max_new_tokens, streams)
            for index, output in zip(batch, outputs, strict=True):
                completions[index] = replace(output, truncated=output.truncated or len(prompts[index]) > room)
        return [completions[index] for index in range(len(prompts))]

    @cached_property
    def _pads(self) -> bool:
        """Whether rows of different lengths may share a batch: found out by some, scored so and each alone."""
        rows = list(_rows(dict(enumerate(probe(self._vocab))), self.max_length))
        alone = [self._score_batch([row])[0] for row in rows]
        if not (pads := agrees(self._score_batch(rows), alone, self.model.dtype)):
            print(f"{type(self.model).__name__}: padding moves its answers; only rows of one length share a batch")
        return pads

    @cached_property
    def _caches(self) -> bool:
        """Whether the model goes on from what it keeps of earlier tokens: found out by a few, with that and without."""
        ids = torch.tensor([probe(self._vocab)[0].context[-self.max_length :]], device=self.device)
        mask, positions = torch.ones_like(ids), torch.arange(ids.shape[1], device=self.device)[None]
        cache, logits = None, []
        try:
            for start, end in ((0, -2), (-2, -1), (-1, None)):
                places, part = positions[:, start:end], ids[:, start:end]
                output = self._forward(
                    part, keep=1, past_key_values=cache, attention_mask=mask[:, :end], position_ids=places
                )
                logits.append(output.logits[:, -1:])
                cache = cache or grow_in_place(output.past_key_values)
            whole = self._forward(ids, keep=3, use_cache=False).logits[:, -3:]
            stepwise, at_once = (part.float().log_softmax(-1)[0, :, :8] for part in (torch.cat(logits, 1), whole))
            caches = agrees(stepwise.tolist(), at_once.tolist(), self.model.dtype)
        except (AttributeError, RuntimeError, ValueError, TypeError, IndexError):
            caches = False
        if not caches:
            print(f"{type(self.model).__name__}: its cache is of no use; every token is made from the whole text")
        return caches

    @cached_property
    def _packs(self) -> bool:
        """Whether the model can score tries of tokens: found out by one, scored so and alone."""
        requests = probe(self._vocab)
        packed, alone = ([[0.0] * len(request.continuations) for request in requests] for _ in range(2))
        ids = torch.tensor([requests[0].context], device=self.device)
        if len(requests[0].context) > self.max_length or not self._caches:
            return False
        if not can_pack(self._forward(ids, keep=1).past_key_values):
            return False
        try:
            self._packed.score(dict(enumerate(requests)), packed)
        except (RuntimeError, ValueError, TypeError, IndexError):  # a mask of this form is not for every architecture
            return False
        self._score_padded(dict(enumerate(requests)), alone)
        return agrees(packed, alone, self.model.dtype)

    def _score_padded(self, requests: dict[int, Request], logprobs: list[list[float]]) -> None:
        """Fill in the log-probabilities of requests by rows that are padded to one length."""
        rows = sorted(_rows(requests, self.max_length), key=lambda row: len(row.ids))
        while rows:
            size = self._batch_size(rows)
            batch, rows = rows[:size], rows[size:]
            for row, values in zip(batch, self._score_batch(batch), strict=True):
                if row.choice < 0:
                    logprobs[row.request] = values
                else:
                    logprobs[row.request][row.choice] = sum(values)

    def _batch_size(self, rows: list[_Row]) -> int:
        """Return how many of the rows, shortest first, go into one batch."""
        size, num_read = 0, 0
        for row in rows:
            num_read = max(num_read, row.num_read)
            num_tokens = (size + 1) * len(row.ids)
            shares = self._pads and len(row.ids) <= self._longest_shared
            if size and not shares and len(row.ids) > len(rows[0].ids):
                break
            if size and (num_tokens > self.batch_tokens or (size + 1) * num_read * self._vocab > MAX_LOGITS):
                break
            size += 1
        return size

    def _score_batch(self, rows: list[_Row]) -> list[list[float]]:
        # ids, mask, positions: (rows, longest row), padded on the left, so the last `keep` logits,
        # (rows, keep, vocabulary), are those of real tokens
        ids, mask = _left_pad([row.ids for row in rows], self.device)
        inputs: dict[str, Any] = {"attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        logits = self._forward(ids, keep=max(row.num_read for row in rows), use_cache=self._caches, **inputs).logits
        return [_read_logprobs(logits[index], row) for index, row in enumerate(rows)]

    def _forward(self, ids: torch.Tensor, *, keep: int | torch.Tensor, use_cache: bool = True, **inputs: Any) -> Any:
        """Run the model; `keep` is how many last positions, or which, have logits."""
        limit = {"logits_to_keep": keep} if self._limits_logits else {}
        if self._has_state_alone:  # all that stood before is in it: there are no places, and later no mask
            cache = inputs.get("past_key_values")
            inputs = {"cache_params": cache, "attention_mask": None if cache else inputs.get("attention_mask")}
        forget_lengths(self._growing)
        output = self.model(input_ids=ids, use_cache=use_cache, **inputs, **limit)
        if self._has_state_alone:
            output.past_key_values = output.cache_params
        if not self._limits_logits and isinstance(keep, torch.Tensor):
            output.logits = output.logits[:, keep]
        return output

    def _generate_batch(
        self, prompts: list[Sequence[int]], max_new_tokens: int, sampling: Sampling | None
    ) -> list[Completion]:
        started = time.perf_counter()
        stop_ids = self.stop_ids | (sampling.stop_ids if sampling else frozenset())
        uniforms = torch.tensor(sampling.uniforms(max_new_tokens), device=self.device) if sampling else None
        ids, mask = _left_pad(prompts, self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        answers: list[list[int]] = [[] for _ in prompts]
        seconds, stopped = [0.0] * len(prompts), [False] * len(prompts)
        active, cache = list(range(len(prompts))), None
        for step in range(max_new_tokens):
            # Row r continues prompt active[r]. ids, positions: (rows, new tokens); mask: (rows, all tokens so far);
            # the cache holds every token before ids. Rows that stopped leave all four.
            inputs: dict[str, Any] = {"attention_mask": mask, "position_ids": positions, "past_key_values": cache}
            output = self._forward(ids, keep=1, use_cache=self._caches, **inputs)
            logits = output.logits[:, -1]
            cache = cache or (grow_in_place(output.past_key_values) if self._caches else None)
            largest, tokens = logits.max(-1)
            check_finite(largest.tolist())
            if sampling and uniforms is not None:
                tokens = draw(logits, uniforms[active, step], sampling)
            going_on = []
            for row, (index, token) in enumerate(zip(active, tokens.tolist(), strict=True)):
                seconds[index] = time.perf_counter() - started
                stopped[index] = token in stop_ids
                if not stopped[index]:
                    answers[index].append(token)
                    going_on.append(row)
            if not going_on:
                break
            beat(f"answering: {len(going_on)} of {len(prompts)} go on, token {step + 1} of {max_new_tokens} at most")
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            again = 0 if self._caches else ids.shape[1]  # of the tokens so far, those that the next pass reads
            positions = torch.cat([positions[:, :again], positions[:, -1:] + 1], dim=1)
            ids = torch.cat([ids[:, :again], tokens[:, None]], dim=1)
            if len(going_on) < len(active):
                rows = torch.tensor(going_on, device=self.device)
                if cache:
                    cache.batch_select_indices(rows)
                ids, mask, positions = ids[rows], mask[rows], positions[rows]
                active = [active[row] for row in going_on]
            if cache and mask.shape[1] == self._longest_shared + 1:  # what it keeps was turned as in a shorter text
                ids = torch.tensor([[*prompts[index], *answers[index]] for index in active], device=self.device)
                positions, cache = (mask.cumsum(1) - 1).clamp(min=0), None
        return [
            Completion(token_ids=tuple(answer), truncated=not end, latency_seconds=latency)
            for answer, end, latency in zip(answers, stopped, seconds, strict=True)
        ]


def draw(logits: torch.Tensor, uniforms: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Sample one token per row by inverting its cumulative distribution.

    `logits` are (rows, vocabulary), `uniforms` (rows,) in 0..1, and so are the tokens that are returned.
    """
    probabilities = (logits.double() / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        # (rows, vocabulary): a token belongs to the top where all more probable ones have less than top_p together
        descending = probabilities.sort(-1, descending=True).values
        in_top = descending.cumsum(-1) - descending < sampling.top_p
        smallest = descending.masked_fill(~in_top, 1).amin(-1, keepdim=True)
        probabilities = probabilities.masked_fill(probabilities < smallest, 0)
    cumulative = probabilities.cumsum(-1)
    tokens = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return tokens.clamp(max=logits.shape[-1] - 1)


def _rows(requests: dict[int, Request], max_length: int) -> Iterator[_Row]:
    """Yield the rows of requests: one per continuation, or a single one where all continuations are one token."""
    for index, request in requests.items():
        if all(len(tokens) == 1 for tokens in request.continuations):
            targets = tuple(tokens[0] for tokens in request.continuations)
            yield _Row(index, -1, request.context[-max_length:], targets)
            continue
        for choice, tokens in enumerate(request.continuations):
            yield _Row(index, choice, (request.context + tokens)[:-1][-max_length:], tokens)


def _read_logprobs(logits: torch.Tensor, row: _Row) -> list[float]:
    """Return log-probabilities of a row's targets: all at the last position, or one each at the last ones."""
    last = logits[-row.num_read :].float()
    total = last.logsumexp(-1)
    if row.choice < 0:
        return [float(value) for value in (last[0, list(row.targets)] - total[0]).tolist()]
    targets = torch.tensor(row.targets[-len(last) :], device=logits.device)
    return [float(value) for value in (last.gather(1, targets[:, None])[:, 0] - total).double().tolist()]


def _left_pad(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask, (rows, longest), padded on the left, so that every last position is a real one."""
    longest = max(map(len, sequences))
    ids = [[0] * (longest - len(tokens)) + list(tokens) for tokens in sequences]
    mask = [[0] * (longest - len(tokens)) + [1] * len(tokens) for tokens in sequences]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
