"""What the checks of `gpu.py` share: sizes for a GPU and for a CPU, random records and models, clocks, outcomes."""

import gc
import itertools
import math
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from mixtune.artifacts.shards import TokenRecord
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import TrainSettings
from mixtune.train.checkpoints import NoCheckpoints
from mixtune.train.distributed import SINGLE_PROCESS, ProcessGroup
from mixtune.train.divergence_guard import DivergenceGuard
from mixtune.train.loop import train_step
from mixtune.train.metrics import StepMetrics
from mixtune.train.modeling import kernels, trainable
from mixtune.train.modeling.attention import attention_names, settle_attention
from mixtune.train.modeling.speed import compile_layers
from mixtune.train.modeling.trainable import Trainable, load_trainable, make_optimizer
from mixtune.train.trainer import Trainer

LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072, "rope_theta": 5e5,
    "tie_word_embeddings": False,
}  # fmt: skip
TINY = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One figure and whether it is as it should be."""

    words: str
    value: float
    holds: bool | None
    """None: recorded, or not judged on this device."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one check came to."""

    number: int
    part: str
    title: str
    expectations: list[Expectation]
    seconds: float
    trouble: str = ""
    """A traceback's end, where it did not run through; or why it was left out."""
    left_out: bool = False

    @property
    def status(self) -> str:
        """`pass`, `FAIL`, `recorded` or `left out`."""
        if self.left_out:
            return "left out"
        if self.trouble or any(item.holds is False for item in self.expectations):
            return "FAIL"
        return "pass" if any(item.holds for item in self.expectations) else "recorded"


class LeftOutError(Exception):
    """A check cannot be made here, with the reason."""


@dataclass(kw_only=True)
class Bench:
    """The device and the sizes that the checks are made with; `tiny` is for a CPU, where no speed is judged."""

    device: torch.device
    tiny: bool
    scratch: Path
    expectations: list[Expectation] = field(default_factory=list)
    seed: int = 0

    @property
    def is_gpu(self) -> bool:
        """Whether kernels, speeds and memory are a GPU's."""
        return self.device.type == "cuda"

    @property
    def repeats(self) -> int:
        """Timed runs, after 3 warm-ups."""
        return 1 if self.tiny else 5

    def size(self, full: int, tiny: int) -> int:
        """Return a size for this device."""
        return tiny if self.tiny else full

    def expect(self, words: str, value: float, holds: bool) -> None:
        """Judge a figure that must hold on any device."""
        self.expectations.append(Expectation(words=words, value=float(value), holds=bool(holds)))

    def expect_on_gpu(self, words: str, value: float, holds: bool) -> None:
        """Judge a figure of a GPU; on a CPU it is only recorded."""
        holds_here = bool(holds) if self.is_gpu and not self.tiny else None
        self.expectations.append(Expectation(words=words, value=float(value), holds=holds_here))

    def record(self, words: str, value: float) -> None:
        """Record a figure."""
        self.expectations.append(Expectation(words=words, value=float(value), holds=None))

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.is_gpu:
            torch.cuda.synchronize()

    def time(self, function: Callable[[], Any]) -> float:
        """Return the median seconds of a call."""
        for _ in range(0 if self.tiny else 3):
            function()
        seconds = []
        for _ in range(self.repeats):
            self.synchronize()
            begin = time.perf_counter()
            function()
            self.synchronize()
            seconds.append(time.perf_counter() - begin)
        return statistics.median(seconds)

    def free(self) -> None:
        """Give memory back, and count its peak anew."""
        gc.collect()
        torch._dynamo.config.suppress_errors = False
        torch._dynamo.reset()
        if self.is_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> float:
        """Return the peak of the device's memory since `free`; 0 on a CPU."""
        return float(torch.cuda.max_memory_allocated()) if self.is_gpu else 0.0

    def records(self, lengths: list[int], vocabulary: int, loss_share: float = 1.0) -> list[TokenRecord]:
        """Return random records of those lengths, of which the last part is learned."""
        self.seed += 1
        draw = np.random.default_rng(self.seed)
        return [
            TokenRecord(
                pool=0,
                record_id=f"{number:032x}",
                input_ids=draw.integers(5, vocabulary, length).astype(np.int32),
                loss_mask=(np.arange(length) >= length * (1 - loss_share)).astype(np.uint8),
                weight=1.0,
            )
            for number, length in enumerate(lengths)
        ]

    def config(self, **changes: Any) -> Any:
        """Return the configuration of Llama 3 8B, or a tiny one, with changes."""
        return AutoConfig.for_model(
            "llama", **{**(TINY if self.tiny else LLAMA_8B), **(changes if not self.tiny else {})}
        )

    def model(self, config: Any, group: ProcessGroup = SINGLE_PROCESS, **options: Any) -> Trainable:
        """Return a model of random weights, made on the device and prepared as a training's."""
        given = settings(**options)
        device, choice = self.device, given.memory.compiled

        def make(folder: Path, dtype: Any, names: tuple[str, ...]) -> Any:
            attention = {"attn_implementation": names[0]} if names else {}
            with device:
                kind = torch.float32 if dtype == "auto" else dtype
                return AutoModelForCausalLM.from_config(config, dtype=kind, **attention)

        with patch.object(trainable, "load_with_attention", make):
            model = load_trainable(self.scratch, given, group)
        # Not as many tokens as a tiny model is wide: its layers would be compiled for that length alone.
        records = self.records([16, 15], config.get_text_config().vocab_size)
        settle_attention(model.loss, records, attention_names(model.loss.dtype))
        if choice == "yes" or (not choice and self.is_gpu):
            reason = compile_layers(model.loss, records, "inductor" if self.is_gpu else "eager")
            self.expect("compiled" + (f" ({reason})" if reason else ""), float(not reason), not reason)
        return model

    def trainer(self, model: Trainable, batches: list[list[TokenRecord]], **options: Any) -> Trainer:
        """Return a training over these global batches, again and again."""
        given: Any = settings(**options)
        return Trainer(
            settings=given,
            shards=RandomShards(batches),  # type: ignore[arg-type]
            model=model,
            optimizer=make_optimizer(model, given),
            group=SINGLE_PROCESS,
            guard=DivergenceGuard(replace(given, guards=replace(given.guards, max_loss_rise=0, max_grad_ratio=0))),
            num_steps=10**6,
            max_micro_tokens=given.memory.max_tokens_per_gpu or 16384,
            lr_schedule=lambda step: 1.0,
        )

    def steps(self, trainer: Trainer, count: int) -> list[StepMetrics]:
        """Train so many steps."""
        flags = NoCheckpoints(trainer.group).stop_and_save_flags()
        return [train_step(trainer, step, 1, flags)[0] for step in range(count)]


class RandomShards:
    """Global batches in memory, in the place of shards."""

    pools = ("random",)

    def __init__(self, batches: list[list[TokenRecord]]) -> None:
        self.batches, self.num_steps = batches, 10**6

    def step(self, step: int) -> list[TokenRecord]:
        """Return a global batch."""
        return self.batches[step % len(self.batches)]


def settings(**options: Any) -> TrainSettings:
    """Return training settings; LoRA where nothing else is said."""
    return from_dict(TrainSettings, {"method": "lora", "learning_rate": 1e-4, **options}, "settings")


def plain_varlen(q: Any, k: Any, v: Any, starts: Any, *_: Any, scale: Any, window_size: Any, **__: Any) -> torch.Tensor:
    """Attention within records by plain arithmetic, in the dtype that it gets: the reference, and a CPU's stand-in."""
    if not q.shape[-1] == k.shape[-1] == v.shape[-1] <= 256:
        raise RuntimeError("head dimension at most 256, the same of query, key and value")
    out, edges = [], starts.tolist()
    for begin, end in itertools.pairwise(edges):
        query, key, value = (part[begin:end].transpose(0, 1) for part in (q, k, v))
        key, value = (part.repeat_interleave(len(query) // len(key), 0) for part in (key, value))
        scores = query @ key.transpose(1, 2) * (scale or q.shape[-1] ** -0.5)
        row = torch.arange(end - begin, device=q.device)
        apart = row[:, None] - row[None]
        outside = (apart < 0) | ((apart > window_size[0]) if window_size[0] >= 0 else torch.zeros_like(apart).bool())
        out.append((scores.masked_fill(outside, -math.inf).softmax(-1) @ value).transpose(0, 1))
    return torch.cat(out)


@contextmanager
def attention_of(bench: Bench) -> Iterator[None]:
    """On a CPU, let plain arithmetic stand in for the GPU's kernel."""
    if bench.is_gpu:
        yield
        return
    with patch.object(kernels, "varlen_attn", plain_varlen):
        yield


Check = Callable[[Bench], None]
CHECKS: dict[int, tuple[str, str, Check]] = {}
"""By number: part, title, function."""


def check(number: int, part: str, title: str) -> Callable[[Check], Check]:
    """Register a check."""

    def register(function: Check) -> Check:
        CHECKS[number] = (part, title, function)
        return function

    return register


def run_check(number: int, bench: Bench) -> Outcome:
    """Make one check; whatever goes wrong in it is its outcome, and the next one is made all the same."""
    part, title, function = CHECKS[number]
    bench.expectations = []
    trouble, left_out, begin = "", False, time.perf_counter()
    try:
        function(bench)
    except LeftOutError as error:
        trouble, left_out = str(error), True
    except Exception:
        trouble = traceback.format_exc()[-1500:]
    seconds = time.perf_counter() - begin
    bench.free()
    return Outcome(
        number=number,
        part=part,
        title=title,
        expectations=list(bench.expectations),
        seconds=seconds,
        trouble=trouble,
        left_out=left_out,
    )


def as_row(outcome: Outcome) -> str:
    """Return a line of the table."""
    figures = "; ".join(
        f"{item.words} {item.value:.4g}{'' if item.holds is not False else ' (!)'}" for item in outcome.expectations
    )
    trouble = outcome.trouble.strip().splitlines()[-1][:160] if outcome.trouble else ""
    return f"| {outcome.number} | {outcome.title} | {outcome.status} | {'; '.join(filter(None, [figures, trouble]))} | {outcome.seconds:.0f} |"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome for machines."""
    return {**asdict(outcome), "status": outcome.status}
