"""The training loop: one optimizer step per global batch, read from its place in the shards.

Every step prints, and on its own line, `step 17/300 loss 1.2345 grad_norm 0.678 lr 1.0e-05 tokens/s 4321`: the stable
form that job monitors may match on.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mixtune.errors import TrainingError
from mixtune.shards import Shards, TokenRecord
from mixtune.tracking import Run
from mixtune.train.batches import micro_batches, pack, token_losses
from mixtune.train.checkpoints import load_checkpoint, save_checkpoint
from mixtune.train.config import TrainConfig
from mixtune.train.model import Trainable, make_optimizer, rate

TRACKED_AT_ONCE = 20
"""Steps whose figures go to MLflow together."""


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """What one step came to."""

    step: int
    """1-based."""
    loss: float
    """Mean over the loss tokens of the global batch, weighted."""
    grad_norm: float
    """Before clipping."""
    learning_rate: float
    """Of the parameters that are not sped up by LoRA+."""
    num_tokens: int
    seconds: float
    pool_losses: dict[str, float]
    """Mean loss by pool, for the pools that are in the batch."""

    def line(self, num_steps: int) -> str:
        """The log line, in its stable form."""
        speed = self.num_tokens / max(self.seconds, 1e-9)
        return (
            f"step {self.step}/{num_steps} loss {self.loss:.4f} grad_norm {self.grad_norm:.3f} "
            f"lr {self.learning_rate:.1e} tokens/s {speed:.0f}"
        )

    def metrics(self) -> dict[str, float]:
        """For MLflow."""
        named = {f"loss/{pool}": loss for pool, loss in self.pool_losses.items()}
        figures = {"loss": self.loss, "grad_norm": self.grad_norm, "learning_rate": self.learning_rate}
        return {**figures, "tokens_per_second": self.num_tokens / max(self.seconds, 1e-9), **named}


def train_steps(
    shards: Shards, model: Trainable, config: TrainConfig, checkpoint_dir: Path | None
) -> Iterator[StepFigures]:
    """Train, from the newest checkpoint on, one step at a time.

    Args:
        shards: The steps.
        model: Trained in place.
        config: How.
        checkpoint_dir: Where checkpoints are; None: none are made.

    Raises:
        TrainingError: Loss or gradient is not a finite number; nothing was changed by that step.
    """
    optimizer = make_optimizer(model, config)
    done = load_checkpoint(checkpoint_dir, model, optimizer) if checkpoint_dir else 0
    if done:
        print(f"going on after step {done} of {shards.num_steps}", flush=True)
    last = min(config.validation_steps, shards.num_steps) or shards.num_steps
    for step in range(done, last):
        yield _one_step(shards, step, model, optimizer, config)
        if checkpoint_dir and (step + 1) % config.checkpoint_steps == 0 and step + 1 < last:
            save_checkpoint(checkpoint_dir, step + 1, model, optimizer)


def track(figures: Iterator[StepFigures], num_steps: int, run: Run) -> list[StepFigures]:
    """Print and track the steps as they come; all of them come back."""
    seen: list[StepFigures] = []
    shown = max(1, num_steps // 20)
    for item in figures:
        seen.append(item)
        if item.step % shown == 0 or item.step in (1, num_steps):
            print(item.line(num_steps), flush=True)
        if len(seen) % TRACKED_AT_ONCE == 0 or item.step == num_steps:
            for late in seen[-(len(seen) % TRACKED_AT_ONCE or TRACKED_AT_ONCE) :]:
                run.log_metrics(late.metrics(), late.step)
    return seen


def _one_step(
    shards: Shards, step: int, model: Trainable, optimizer: torch.optim.Optimizer, config: TrainConfig
) -> StepFigures:
    began = time.monotonic()
    records = shards.step(step)
    share = rate(step, shards.num_steps, config)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    sums = torch.zeros(len(shards.pools), 2, dtype=torch.float64)
    total = sum(record.num_loss_tokens * record.weight for record in records)
    for micro in micro_batches(records, config.max_tokens_per_gpu):
        packed = pack(micro)
        weighted = token_losses(model.causal, packed) * packed.weights
        (weighted.sum() / total).backward()
        sums[:, 0].index_add_(0, packed.pools, weighted.detach().double())
        sums[:, 1].index_add_(0, packed.pools, packed.weights.double())
    loss = float(sums[:, 0].sum()) / total
    norm = float(torch.nn.utils.clip_grad_norm_(model.parameters().values(), config.max_grad_norm))
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise TrainingError(_not_finite(step, loss, norm, records, shards))
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return StepFigures(
        step=step + 1,
        loss=loss,
        grad_norm=norm,
        learning_rate=config.learning_rate * share,
        num_tokens=sum(len(record.input_ids) for record in records),
        seconds=time.monotonic() - began,
        pool_losses={
            name: float(part / weight)
            for name, (part, weight) in zip(shards.pools, sums.tolist(), strict=True)
            if weight
        },
    )


def _not_finite(step: int, loss: float, norm: float, records: list[TokenRecord], shards: Shards) -> str:
    named = ", ".join(f"{shards.pools[record.pool]} {record.record_id}" for record in records[:5])
    return (
        f"step {step + 1}: loss {loss}, gradient norm {norm}; lower the learning rate, or look at the step's records, "
        f"the first of which are {named}"
    )
