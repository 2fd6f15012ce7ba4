"""What a training tells of its steps: a line in the log, metrics in MLflow, figures of the whole in the manifest."""

import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mixtune.tracking import Run
from mixtune.train.forgetting_monitor import Seen

TRACKED_AT_ONCE = 20
"""Steps whose figures go to MLflow together."""
TRACKED_SECONDS = 10.0
"""After so long, fewer go too."""
PRINTED_SECONDS = 60.0
"""A step is printed at least so often."""
PEAK_TFLOPS = {"H100": 989, "H200": 989, "GH200": 989, "B200": 2250, "A100": 312, "L40S": 362}
"""Of GPUs, by a word of their name: bfloat16, dense, as NVIDIA's data sheets say."""


def peak_operations(device: torch.device) -> float:
    """Operations a second that a GPU can do at most, in bfloat16; 0 where that is not known."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    return 1e12 * next((PEAK_TFLOPS[word] for word in name.replace("-", " ").split() if word in PEAK_TFLOPS), 0)


def peak_memory(device: torch.device) -> float:
    """Bytes: of the GPU, since the peak was last reset; on a CPU, of the process since it began."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device))
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """What one step came to, over all processes."""

    step: int
    """1-based."""
    loss: float
    """Mean over the loss tokens of the global batch, weighted."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    """Of the parameters that are not sped up by LoRA+."""
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
    seen: Seen | None = None
    """What the watch saw after this step, where it looked."""
    kept: int | None = None
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
        """The log line, in its stable form."""
        return (
            f"step {self.step}/{num_steps} loss {self.loss:.4f} grad_norm {self.grad_norm:.3f} "
            f"lr {self.learning_rate:.1e} tokens/s {self.tokens_per_second:.0f}"
        )

    def metrics(self) -> dict[str, float]:
        """For MLflow."""
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
            **({"general_nll": self.seen.nll, "kl_to_base": self.seen.kl} if self.seen else {}),
        }


def track(figures: Iterator[StepFigures], num_steps: int, run: Run) -> list[StepFigures]:
    """Print and track the steps as they come, some at once, but never long after; all of them come back."""
    seen: list[StepFigures] = []
    shown = max(1, num_steps // 20)
    tracked, told, printed = 0, time.monotonic(), time.monotonic()
    try:
        for item in figures:
            seen.append(item)
            now = time.monotonic()
            if item.step % shown == 0 or item.step in (1, num_steps) or now - printed > PRINTED_SECONDS:
                print(item.line(num_steps), flush=True)
                printed = now
            if item.seen:
                print(f"after step {item.step}: {item.seen.line()}", flush=True)
            if len(seen) - tracked >= TRACKED_AT_ONCE or now - told > TRACKED_SECONDS:
                tracked, told = _log(run, seen, tracked), now
    finally:
        _log(run, seen, tracked)
    return seen


def _log(run: Run, seen: list[StepFigures], tracked: int) -> int:
    run.log_steps({item.step: item.metrics() for item in seen[tracked:]})
    return len(seen)
