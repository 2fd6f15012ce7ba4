"""The report of a mix grid: every mix with its comparison and its cost, and the one to take."""

from dataclasses import dataclass
from typing import ClassVar

from mixtune.artifacts.comparison import Comparison, TrainedMix
from mixtune.errors import DataError


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What a training cost."""

    seconds: float
    """Of its steps, since it last began."""
    processes: int
    gpus: int
    """0: it ran on CPUs."""
    usd: float | None
    """US dollars; None: no price is known."""

    @property
    def hours(self) -> float:
        """Machine hours: of GPUs, on CPUs of processes."""
        return self.seconds * (self.gpus or self.processes) / 3600


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A trained model with its comparison."""

    name: str
    """In reports, such as `75 %`."""
    comparison: Comparison
    cost: TrainingCost | None = None
    """None: not known."""

    @property
    def mix(self) -> TrainedMix:
        """What it was trained on; a DataError where it was compared without its shards."""
        if self.comparison.mix is None:
            raise DataError(f"{self.name}: compared without shards, its mix is not known; give `compare` the shards")
        return self.comparison.mix


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The model to take."""

    name: str
    """In reports, such as `75 %` or `75 % at 0.5`."""
    percent: float
    """Customer share of its mix, 0 to 100."""
    strength: float
    """1: as it was trained; less: where on the dial."""
    model_uri: str
    """As it was trained."""
    command: str = ""
    """Makes the model at that strength; empty: as it was trained."""


@dataclass(frozen=True, kw_only=True)
class GridReport:
    """The mixes of a grid side by side."""

    KIND: ClassVar[str] = "grid"
    VERSION: ClassVar[int] = 2

    verdict: str
    """`pass` where a mix is recommended, else `fail`."""
    reason: str
    recommended: Recommendation | None
    """None where no mix passed."""
    candidates: tuple[Candidate, ...]
    """From the largest customer share."""
    likelier_percent: float = 0.0
    """Customer share at which a further training is likelier to pass, where a search says so; 0: none."""
