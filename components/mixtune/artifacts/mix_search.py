"""The search for the smallest general share: what its trainings did, what was predicted, and what came of it."""

from dataclasses import dataclass
from typing import ClassVar

from mixtune.artifacts.grid import Candidate


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A predicted figure."""

    median: float
    lower: float
    """5 % of the predictions are lower."""
    upper: float
    """5 % are higher."""


@dataclass(frozen=True, kw_only=True)
class AxisForecast:
    """One axis of the full training at one share, as a comparison would measure it."""

    axis: str
    limit: float
    """The allowed loss; of the customer's axis the gain that is asked for."""
    benefit: Interval
    """Candidate minus base, with its sign flipped where lower is better; relative where the axis is."""
    pass_chance: float
    """0 to 1."""


@dataclass(frozen=True, kw_only=True)
class ShareForecast:
    """The full training at one customer share."""

    percent: float
    """Customer share, 0 to 100."""
    pass_chance: float
    """That every axis passes, 0 to 1."""
    axes: tuple[AxisForecast, ...]


@dataclass(frozen=True, kw_only=True)
class MixForecast:
    """The share to train at, and every share that was weighed."""

    percent: float
    """Customer share to train at, 0 to 100."""
    is_certain: bool
    """The share reaches the asked confidence; else it is the most promising one."""
    reason: str
    shares: tuple[ShareForecast, ...]
    """From the largest customer share."""

    @property
    def recommended(self) -> ShareForecast:
        """The forecast at the share to train at."""
        return next(share for share in self.shares if share.percent == self.percent)


@dataclass(frozen=True, kw_only=True)
class SearchedAxis:
    """An axis that has to pass."""

    axis: str
    is_customer: bool
    limit: float
    """The allowed loss; of the customer's axis the gain that is asked for."""
    largest: float
    """The most that can be lost, or gained by the customer's axis; 0: no bound."""
    num_items: int
    """Items in the evaluation of a full training."""

    @property
    def least_benefit(self) -> float:
        """The benefit that the axis must surely exceed."""
        return self.limit if self.is_customer else -self.limit


@dataclass(frozen=True, kw_only=True)
class TrainingScore:
    """What one training did on one axis."""

    axis: str
    percent: float
    """Customer share of its mix, 0 to 100."""
    length: float
    """Its customer epochs as a share of the full training's: 1 is full."""
    benefit: float
    standard_error: float
    num_items: int

    @property
    def general_share(self) -> float:
        """General share of its mix, 0 to 1."""
        return 1 - self.percent / 100

    @property
    def is_full(self) -> bool:
        """Whether it was no proxy; a length is right to a global batch."""
        return self.length > 0.99


@dataclass(frozen=True, kw_only=True)
class SearchRound:
    """One full training: what was predicted of it, and what it became."""

    forecast: MixForecast
    candidate: Candidate | None = None
    """None: not trained yet."""


@dataclass(frozen=True, kw_only=True)
class MixSearch:
    """A search so far."""

    KIND: ClassVar[str] = "mix-search"
    VERSION: ClassVar[int] = 1

    customer_epochs: float
    """Of a full training."""
    confidence: float
    axes: tuple[SearchedAxis, ...]
    scores: tuple[TrainingScore, ...]
    """Of proxies and full trainings."""
    failures: tuple[str, ...] = ()
    """Proxies without a model, and why."""
    rounds: tuple[SearchRound, ...] = ()
    max_cost: float = 0.0
    """Steps of all trainings at most, in full trainings on customer records alone; 0: no bound."""
    stopped: str = ""
    """Why no second full training followed one that did not pass."""
    likelier_percent: float = 0.0
    """Customer share at which a further full training is likelier to pass; 0: none is."""

    @property
    def tried(self) -> tuple[Candidate, ...]:
        """The full trainings so far."""
        return tuple(item.candidate for item in self.rounds if item.candidate)
