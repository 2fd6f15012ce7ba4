"""Two base models on the same items: which one to tune, and what each costs to serve."""

from dataclasses import dataclass
from typing import ClassVar

from mixtune.artifacts.comparison import Measure


@dataclass(frozen=True, kw_only=True)
class PricedModel:
    """One of the models."""

    name: str
    """With its digest."""
    serving: str
    """GPUs, machine and memory in words, or why they are not known."""
    usd_per_hour: float | None
    """Of a replica's GPUs; None: not known."""
    evaluation_seconds: float


@dataclass(frozen=True, kw_only=True)
class AxisContest:
    """Both models on one axis; in the measure `base` is the first, `candidate` the other."""

    axis: str
    num_items: int
    """That both were asked."""
    better: str
    """Name of the model that is surely better, at 95 %; empty: neither."""
    measure: Measure


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The outcome."""

    KIND: ClassVar[str] = "model choice"
    VERSION: ClassVar[int] = 1

    first: PricedModel
    other: PricedModel
    axes: tuple[AxisContest, ...]
    """The customer's first."""
    chosen: str
    """Name of the model to take."""
    reason: str

    @property
    def is_tie(self) -> bool:
        """Whether neither is surely better on the customer's records, nor cheaper."""
        costs = (self.first.usd_per_hour, self.other.usd_per_hour)
        return not self.axes[0].better and (None in costs or costs[0] == costs[1])
