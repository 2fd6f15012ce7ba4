"""The training loop: one optimizer step per global batch, read from its place in the shards.

Rank 0 prints steps, each on its own line, in one stable form that job monitors may match on:
`step 17/300 loss 1.2345 grad_norm 0.678 lr 1.0e-05 tokens/s 4321`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mixtune.shards import Shards, TokenRecord
from mixtune.tracking import Run
from mixtune.train.batches import cost, pack, plan_micro_batches, spread
from mixtune.train.checkpoints import Checkpoints
from mixtune.train.config import TrainConfig
from mixtune.train.guards import Guard
from mixtune.train.model import Trainable, make_optimizer, rate
from mixtune.train.sums import GradientSums
from mixtune.train.world import World

TRACKED_AT_ONCE = 20
"""Steps whose figures go to MLflow together."""


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
    pool_losses: dict[str, float]
    """Mean loss by pool, for the pools that are in the batch."""

    @property
    def tokens_per_second(self) -> float:
        """Over all processes."""
        return self.num_tokens / max(sum(self.seconds.values()), 1e-9)

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
            **{f"seconds/{phase}": value for phase, value in self.seconds.items()},
            **{f"loss/{pool}": loss for pool, loss in self.pool_losses.items()},
        }


@dataclass(frozen=True)
class Trainer:
    """Everything that a step needs."""

    shards: Shards
    model: Trainable
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    world: World
    guard: Guard

    @property
    def last_step(self) -> int:
        """Steps of this training."""
        return min(self.config.validation_steps, self.shards.num_steps) or self.shards.num_steps


def make_trainer(shards: Shards, model: Trainable, config: TrainConfig, world: World) -> Trainer:
    """A training that has done nothing yet, on the process's device."""
    model.causal.to(world.device)
    return Trainer(shards, model, make_optimizer(model, config), config, world, Guard(config))


def train_steps(trainer: Trainer, checkpoints: Checkpoints | None) -> Iterator[StepFigures]:
    """Train, from the newest checkpoint on, one step at a time.

    Args:
        trainer: Its model is trained in place.
        checkpoints: None: none are made.

    Raises:
        TrainingError: Loss or gradient is not finite or far off; nothing was changed by that step. Or a SIGTERM came:
            what was done is in a checkpoint.
    """
    done = checkpoints.load(trainer.model, trainer.optimizer, trainer.guard) if checkpoints else 0
    if done and trainer.world.is_main:
        print(f"going on after step {done} of {trainer.shards.num_steps}", flush=True)
    num_parts = checkpoints.num_parts if checkpoints else trainer.world.size
    for step in range(done, trainer.last_step):
        flags = checkpoints.wishes() if checkpoints else torch.zeros(2)
        figures, wishes = _one_step(trainer, step, num_parts, flags)
        if checkpoints and step + 1 < trainer.last_step:
            checkpoints.after_step(step + 1, trainer.model, trainer.optimizer, trainer.guard, wishes)
        yield figures


def track(figures: Iterator[StepFigures], num_steps: int, run: Run) -> list[StepFigures]:
    """Print and track the steps as they come; all of them come back."""
    seen: list[StepFigures] = []
    shown = max(1, num_steps // 20)
    tracked = 0
    try:
        for item in figures:
            seen.append(item)
            if item.step % shown == 0 or item.step in (1, num_steps):
                print(item.line(num_steps), flush=True)
            if len(seen) - tracked >= TRACKED_AT_ONCE:
                tracked = _log(run, seen, tracked)
    finally:
        _log(run, seen, tracked)
    return seen


def _log(run: Run, seen: list[StepFigures], tracked: int) -> int:
    for item in seen[tracked:]:
        run.log_metrics(item.metrics(), item.step)
    return len(seen)


def _one_step(trainer: Trainer, step: int, num_parts: int, flags: torch.Tensor) -> tuple[StepFigures, torch.Tensor]:
    """One optimizer step; the flags come back summed over all processes, in the same collective as the losses."""
    clock = Clock(trainer.world.device)
    config, model = trainer.config, trainer.model
    records = trainer.shards.step(step)
    share = rate(step, trainer.shards.num_steps, config)
    for group in trainer.optimizer.param_groups:
        group["lr"] = group["peak"] * share
    if dropout := model.dropout:
        dropout.begin_step(step)
    sums = _accumulate(trainer, records, num_parts, clock)
    told = trainer.world.add(torch.cat([sums, flags.to(sums)]))
    losses, wishes = told[: len(records)].tolist(), told[len(records) :].cpu()
    total = sum(record.num_loss_tokens * record.weight for record in records)
    loss = sum(losses) / max(total, 1e-9)
    norm = model.clip_gradients(config.max_grad_norm)
    trainer.guard.check(step + 1, loss, norm, records, losses, trainer.shards.pools)
    trainer.optimizer.step()
    trainer.optimizer.zero_grad(set_to_none=True)
    clock.stop("step")
    figures = StepFigures(
        step=step + 1,
        loss=loss,
        grad_norm=norm,
        learning_rate=config.learning_rate * share,
        num_tokens=sum(len(record.input_ids) for record in records),
        num_loss_tokens=sum(record.num_loss_tokens for record in records),
        seconds=clock.seconds,
        num_ranks=trainer.world.size,
        pool_losses=_by_pool(records, losses, trainer.shards.pools),
    )
    return figures, wishes


def _accumulate(trainer: Trainer, records: list[TokenRecord], num_parts: int, clock: "Clock") -> torch.Tensor:
    """Gradients of the global batch; weighted losses of this process's share, by record, float64, (records,)."""
    world, model = trainer.world, trainer.model
    total = sum(record.num_loss_tokens * record.weight for record in records)
    losses = torch.zeros(len(records), dtype=torch.float64, device=world.device)
    sums = GradientSums(model.parameters().values(), model.method == "lora" or world.device.type == "cpu")
    for micro in own_micro_batches(trainer, records, num_parts):
        packed = pack([records[index] for index in micro], micro).to(world.device)
        if model.dropout:
            model.dropout.begin_micro_batch(micro, [len(records[index].input_ids) for index in micro])
        clock.stop("data")
        weighted = model.loss(packed) * packed.weights
        clock.stop("forward")
        (weighted.sum() / max(total, 1e-9)).backward()
        sums.take()
        losses.index_add_(0, packed.rows, weighted.detach().double())
        clock.stop("backward")
    sums.finish(world)
    return losses


def own_micro_batches(trainer: Trainer, records: list[TokenRecord], num_parts: int) -> list[list[int]]:
    """This process's micro batches of a global batch, which is cut for `num_parts` processes."""
    lengths, even = [len(record.input_ids) for record in records], trainer.model.even_tokens
    micros = plan_micro_batches(lengths, trainer.config.max_tokens_per_gpu, num_parts, even)
    costs = [sum(cost(lengths[index], even) for index in micro) for micro in micros]
    return [micros[number] for number in spread(costs, trainer.world.size)[trainer.world.rank]]


def _by_pool(records: list[TokenRecord], losses: list[float], pools: list[str]) -> dict[str, float]:
    found = {}
    for number, name in enumerate(pools):
        mine = [index for index, record in enumerate(records) if record.pool == number]
        weight = sum(records[index].num_loss_tokens * records[index].weight for index in mine)
        if weight:
            found[name] = sum(losses[index] for index in mine) / weight
    return found


class Clock:
    """Seconds by phase; on a GPU a phase ends when its work is done."""

    def __init__(self, device: torch.device) -> None:
        self.seconds = dict.fromkeys(("data", "forward", "backward", "step"), 0.0)
        self._cuda = device.type == "cuda"
        self._began = time.monotonic()

    def stop(self, phase: str) -> None:
        """Count the time since the last stop to a phase."""
        if self._cuda:
            torch.cuda.synchronize()
        now = time.monotonic()
        self.seconds[phase] += now - self._began
        self._began = now
