"""The audit record of a run: who, which versions of which data, what was removed, what was decided.

It holds digests, counts and scores, and of the content of records and benchmark items nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

from mixtune.artifacts.grid import Candidate, Recommendation
from mixtune.artifacts.ladder import Rung


@dataclass(frozen=True, kw_only=True)
class CodeVersions:
    """The code that ran."""

    mixtune: str
    commit: str
    images: tuple[str, ...]
    """With their digests; empty outside of a cluster."""


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
    versions: CodeVersions
    verdict: str
    reason: str
    model_uri: str
    """The model to take, as it was trained; empty: none."""
    recommended: Recommendation | None
    """None: no candidate passed, or there was but one."""
    endpoint: str = ""
    """Address at which the model is served; empty: the run made none ready."""
    candidates: tuple[Rung | Candidate, ...]
    """Their comparisons without details. Sources, rules and what was removed are in `comparison.mix`."""
