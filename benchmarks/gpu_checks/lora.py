"""Part `lora`: Llama 3 8B with an adapter, as by default and by every means."""

from typing import Any
from unittest.mock import patch

import torch

from mixtune.preflight.memory import estimate_memory, training_on_gpus
from mixtune.preflight.shape import Shape
from mixtune.train import loop, metrics
from mixtune.train.batches import pack
from mixtune.train.modeling import trainable
from mixtune.train.modeling.kernels import varlen_attention
from mixtune.training_math import LOGITS_AT_ONCE

from .bench import Bench, attention_of, check, settings

PART = "lora"
PEAK_TFLOPS = 989.0
"""Of an H100 or H200 in bfloat16, dense: what utilisation is given of."""


def speed(bench: Bench, lengths: list[int], steps: int = 6, **options: Any) -> tuple[float, float, float]:
    """Train an 8B model of random weights and return tokens a second, share of the peak, and bytes at the peak."""
    config = bench.config()
    options = {"method": "lora", **options}
    memory = {"max_tokens_per_gpu": sum(lengths), **options.pop("memory", {})}
    bench.free()
    with attention_of(bench):
        model = bench.model(config, memory=memory, **options)
        trainer = bench.trainer(model, [bench.records(lengths, config.vocab_size)], memory=memory, **options)
        history = bench.steps(trainer, bench.size(steps, 2))[-1 if bench.tiny else -3 :]
    seconds = sum(sum(item.seconds.values()) for item in history)
    rate = sum(item.num_tokens for item in history) / seconds
    share = sum(item.operations for item in history) / seconds / PEAK_TFLOPS / 1e12
    bench.expect("loss is finite", history[-1].loss, history[-1].loss == history[-1].loss)
    return rate, share, bench.peak()


def estimate(bench: Bench, tokens: int, **options: Any) -> float:
    """Return the bytes that preflight estimates."""
    shape = Shape.from_config(bench.config().to_dict())
    return float(estimate_memory(shape, training_on_gpus(settings(**options), tokens)).total)


@check(14, PART, "8B, 4 records of 4,096, as by default")
def default(bench: Bench) -> None:
    """What a user gets who sets nothing."""
    rate, share, _ = speed(bench, [bench.size(4096, 12)] * 4, steps=8)
    bench.expect_on_gpu("tokens/s, above 9,000", rate, rate >= 9000)
    bench.expect_on_gpu("of the peak, above 0.30", share, share >= 0.30)


@check(15, PART, "peak memory beside the estimate, up to 65,536 tokens")
def memory(bench: Bench) -> None:
    """Three sizes of a micro batch, the last one record."""
    for lengths in ([4096], [4096] * 4, [65536]) if not bench.tiny else ([12], [12] * 4, [40]):
        _, _, peak = speed(bench, list(lengths), steps=2)
        ratio = estimate(bench, sum(lengths)) / max(peak, 1.0)
        bench.expect_on_gpu(f"{sum(lengths)} tokens: estimate over measured, 0.85 to 1.15", ratio, 0.85 < ratio < 1.15)
        bench.expect_on_gpu(f"{sum(lengths)} tokens: GB, below 72", peak / 1e9, peak < 72e9)


@check(16, PART, "the ladder: each means by itself and all together")
def ladder(bench: Bench) -> None:
    """Casts, compiled layers, kept activations, chunks of logits."""
    long, short = [bench.size(4096, 12)] * 4, [bench.size(4096, 12)] * 2
    rates: dict[str, float] = {}
    with (
        patch.object(trainable, "skip_casts", lambda model: None),
        patch("mixtune.train.modeling.loss.logits_at_once", lambda *, gpu: LOGITS_AT_ONCE),
    ):
        rates["with casts, small chunks"], _, _ = speed(bench, long, memory={"compiled": "no"})
    with patch("mixtune.train.modeling.loss.logits_at_once", lambda *, gpu: LOGITS_AT_ONCE):
        rates["no casts"], _, _ = speed(bench, long, memory={"compiled": "no"})
    rates["large chunks"], _, _ = speed(bench, long, memory={"compiled": "no"})
    rates["compiled"], _, _ = speed(bench, long, memory={"compiled": "yes"})
    rates["kept, 8,192"], share, _ = speed(bench, short, memory={"compiled": "yes", "activations": "keep"})
    before = 0.0
    for name, rate in rates.items():
        bench.expect_on_gpu(f"{name}: tokens/s", rate, rate >= 0.98 * before)
        before = rate
    bench.expect_on_gpu("all: of the peak, above 0.40", share, share >= 0.40)


@check(17, PART, "small micro batches")
def small(bench: Bench) -> None:
    """Where the host bounds the step."""
    rates = [speed(bench, [bench.size(tokens, tokens // 64)])[0] for tokens in (512, 2048, 8192)]
    for tokens, rate in zip((512, 2048, 8192), rates, strict=True):
        bench.record(f"{tokens} tokens: tokens/s", rate)
    bench.expect_on_gpu("2,048 over 8,192, above 0.7", rates[1] / rates[2], rates[1] > 0.7 * rates[2])


@check(18, PART, "what it costs to time the phases")
def clock(bench: Bench) -> None:
    """A step with and without its synchronisations."""
    lengths = [bench.size(4096, 12)] * 4
    rates = [speed(bench, lengths)[0]]

    class Quiet(metrics.PhaseTimer):
        def stop(self, phase: str) -> None:
            if phase == "step":
                super().stop(phase)

    with patch.object(loop, "PhaseTimer", Quiet):
        rates.append(speed(bench, lengths)[0])
    bench.expect_on_gpu("cost, share, below 0.02", rates[1] / rates[0] - 1, rates[1] / rates[0] < 1.02)


@check(19, PART, "out of memory, and on")
def too_large(bench: Bench) -> None:
    """A micro batch that does not fit ends in an error, and the next step runs."""
    with attention_of(bench):
        model = bench.model(bench.config(), memory={"compiled": "no"})
        if bench.is_gpu and not bench.tiny:
            huge = pack(bench.records([100_000] * 8, 500)).to(bench.device)
            try:
                model.loss(huge).sum().backward()
                bench.expect_on_gpu("800,000 tokens do not fit", 0.0, False)
            except torch.OutOfMemoryError:
                bench.expect_on_gpu("800,000 tokens do not fit", 1.0, True)
            del huge
            torch.cuda.empty_cache()
        value = float(model.loss(pack(bench.records([bench.size(1024, 12)], 500)).to(bench.device)).detach().mean())
    bench.expect("the next loss is finite", value, value == value)


@check(20, PART, "attention's own speed")
def attention_speed(bench: Bench) -> None:
    """Forward and backward at 8B's widths."""
    for count, length in ((4, 4096), (1, 16384), (1, 65536)) if not bench.tiny else ((2, 16),):
        heads, width, tokens = (32, 128, count * length) if not bench.tiny else (4, 8, count * length)
        parts = [
            torch.randn(1, number, tokens, width, device=bench.device, dtype=torch.bfloat16, requires_grad=True)
            for number in (heads, heads // 4, heads // 4)
        ]
        starts = torch.arange(0, tokens + 1, length, dtype=torch.int32, device=bench.device)
        options: dict[str, Any] = {"cu_seq_lens_q": starts, "max_length_q": length}
        with attention_of(bench):

            def forward(parts: list[torch.Tensor] = parts, options: dict[str, Any] = options) -> torch.Tensor:
                return varlen_attention(torch.nn.Module(), parts[0], parts[1], parts[2], None, **options)[0]

            ahead = bench.time(forward)
            both = bench.time(lambda: forward().sum().backward())
        # Two products of (length, length / 2) by width, forward; five backward.
        operations = 2 * count * heads * length * length * width
        bench.expect_on_gpu(
            f"{count}x{length}: forward TFLOP/s, above 300", operations / ahead / 1e12, operations / ahead > 300e12
        )
        back = 2.5 * operations / max(both - ahead, 1e-9) / 1e12
        bench.expect_on_gpu(f"{count}x{length}: backward TFLOP/s, above 230", back, back > 230)
