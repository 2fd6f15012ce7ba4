"""The validation run: a few steps before the expensive part, then the largest micro batch that the training can meet.

Its figures lie in the model's manifest, as any training's do, for `mixtune plan --measured`.
"""

from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch

from mixtune.artifacts.model import TrainedModel, TrainingFigures
from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import TrainingError
from mixtune.inference.heartbeat import duration
from mixtune.processes import free_memory, memory_limit
from mixtune.train.batches import Layout, largest_micro_batch, pack
from mixtune.train.checkpoints import NoCheckpoints
from mixtune.train.loop import batch_loss, train_steps
from mixtune.train.metrics import StepMetrics, loss_curves, peak_memory, summarize, track
from mixtune.train.run import open_session, prepare, write_manifest
from mixtune.train.task import TrainTask
from mixtune.train.trainer import Trainer

RISE = 1.02
"""Factor by which the first batch's loss may be higher after the steps: rounding in bfloat16, and dropout."""


def run_validation(task: TrainTask) -> TrainedModel:
    """Train for a few steps, warming up over all of them, and make sure that the training learns and fits.

    No model is kept; its manifest has the figures.

    Raises:
        TrainingError: Loss or gradient is not finite, the loss of the first batch did not fall, or the largest micro
            batch does not fit.
        ModelError: The base model cannot be used.
        ConfigError: Its tokenizer is not the one that the shards were made with.
    """
    with open_session(task, "validate-training") as session:
        trainer = prepare(session)
        whole, num_steps = trainer.num_steps, min(task.validation_steps, trainer.num_steps)
        trainer = replace(trainer, num_steps=num_steps, lr_schedule=lambda step: (step + 1) / num_steps)
        steps = train_steps(trainer, NoCheckpoints(trainer.group))
        history = track(steps, num_steps, session.run) if trainer.group.is_main else list(steps)
        figures = check_learning(trainer, history, summarize(trainer, history))
        figures = measure_memory(MemoryProbe.of(trainer), figures)
        trainer.model.check_finite()
        if trainer.group.is_main:
            write_manifest(session, trainer, figures, [], loss_curves(trainer, history))
            print(foretell(history, whole), flush=True)
        return TrainedModel("")


def foretell(history: list[StepMetrics], num_steps: int) -> str:
    """Return how long the training will take at the speed of the steps after the first, which also warms up."""
    measured = history[1:] or history
    seconds = sum(sum(item.seconds.values()) for item in measured) / len(measured) * num_steps
    return f"the training's {num_steps:,} steps will take about {duration(seconds)} at this speed"


def check_learning(trainer: Trainer, history: list[StepMetrics], figures: TrainingFigures) -> TrainingFigures:
    """Compare the loss of the first batch before and after the steps; a TrainingError where it did not fall."""
    before, after = history[0].loss, batch_loss(trainer, 0)
    if not after <= before * RISE:
        raise TrainingError(
            f"validation run: the loss of the first batch went from {before:.3f} to {after:.3f} in {len(history)} "
            "steps over these very records; lower learning_rate"
        )
    return replace(figures, first_batch_loss=before, first_batch_loss_after=after)


@dataclass(frozen=True, kw_only=True)
class MemoryProbe:
    """Runs micro batches of any size, from which nothing is learned, and sees how much memory they take."""

    trainer: Trainer
    """After its steps: its optimizer has its state."""
    lengths: tuple[int, ...]
    """Tokens of the records of the training's largest micro batch."""
    limit_bytes: float
    """That this process may fill."""

    @classmethod
    def of(cls, trainer: Trainer) -> "MemoryProbe":
        """Return a probe of the training's own sizes on this process's device."""
        shards, crossover = trainer.shards, trainer.model.crossover_length
        batches = (shards.lengths(step) for step in range(shards.num_steps))
        layout, size = trainer.model.loss.layout, trainer.group.size
        lengths = largest_micro_batch(batches, trainer.max_micro_tokens, size, crossover, layout)
        return cls(trainer=trainer, lengths=tuple(lengths), limit_bytes=fillable_memory(trainer.group.device))

    @property
    def largest_micro_batch(self) -> int:
        """Tokens of the training's largest micro batch."""
        return sum(self.lengths)

    def peak_bytes(self, num_tokens: int) -> float:
        """Run the largest micro batch, or its first `num_tokens`, forward and backward and return the peak of memory.

        Raises:
            RuntimeError: It does not fit; a MemoryError, or an error that says so.
        """
        trainer = self.trainer
        if trainer.group.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.group.device)
        before = accumulate((0, *self.lengths[:-1]))
        cut = [min(length, num_tokens - start) for length, start in zip(self.lengths, before, strict=True)]
        lengths = [length for length in cut if length > 1]
        pattern = trainer.shards.step(0)[0]
        packed = pack([_stretched(pattern, length) for length in lengths]).to(trainer.group.device)
        if trainer.model.dropout:
            in_rows = trainer.model.loss.layout is Layout.ROWS
            trainer.model.dropout.begin_micro_batch(range(len(lengths)), lengths, in_rows=in_rows)
        trainer.model.loss(packed).sum().backward()
        trainer.optimizer.zero_grad(set_to_none=True)
        return peak_memory(trainer.group.device)

    def refusal(self, num_tokens: int, needed: float) -> TrainingError:
        """Return the error that says what does not fit, and the way out."""
        whole_record = len(self.lengths) == 1
        ways = ["more or larger GPUs", "max_length (records)" if whole_record else "max_tokens_per_gpu"]
        if self.trainer.settings.method == "sft":
            ways.append("method lora")
        about = f"about {needed / 1e9:.1f} GB" if needed > self.limit_bytes else "more than that"
        return TrainingError(
            f"validation run: a micro batch of {num_tokens:,} tokens does not fit into {self.limit_bytes / 1e9:.1f} "
            f"GB, it takes {about}; the way out is {' or '.join(ways)}"
        )


def measure_memory(probe: MemoryProbe, figures: TrainingFigures) -> TrainingFigures:
    """Try the largest micro batch, after a quarter and a half of it have shown that it should fit.

    Raises:
        TrainingError: It does not fit.
    """
    tokens = probe.largest_micro_batch
    quarter, half = max(2, tokens // 4), max(2, tokens // 2)
    peaks = [_peak_or_refusal(probe, quarter, 0.0)]
    peaks.append(_peak_or_refusal(probe, half, peaks[0]))
    # bytes a token, by which the peak of the whole is foretold
    slope = max(0.0, (peaks[1] - peaks[0]) / max(1, half - quarter))
    peak = _peak_or_refusal(probe, tokens, peaks[1] + slope * (tokens - half))
    return replace(
        figures,
        largest_micro_batch_tokens=tokens,
        peak_memory_bytes=peak,
        memory_limit_bytes=probe.limit_bytes,
        bytes_per_token=slope,
    )


def _peak_or_refusal(probe: MemoryProbe, num_tokens: int, needed: float) -> float:
    """Return the peak of a micro batch that is expected to need so many bytes."""
    if needed > probe.limit_bytes:
        raise probe.refusal(num_tokens, needed)
    try:
        return probe.peak_bytes(num_tokens)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "allocate memory" in str(error):
            raise probe.refusal(num_tokens, needed) from error
        raise


def fillable_memory(device: torch.device) -> float:
    """Return the bytes that a process may fill: on a CPU what it has and what is free, within its cgroup's limit."""
    if device.type == "cuda":
        return float(torch.cuda.get_device_properties(device).total_memory)
    return min(memory_limit(), peak_memory(device) + free_memory())


def _stretched(record: TokenRecord, length: int) -> TokenRecord:
    ids = np.resize(record.input_ids, length)
    return replace(record, input_ids=ids, loss_mask=np.ones(length, np.uint8))
