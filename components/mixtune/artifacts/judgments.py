"""A judge's judgments: which of both models' answers it prefers, and how well it agrees with people."""

from dataclasses import dataclass
from typing import ClassVar

MIN_LABELS = 100
"""Human labels that a calibration needs at least."""
MIN_KAPPA = 0.4
"""What the lower bound of kappa must reach at least: moderate agreement."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A judge's agreement with people."""

    labels: int
    """Human labels that the judge gave a verdict on."""
    missing: int
    """Human labels on which it gave none."""
    kappa: float
    lower: float
    upper: float
    """One-sided 95 % bounds of kappa."""
    agreement: float
    """Share of equal verdicts, 0 to 1."""
    base_rate: float
    """Share of the commonest human label: the agreement of a judge that always says that."""

    @property
    def is_sufficient(self) -> bool:
        """Whether the judge may pass or fail a candidate."""
        return self.labels >= MIN_LABELS and self.lower >= MIN_KAPPA


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Who judged."""

    model: str
    url: str
    """Empty: a local model."""
    prompt: str
    """Digest of the prompt."""


@dataclass(frozen=True, kw_only=True)
class Judgment:
    """The judge's preference on one item."""

    item_id: str
    preferred: str | None
    """`base`, `candidate` or `tie`; None: no verdict."""


@dataclass(frozen=True, kw_only=True)
class Judgments:
    """All preferences on an axis, with the judge's calibration."""

    KIND: ClassVar[str] = "judgments"
    VERSION: ClassVar[int] = 2

    axis: str
    judge: Judge
    samples: tuple[str, str]
    """Digests of the base's and the candidate's samples."""
    calibration: Calibration
    items: tuple[Judgment, ...]
