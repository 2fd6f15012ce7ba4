"""Metrics of the steps: a line in the log, series in MLflow, figures of the whole in the model's manifest."""

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mixtune.artifacts.model import LossCurve, TrainingFigures
from mixtune.tracking import Run
from mixtune.train.forgetting_monitor import HoldoutLoss
from mixtune.train.trainer import Trainer

STEPS_PER_REQUEST = 20
"""Steps whose metrics go to MLflow together."""
REQUEST_SECONDS = 10.0
"""After so long, fewer go too."""
CURVE_POINTS = 100
"""Points at most of a curve on the training's page."""
PRINT_SECONDS = 60.0
"""A step is printed at least so often."""
PEAK_TFLOPS = {"H100": 989, "H200": 989, "GH200": 989, "B200": 2250, "A100": 312, "L40S": 362}
"""Of GPUs, by a word of their name: bfloat16, dense, as NVIDIA's data sheets say."""


def peak_operations(device: torch.device) -> float:
    """Return the operations a second that a GPU can do at most, in bfloat16; 0 where that is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return 1e12 * next((PEAK_TFLOPS[word] for word in name.replace("-", " ").split() if word in PEAK_TFLOPS), 0)


def peak_memory(device: torch.device) -> float:
    """Return the peak in bytes: of the GPU since it was last reset; on a CPU, of the process since it began."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


class PhaseTimer:
    """Seconds of a step by phase; on a GPU a phase ends when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(("data", "forward", "backward", "step"), 0.0)
        self._cuda = device.type == "cuda"
        self._start = time.monotonic()

    def stop(self, phase: str) -> None:
        """Count the time since the last stop to a phase."""
        if self._cuda:
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds[phase] += now - self._start
        self._start = now


@dataclass(frozen=True, kw_only=True)
class StepMetrics:
    """Metrics of one step, over all processes."""

    step: int
    """1-based."""
    loss: float
    """Mean over the loss tokens of the global batch, weighted."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    """Of the parameters that LoRA+ does not speed up."""
    num_tokens: int
    num_loss_tokens: int
    seconds: dict[str, float]
    """Of this process, by phase: `data`, `forward`, `backward`, `step`."""
    num_ranks: int
    operations: float
    """Arithmetic of the step over all processes, without what is computed twice."""
    peak_operations: float
    """A second, of one process's GPU; 0: not known."""
    memory_bytes: float
    """Peak of this process."""
    pool_losses: dict[str, float]
    """Mean loss by pool, for the pools that are in the batch."""
    holdout: HoldoutLoss | None = None
    """Loss of the held-out records after this step, where it was due."""
    kept_step: int | None = None
    """Where the training ends here because it forgets too much: the step whose weights are kept."""

    @property
    def tokens_per_second(self) -> float:
        """Over all processes."""
        return self.num_tokens / max(sum(self.seconds.values()), 1e-9)

    @property
    def operations_per_second(self) -> float:
        """Of one process."""
        return self.operations / max(sum(self.seconds.values()), 1e-9) / self.num_ranks

    def line(self, num_steps: int) -> str:
        """Return the log line, in its stable form."""
        return (
            f"step {self.step}/{num_steps} loss {self.loss:.4f} grad_norm {self.grad_norm:.3f} "
            f"lr {self.learning_rate:.1e} tokens/s {self.tokens_per_second:.0f}"
        )

    def series(self) -> dict[str, float]:
        """Return the values that MLflow shows step by step."""
        return {
            "loss": self.loss,
            "grad_norm": self.grad_norm,
            "learning_rate": self.learning_rate,
            "tokens": self.num_tokens,
            "loss_tokens": self.num_loss_tokens,
            "tokens_per_second": self.tokens_per_second,
            "tokens_per_second_per_gpu": self.tokens_per_second / self.num_ranks,
            "tflops_per_gpu": self.operations_per_second / 1e12,
            "memory_bytes": self.memory_bytes,
            **({"mfu": self.operations_per_second / self.peak_operations} if self.peak_operations else {}),
            **{f"seconds/{phase}": value for phase, value in self.seconds.items()},
            **{f"loss/{pool}": loss for pool, loss in self.pool_losses.items()},
            **({"general_nll": self.holdout.nll, "kl_to_base": self.holdout.kl} if self.holdout else {}),
        }


def track(steps: Iterator[StepMetrics], num_steps: int, run: Run) -> list[StepMetrics]:
    """Print and track the steps as they come, several at once but never long after, and return them all."""
    history: list[StepMetrics] = []
    print_every = max(1, num_steps // 20)
    num_logged, logged_at, printed_at = 0, time.monotonic(), time.monotonic()
    try:
        for metrics in steps:
            history.append(metrics)
            now = time.monotonic()
            if metrics.step % print_every == 0 or metrics.step in (1, num_steps) or now - printed_at > PRINT_SECONDS:
                print(metrics.line(num_steps), flush=True)
                printed_at = now
            if metrics.holdout:
                print(f"after step {metrics.step}: {metrics.holdout.line()}", flush=True)
            if len(history) - num_logged >= STEPS_PER_REQUEST or now - logged_at > REQUEST_SECONDS:
                num_logged, logged_at = _log(run, history, num_logged), now
    finally:
        _log(run, history, num_logged)
    return history


def _log(run: Run, history: list[StepMetrics], num_logged: int) -> int:
    run.log_steps({metrics.step: metrics.series() for metrics in history[num_logged:]})
    return len(history)


def loss_curves(trainer: Trainer, history: list[StepMetrics]) -> tuple[LossCurve, ...]:
    """Return the loss of every pool, and of the held-out records from the base model on."""
    names = [pool for pool in trainer.shards.pools if any(pool in metrics.pool_losses for metrics in history)]
    curves = [_thin(name, [item for item in history if name in item.pool_losses]) for name in names]
    held_out = [(metrics.step, metrics.holdout.nll) for metrics in history if metrics.holdout]
    if trainer.monitor and held_out:
        begin = [(0, trainer.monitor.start.nll)] if history[0].step == 1 else []
        steps, losses = zip(*begin, *held_out, strict=True)
        curves.append(LossCurve(name="general, held out", steps=steps, losses=losses, held_out=True))
    return tuple(curves)


def _thin(pool: str, history: list[StepMetrics]) -> LossCurve:
    """Return a pool's loss as means over equally many steps each, at most `CURVE_POINTS`."""
    width = -(-len(history) // CURVE_POINTS)
    windows = [history[start : start + width] for start in range(0, len(history), width)]
    losses = [sum(metrics.pool_losses[pool] for metrics in window) / len(window) for window in windows]
    return LossCurve(name=pool, steps=tuple(window[0].step for window in windows), losses=tuple(losses))


def summarize(trainer: Trainer, history: list[StepMetrics]) -> TrainingFigures:
    """Return the figures of a whole run."""
    timed = history[1:] or history
    seconds = sum(sum(metrics.seconds.values()) for metrics in timed)
    speed = sum(metrics.num_tokens for metrics in timed) / max(seconds, 1e-9)
    group = trainer.group
    return TrainingFigures(
        num_steps=len(history),
        kept_step=(history[-1].kept_step or history[-1].step) if history else 0,
        first_loss=history[0].loss if history else 0.0,
        final_loss=history[-1].loss if history else 0.0,
        mean_tokens_per_second=speed,
        tokens_per_second_per_gpu=speed / group.size,
        num_processes=group.size,
        num_gpus=group.size if group.device.type == "cuda" else 0,
        seconds=sum(sum(metrics.seconds.values()) for metrics in history),
        peak_memory_bytes=peak_memory(group.device),
        packed=trainer.model.loss.layout.is_packed,
        base_general_nll=trainer.monitor.base.nll if trainer.monitor else None,
    )
