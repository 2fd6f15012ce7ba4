"""The guard: a step whose loss or gradient is not finite, or far off, stops the training before it changes a weight."""

import math

from mixtune.artifacts.shards import TokenRecord
from mixtune.errors import TrainingError
from mixtune.settings.train import TrainSettings

WINDOW = 20
"""Steps that a step is held against; the guard for spikes wakes when half of them are seen."""
NAMED = 5
"""Records that a message names."""


class Guard:
    """Remembers the last steps; its state is part of a checkpoint, so that a resumed training stops where it would."""

    def __init__(self, config: TrainSettings) -> None:
        self._loss_rise, self._grad_ratio = config.guards.max_loss_rise, config.guards.max_grad_ratio
        self._grad_floor = config.schedule.max_grad_norm
        self.losses: list[float] = []
        self.norms: list[float] = []

    def check(
        self, step: int, loss: float, norm: float, records: list[TokenRecord], losses: list[float], pools: list[str]
    ) -> None:
        """Look at a step.

        Args:
            step: 1-based.
            loss: Of the global batch.
            norm: Of the gradient.
            records: The global batch.
            losses: Weighted loss of every record, summed over its tokens.
            pools: Names of the pools.

        Raises:
            TrainingError: Loss or gradient is not finite, or a spike; the records that have most of it are named.
        """
        reason = self._reason(loss, norm)
        if reason:
            named = ", ".join(_worst(records, losses, pools))
            raise TrainingError(
                f"step {step}: {reason}; nothing of this step was learned. Lower learning_rate, or look at the records "
                f"with the highest loss: {named}"
            )
        self.losses = [*self.losses, loss][-WINDOW:]
        self.norms = [*self.norms, norm][-WINDOW:]

    def _reason(self, loss: float, norm: float) -> str:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return f"loss {loss}, gradient norm {norm}"
        if len(self.losses) < WINDOW // 2:
            return ""
        usual = sum(self.losses) / len(self.losses)
        if self._loss_rise and loss > usual + self._loss_rise:
            return f"loss {loss:.3f}, after {usual:.3f} in the steps before (max_loss_rise {self._loss_rise:g})"
        usual = max(sum(self.norms) / len(self.norms), self._grad_floor)
        if self._grad_ratio and norm > usual * self._grad_ratio:
            return f"gradient norm {norm:.3g}, after {usual:.3g} before (max_grad_ratio {self._grad_ratio:g})"
        return ""


def _worst(records: list[TokenRecord], losses: list[float], pools: list[str]) -> list[str]:
    """Pool and id of the records with the highest mean loss, those without a finite one first."""
    means = [value / max(1, record.num_loss_tokens) for record, value in zip(records, losses, strict=True)]
    order = sorted(range(len(records)), key=lambda index: (math.isfinite(means[index]), -means[index]))
    return [f"{pools[records[index].pool]} {records[index].record_id} ({means[index]:.3f})" for index in order[:NAMED]]
