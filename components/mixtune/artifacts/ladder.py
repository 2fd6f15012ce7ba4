"""The ladder from LoRA to full fine-tuning: its rungs so far, and the report on all of them."""

from dataclasses import dataclass
from typing import ClassVar

from mixtune.artifacts.comparison import CUSTOMER_AXIS, PASS
from mixtune.artifacts.grid import Candidate, Recommendation
from mixtune.errors import ConfigError

LORA, SFT = "lora", "sft"


@dataclass(frozen=True, kw_only=True)
class Rung(Candidate):
    """One candidate of the ladder."""

    method: str
    """`lora` or `sft`."""
    lora_rank: int
    lora_alpha: int

    def __post_init__(self) -> None:
        """Refuse a method that is none."""
        if self.method not in (LORA, SFT):
            raise ConfigError(f"method is {LORA} or {SFT}; got {self.method!r}")

    @property
    def kept(self) -> bool:
        """Whether every general axis passed."""
        axes = self.comparison.axes
        return bool(axes) and all(axis.verdict == PASS for axis in axes if axis.axis != CUSTOMER_AXIS)

    def reached(self, target: float) -> bool:
        """Whether the customer's score is at least the target; without a target (0), whether its gain is certain."""
        axes = [axis for axis in self.comparison.axes if axis.axis == CUSTOMER_AXIS]
        return any(axis.measure.candidate >= target if target else axis.verdict == PASS for axis in axes)


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """The rungs so far, and why the ladder goes on or ends."""

    KIND: ClassVar[str] = "rungs"
    VERSION: ClassVar[int] = 2

    rungs: tuple[Rung, ...]
    target: float
    """Score to reach on the customer's axis, in its own metric; 0: a certain gain is enough."""
    sft_max_steps: int
    """Optimizer steps that full fine-tuning may take; 0: it is never tried."""
    reason: str


@dataclass(frozen=True, kw_only=True)
class LadderReport:
    """The rungs of a ladder side by side."""

    KIND: ClassVar[str] = "ladder"
    VERSION: ClassVar[int] = 2

    verdict: str
    """`pass` where a rung is recommended, else `inconclusive` if one was, else `fail`."""
    reason: str
    recommended: Recommendation | None
    rungs: tuple[Rung, ...]
