"""The guard: a step whose loss or gradient is not finite, or far off, stops the training before it changes a weight."""

import math
from dataclasses import dataclass

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import TrainingError
from mixtune.settings.train import TrainSettings

WINDOW = 20
"""Steps that a step is compared with; the limits on spikes apply once half of them are done."""
NAMED_RECORDS = 5
"""Records that a message names."""


@dataclass(frozen=True, kw_only=True)
class StepLosses:
    """The loss of a step, record by record."""

    step: int
    """1-based."""
    loss: float
    """Mean over the loss tokens of the global batch, weighted."""
    grad_norm: float
    """Before clipping."""
    records: list[TokenRecord]
    record_losses: list[float]
    """Weighted loss of every record, summed over its tokens."""
    pools: list[str]
    """Names of the pools."""

    def worst(self) -> list[str]:
        """Return pool and id of the records with the highest mean loss, those without a finite one first."""
        records = self.records
        means = [loss / max(1, r.num_loss_tokens) for r, loss in zip(records, self.record_losses, strict=True)]
        order = sorted(range(len(records)), key=lambda index: (math.isfinite(means[index]), -means[index]))
        return [
            f"{self.pools[records[index].pool]} {records[index].record_id} ({means[index]:.3f})"
            for index in order[:NAMED_RECORDS]
        ]

    def by_pool(self) -> dict[str, float]:
        """Return the mean loss by pool, of the pools that are in the batch."""
        losses = {}
        for number, name in enumerate(self.pools):
            indices = [index for index, record in enumerate(self.records) if record.pool == number]
            weight = sum(self.records[index].num_loss_tokens * self.records[index].weight for index in indices)
            if weight:
                losses[name] = sum(self.record_losses[index] for index in indices) / weight
        return losses


class DivergenceGuard:
    """Remembers the last steps; its state is part of a checkpoint, so that a resumed training stops where it would."""

    def __init__(self, settings: TrainSettings) -> None:
        self._limits, self._grad_floor = settings.guards, settings.schedule.max_grad_norm
        self.losses: list[float] = []
        self.norms: list[float] = []

    def check(self, step: StepLosses) -> None:
        """Check a step, and remember it.

        Raises:
            TrainingError: Loss or gradient is not finite, or a spike; the records that have most of it are named.
        """
        if reason := self._reason(step.loss, step.grad_norm):
            raise TrainingError(
                f"step {step.step}: {reason}; nothing of this step was learned. Lower learning_rate, or look at the "
                f"records with the highest loss: {', '.join(step.worst())}"
            )
        self.losses = [*self.losses, step.loss][-WINDOW:]
        self.norms = [*self.norms, step.grad_norm][-WINDOW:]

    def _reason(self, loss: float, norm: float) -> str:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss}, gradient norm {norm}"
        if len(self.losses) < WINDOW // 2:
            return ""
        rise, ratio = self._limits.max_loss_rise, self._limits.max_grad_ratio
        usual = sum(self.losses) / len(self.losses)
        if rise and loss > usual + rise:
            return f"loss {loss:.3f}, after {usual:.3f} in the steps before (max_loss_rise {rise:g})"
        usual = max(sum(self.norms) / len(self.norms), self._grad_floor)
        if ratio and norm > usual * ratio:
            return f"gradient norm {norm:.3g}, after {usual:.3g} before (max_grad_ratio {ratio:g})"
        return ""
