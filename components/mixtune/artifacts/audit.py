"""The audit record of a run: who, which versions of which data, what was removed, what was decided.

It holds digests, counts and scores, and of a record's content nothing.
"""

from dataclasses import dataclass, field
from typing import ClassVar

from mixtune.artifacts.comparison import Measure
from mixtune.artifacts.pools import SanitizeRules


@dataclass(frozen=True, kw_only=True)
class Versions:
    """The versions of code and model."""

    mixtune: str
    commit: str
    images: tuple[str, ...]
    """With their digests; empty outside of a cluster."""
    base_model: str
    """Digest, as those below."""
    tokenizer: str
    benchmarks: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class AuditedSource:
    """A source of the data."""

    pool: str
    split: str
    uri: str
    digest: str
    licence: str
    """Empty: not recorded."""


@dataclass(frozen=True, kw_only=True)
class TrainedOn:
    """What a candidate was trained on."""

    mix_ratio: float
    seed: int
    steps: int
    records: dict[str, int]
    """By pool."""


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What was removed from a pool, or changed in it."""

    read: int
    kept: int
    dropped: dict[str, int]
    """By reason."""
    changed: dict[str, int]
    """By rule."""
    personal_data: dict[str, int]
    """Findings by kind."""
    consent: dict[str, int]
    """Records by what they say of consent."""
    dropped_when_tokenized: dict[str, int]
    """By reason."""
    truncated: int


@dataclass(frozen=True, kw_only=True)
class AuditedAxis:
    """What was decided on an axis."""

    axis: str
    limit: float
    verdict: str
    measure: Measure


@dataclass(frozen=True, kw_only=True)
class AuditedModel:
    """What was decided on a model."""

    name: str
    verdict: str
    reason: str
    axes: tuple[AuditedAxis, ...]


@dataclass(frozen=True, kw_only=True)
class AuditedCandidate(AuditedModel):
    """What a candidate is, and what was decided on it."""

    model: str
    """Digest."""
    shards: str
    """Digest."""
    trained_on: TrainedOn
    removed: dict[str, Removed]
    """By pool."""
    in_training_data: dict[str, int]
    """Benchmark items that were found whole, by axis."""


@dataclass(frozen=True, kw_only=True)
class Decided:
    """What the run came to."""

    verdict: str
    reason: str
    taken: str
    """Name of the model to take; empty: none, or there was but one."""


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """The record of one run."""

    KIND: ClassVar[str] = "audit record"
    VERSION: ClassVar[int] = 2

    run_id: str
    ended: str
    """Time in UTC, ISO 8601."""
    who: str
    cost_usd: float | None
    """None: not known."""
    model_uri: str
    """The model to take, as it was trained; empty: none."""
    versions: Versions
    data: tuple[AuditedSource, ...]
    rules: dict[str, SanitizeRules] = field(default_factory=dict)
    """Of sanitize, by input of the mix: `customer`, `general`."""
    candidates: tuple[AuditedCandidate, ...]
    turned_down: tuple[AuditedModel, ...] = ()
    """The candidates at lower strengths of the dial."""
    decided: Decided
