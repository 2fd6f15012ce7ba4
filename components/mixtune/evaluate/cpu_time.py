"""How long an evaluation takes on a CPU, before it runs: the tokens that its plan asks for, by this machine's speed."""

import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixtune.evaluate.benchmark_checks import BenchmarkPlans
from mixtune.inference.engine import Completion, Request, Sampling, Scores
from mixtune.inference.parallel import Part
from mixtune.inference.prompts import encode
from mixtune.inference.token_trie import make_tries, shared_prefix
from mixtune.settings.inference import THOUGHTS_BOTH, TRANSFORMERS

SAMPLED_PARTS, SAMPLED_ITEMS = 8, 4
"""Parts of an axis, and items of each of them, whose tokens tell of all."""
MEASURED_SECONDS = 0.3
ROWS = 512
"""Tokens that are multiplied at once where the speed is measured; a pass has some hundreds."""
SPREAD = 2.0
"""An evaluation takes between the estimate and so many times that."""


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Records that a run will hold back and ask: how many, and how long they are by a sample of their lines."""

    axis: str
    num_items: int
    lines: tuple[str, ...]
    new_tokens: int = 0
    """Tokens of an answer at most; 0: it is scored."""


class CountingEngine:
    """An engine that computes nothing, and counts the tokens that a model would have to go through."""

    def __init__(self, max_length: int) -> None:
        """Begin with none; a sequence has at most `max_length` tokens (0: not known)."""
        self.max_length = max_length or sys.maxsize
        self.shared = 0
        """Tokens that all requests begin with, which are computed once."""
        self.own = 0

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """Count what requests do not have in common; too long ones are cut, and asked for each continuation."""
        lengths = [len(request.context) + max(map(len, request.continuations)) for request in requests]
        whole = [item for item, length in zip(requests, lengths, strict=True) if length <= self.max_length]
        self.own += sum(self.max_length * len(item.continuations) for item in requests if item not in whole)
        self.shared = shared_prefix([request.context for request in whole]) if whole else 0
        unlimited = sum(lengths) * max((len(request.continuations) for request in requests), default=1)
        tries = make_tries(dict(enumerate(whole)), self.shared, max_nodes=unlimited, max_reads=unlimited)
        self.own += sum(len(trie.ids) for trie in tries)
        return [
            Scores(logprobs=(0.0,) * len(request.continuations), truncated=False, latency_seconds=0.0)
            for request in requests
        ]

    def generate(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, sampling: Sampling | None = None
    ) -> list[Completion]:
        """Count the prompts and the longest answers that are allowed; each answer is empty."""
        self.own += sum(min(len(prompt) + max_new_tokens, self.max_length) for prompt in prompts)
        return [Completion(token_ids=(), truncated=False, latency_seconds=0.0) for _ in prompts]


def count_tokens(parts: Sequence[Part], max_length: int) -> float:
    """Return about how many tokens a model goes through for an axis's parts, by asking some of their items."""
    tokens, items = 0.0, 0
    step = max(1, len(parts) // SAMPLED_PARTS)
    for part in parts[::step][:SAMPLED_PARTS]:
        engine, sample = CountingEngine(max_length), part.items[:SAMPLED_ITEMS]
        part.score_items(sample, engine)
        tokens += engine.shared + engine.own * part.num_items / len(sample)
        items += part.num_items
    return tokens / items * sum(part.num_items for part in parts)


def count_axes(plans: BenchmarkPlans, held_out: Sequence[HeldOut]) -> dict[str, float]:
    """Return about how many tokens each axis takes; tasks of lm-eval, which plan themselves, are left out."""
    settings, tokens = plans.settings, dict[str, float]()
    for name, parts in plans.parts.items():
        if plans.parsed[name].form.has_items:
            again = 2 if settings.thinking == THOUGHTS_BOTH and parts[0].new_tokens else 1
            tokens[name] = again * count_tokens(parts, plans.max_length)
    for records in held_out:
        count = min(records.num_items, settings.limit_of(records.axis) or records.num_items)
        mean = sum(len(encode(plans.tokenizer, line)) for line in records.lines) / max(1, len(records.lines))
        if count and mean:
            tokens[records.axis] = count * (mean + records.new_tokens)
    return tokens


def is_on_cpu(plans: BenchmarkPlans) -> bool:
    """Return whether this machine's CPU would evaluate: it is no pod, the engine is transformers, there is no GPU."""
    if os.environ.get("KUBERNETES_SERVICE_HOST") or plans.settings.engine != TRANSFORMERS:
        return False
    try:
        import torch
    except ImportError:
        return False
    return not torch.cuda.is_available()


def measure_speed(hidden: int, inner: int, dtype: str) -> float:
    """Return this CPU's operations a second in products of matrices of a model's own widths."""
    import torch

    from mixtune.inference.loading import DTYPES

    kind = DTYPES.get(dtype, torch.float32)
    rows, matrix = torch.ones(ROWS, hidden, dtype=kind), torch.ones(hidden, inner, dtype=kind)
    rows @ matrix  # the first one sets up
    products, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < MEASURED_SECONDS or not products:
        rows @ matrix
        products += 1
    return 2.0 * ROWS * hidden * inner * products / seconds


def estimate_seconds(tokens: Mapping[str, float], values: int, speed: float) -> dict[str, float]:
    """Return the least seconds that each axis takes: two operations for each value of a model and token."""
    return {axis: 2 * values * count / speed for axis, count in tokens.items()}


def describe(seconds: Mapping[str, float]) -> str:
    """Return in one line how long a model's evaluation takes, with each axis's share at its longest."""
    least, most = sum(seconds.values()), SPREAD * sum(seconds.values())
    if most < 60:
        return "on this CPU under a minute a model"
    unit, size = ("hours", 3600) if least >= 5400 else ("minutes", 60)
    between = f"about {least / size:,.0f} to" if least >= size else "at most"
    shares = ", ".join(f"{axis} {max(0.1, SPREAD * value / size):,.1f}" for axis, value in seconds.items())
    return f"on this CPU {between} {math.ceil(most / size):,} {unit} a model (at most: {shares})"
