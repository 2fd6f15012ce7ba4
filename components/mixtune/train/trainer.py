"""A training's state: data, model, optimizer and schedule, and what watches over its steps."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch

from mixtune.artifacts.shards import Shards, TokenRecord
from mixtune.processes import free_memory
from mixtune.settings.train import ScheduleSettings, TrainSettings
from mixtune.train.batches import Layout, PackedBatch
from mixtune.train.distributed import ProcessGroup
from mixtune.train.divergence_guard import DivergenceGuard
from mixtune.train.forgetting_monitor import ForgettingMonitor, HoldoutLoss
from mixtune.train.modeling.loss import PackedLoss
from mixtune.train.modeling.room import choose_micro_tokens
from mixtune.train.modeling.trainable import Trainable, make_optimizer
from mixtune.training_math import MICRO_TOKENS

LrSchedule = Callable[[int], float]
"""Share of the peak learning rate at a step, 0-based."""


class Objective(Protocol):
    """What is learned in place of the tokens of the shards."""

    def batch(self, records: list[TokenRecord], step: int, num_parts: int) -> list[TokenRecord]:
        """Return the global batch that is learned where the shards hold these records."""

    def losses(self, packed: PackedBatch) -> torch.Tensor:
        """Return the loss of every token to learn of a part of that batch, float32, (loss tokens,)."""

    def base(self) -> AbstractContextManager[PackedLoss]:
        """Return a context in which the base model runs."""


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Everything that a step needs."""

    settings: TrainSettings
    shards: Shards
    model: Trainable
    optimizer: torch.optim.Optimizer
    group: ProcessGroup
    guard: DivergenceGuard
    num_steps: int
    lr_schedule: LrSchedule
    max_micro_tokens: int = MICRO_TOKENS
    """Tokens of one micro batch at most; 1 where every record is a micro batch of its own."""
    monitor: ForgettingMonitor | None = None
    """Evaluates held-out records; None: there are none."""
    objective: Objective | None = None
    """None: every token of the shards that is one to learn, by its cross entropy."""

    def batch(self, step: int, num_parts: int) -> list[TokenRecord]:
        """Return the records of the global batch of a step, 0-based; all processes call this."""
        records = self.shards.step(step)
        return self.objective.batch(records, step, num_parts) if self.objective else records

    def losses(self, packed: PackedBatch) -> torch.Tensor:
        """Return the loss of every token to learn, float32, (loss tokens,)."""
        losses: torch.Tensor = self.objective.losses(packed) if self.objective else self.model.loss(packed)
        return losses

    def forgets(self, holdout: HoldoutLoss) -> bool:
        """Return whether more is forgotten than `max_nll_rise` allows."""
        limit = self.settings.guards.max_nll_rise
        return bool(limit and self.monitor and not holdout.nll - self.monitor.base.nll <= limit)


def make_trainer(shards: Shards, model: Trainable, settings: TrainSettings, group: ProcessGroup) -> Trainer:
    """Return a training over all steps of the shards that has done nothing yet."""
    return Trainer(
        settings=settings,
        shards=shards,
        model=model,
        optimizer=make_optimizer(model, settings),
        group=group,
        guard=DivergenceGuard(settings),
        num_steps=shards.num_steps,
        max_micro_tokens=_max_micro_tokens(shards, model, settings, group),
        lr_schedule=cosine_schedule(settings.schedule, shards.num_steps),
    )


def _max_micro_tokens(shards: Shards, model: Trainable, settings: TrainSettings, group: ProcessGroup) -> int:
    """Return `max_tokens_per_gpu`, or what the main process chooses where it is open."""
    if model.loss.layout is Layout.SINGLE:
        return 1
    tokens = settings.memory.max_tokens_per_gpu
    if tokens or not group.on_cpu or model.is_sharded:
        return tokens or MICRO_TOKENS
    chosen = choose_micro_tokens(model, shards.step(0)[0], free_memory() / group.local_size)
    return int(group.broadcast(torch.tensor([chosen])).item())


def cosine_schedule(settings: ScheduleSettings, num_steps: int) -> LrSchedule:
    """Return a linear warm-up, then a cosine down to `min_lr_ratio`."""
    warmup = max(1, round(settings.warmup_ratio * num_steps))

    def lr_schedule(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = (step - warmup) / max(1, num_steps - warmup)
        return settings.min_lr_ratio + (1 - settings.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2

    return lr_schedule
