"""The answers that a model in training gives itself: sampled with the weights of the step, from seeds of the step.

An answer depends on seed, step and place, not on who writes it: prompts are cut into as many parts as the global batch
is, and each part is written by one process.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from mixtune.artifacts.shards import TokenRecord
from mixtune.inference.engine import Sampling
from mixtune.inference.transformers_engine import TransformersEngine, draw
from mixtune.train.batches import Layout, assign_to_ranks, pack, plan_layout
from mixtune.train.distributed import ProcessGroup
from mixtune.train.modeling.attention import OWN
from mixtune.train.modeling.kernels import PACKED_ATTENTION
from mixtune.train.modeling.loss import PackedLoss, evaluate_tokens
from mixtune.train.modeling.trainable import Trainable

PLACES = 2**20
"""Random streams of a step, one for each place of its global batch."""
CPU_TOKENS, GPU_TOKENS = 16_384, 65_536
"""Tokens of prompts and answers that are written at once, at most."""


@dataclass(frozen=True, kw_only=True)
class AnswerWriter:
    """Samples answers to prompts with a model as it is."""

    model: Trainable
    group: ProcessGroup
    max_new_tokens: int
    temperature: float
    seed: int
    stop_ids: frozenset[int]
    """Tokens that end an answer."""
    max_length: int
    """Tokens that the model takes."""

    def cut(self, prompt: np.ndarray) -> np.ndarray:
        """Return a prompt's last tokens, as many as leave room for an answer."""
        return prompt[-max(1, self.max_length - self.max_new_tokens) :]

    def write(self, prompts: Sequence[np.ndarray], step: int, num_parts: int) -> list[list[int]]:
        """Return an answer's tokens for every prompt of a step, with the one that ends it; all processes call this.

        Each prompt has room for an answer; they are cut into `num_parts` at most.
        """
        if not prompts:
            return []
        lengths = [len(prompt) + self.max_new_tokens for prompt in prompts]
        loss, shares = self.model.loss, not self.model.is_sharded
        layout = Layout.PACKED if shares or loss.layout is not Layout.SINGLE else Layout.SINGLE
        longest = 0 if shares else loss.longest_shared
        parts = plan_layout(layout, lengths, sum(lengths), num_parts, longest_shared=longest)
        ranks = assign_to_ranks([sum(lengths[index] for index in part) for part in parts], self.group.size)
        mine, write = [parts[number] for number in ranks[self.group.rank]], self._write
        if self.model.is_sharded:
            # Processes that share a sharded model meet at every layer: all write as often, the last part again.
            mine += [(mine or parts)[-1]] * (max(map(len, ranks)) - len(mine))
            write = self._write_sharded
        # (prompts, longest answer) tokens, one higher; 0: none. Every row is filled in by one process.
        table = torch.zeros(len(prompts), self.max_new_tokens, dtype=torch.int64, device=self.group.device)
        for number, part in enumerate(mine):
            sampling = self._sampling([step * PLACES + index for index in part])
            answers = write([prompts[index] for index in part], sampling)
            if number >= len(ranks[self.group.rank]):
                continue
            for index, answer in zip(part, answers, strict=True):
                table[index, : len(answer)] = torch.tensor(answer, device=table.device) + 1
        rows = self.group.all_reduce_sum(table).tolist()
        return [[token - 1 for token in row if token] for row in rows]

    def _sampling(self, streams: list[int]) -> Sampling:
        return Sampling(temperature=self.temperature, top_p=1.0, seed=self.seed, stream_ids=tuple(streams))

    def _write(self, prompts: list[np.ndarray], sampling: Sampling) -> list[list[int]]:
        """Write by the engine that evaluates models, which keeps keys and values."""
        with as_written(self.model.loss), self.model.loss.precision(self.group.device):
            engine = TransformersEngine(
                self.model.causal,
                max_length=max(map(len, prompts)) + self.max_new_tokens,
                stop_ids=self.stop_ids,
                batch_tokens=CPU_TOKENS if self.group.on_cpu else GPU_TOKENS,
            )
            completions = engine.generate([prompt.tolist() for prompt in prompts], self.max_new_tokens, sampling)
        end = min(self.stop_ids, default=0)  # whichever ended it: no later token sees it
        return [[*item.token_ids, *([] if item.truncated else [end])] for item in completions]

    def _write_sharded(self, prompts: list[np.ndarray], sampling: Sampling) -> list[list[int]]:
        """Write by reading everything again for every token: a sharded model is gathered for every token anyway."""
        uniforms = torch.from_numpy(sampling.uniforms(self.max_new_tokens)).to(self.group.device)
        answers: list[list[int]] = [[] for _ in prompts]
        open_rows = list(range(len(prompts)))
        for number in range(self.max_new_tokens):
            if not self.group.any_process(bool(open_rows)):
                break
            rows = open_rows or [0]
            packed = pack([_asking(prompts[row], answers[row]) for row in rows]).to(self.group.device)
            logits = evaluate_tokens(self.model.loss, packed, lambda logits, _ids: logits)
            tokens = draw(logits, uniforms[rows, number], sampling).tolist()
            for row, token in zip(open_rows, tokens, strict=False):
                answers[row].append(token)
            open_rows = [row for row in open_rows if answers[row][-1] not in self.stop_ids]
        return answers


def _asking(prompt: np.ndarray, answer: list[int]) -> TokenRecord:
    """Return a record of which the token behind a text is one to learn: what predicts it is what comes next."""
    ids = np.concatenate([prompt, np.array([*answer, 0], np.int32)]).astype(np.int32)
    mask = np.zeros(len(ids), np.uint8)
    mask[-1] = 1
    return TokenRecord(pool=0, record_id="", input_ids=ids, loss_mask=mask, weight=1.0)


def answered(record: TokenRecord, prompt: np.ndarray, answer: list[int]) -> TokenRecord:
    """Return a record with another prompt and answer; the answer is what is learned."""
    ids = np.concatenate([prompt, np.array(answer, np.int32)]).astype(np.int32)
    mask = (np.arange(len(ids)) >= len(prompt)).astype(np.uint8)
    return replace(record, input_ids=ids, loss_mask=mask)


def prompt_of(record: TokenRecord) -> np.ndarray:
    """Return the tokens up to the last turn that is learned."""
    starts = np.flatnonzero(np.diff(record.loss_mask.astype(np.int8)) == 1) + 1
    return record.input_ids[: starts[-1]] if starts.size else record.input_ids


@contextmanager
def as_written(loss: PackedLoss) -> Iterator[None]:
    """While the block runs, a model can generate: layers run as they are written, by attention that takes a mask."""
    causal, training = loss.causal, loss.training
    layers = [part for part in loss.modules() if isinstance(part, GradientCheckpointingLayer)]
    compiled = [part._compiled_call_impl for part in layers]
    attention = causal.config._attn_implementation
    loss.eval()
    for part in layers:
        part._compiled_call_impl = None
    if attention in PACKED_ATTENTION:
        for name in OWN:
            causal.set_attn_implementation(name)
            if causal.config._attn_implementation == name:
                break
    try:
        yield
    finally:
        if causal.config._attn_implementation != attention:
            causal.set_attn_implementation(attention)
        for part, call in zip(layers, compiled, strict=True):
            part._compiled_call_impl = call
        loss.train(training)
