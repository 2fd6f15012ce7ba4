"""The comparison of a candidate with its base model: what `compare` found, axis by axis, and what it comes to."""

from dataclasses import dataclass, field, replace
from typing import ClassVar

from mixtune.artifacts.pools import PoolInputs
from mixtune.artifacts.provenance import Terms
from mixtune.artifacts.samples import Identity
from mixtune.artifacts.shards import MixReceipt

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
"""The verdicts, on an axis and overall."""
FAILED = "failed"
"""In place of a verdict: there is no model to compare."""
ADVISORY = "advisory"
"""In place of a question and a verdict: an axis that decides nothing."""
NON_INFERIORITY, SUPERIORITY, EQUIVALENCE = "non-inferiority", "superiority", "equivalence"
"""Is the loss smaller than the allowed one (general axes)? Is there a gain at all (the customer's)? Are two artefacts
of one model the same within what is allowed (all axes)?"""
CUSTOMER_AXIS = "customer"
"""The axis of the customer's own records, and the name of their pool; the others are general."""
EXIT_CODES = {PASS: 0, FAIL: 3, INCONCLUSIVE: 4}
"""Exit code of a command by verdict."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference with its uncertainty."""

    difference: float
    standard_error: float
    lower: float
    """One-sided 95 % lower bound."""
    upper: float
    """One-sided 95 % upper bound."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One score of both models on the same items."""

    metric: str
    base: float
    candidate: float
    change: Estimate
    """Candidate minus base; relative: as a share of the base's score."""
    higher_is_better: bool = True
    relative: bool = False
    significant: bool = False
    """The gain is proved among all measures of its axis: one-sided, Holm, family error 0.05."""

    @property
    def benefit(self) -> Estimate:
        """The change with its sign flipped where lower is better."""
        change = self.change
        if self.higher_is_better:
            return change
        return Estimate(
            difference=-change.difference,
            standard_error=change.standard_error,
            lower=-change.upper,
            upper=-change.lower,
        )


@dataclass(frozen=True, kw_only=True)
class ItemCounts:
    """Items of an axis."""

    total: int
    lost: int = 0
    """The base had them right, the candidate has them wrong."""
    gained: int = 0
    base_errors: int = 0
    """Could not be scored, and count as wrong."""
    candidate_errors: int = 0
    base_truncated: int = 0
    """Answers, or prompts, that a limit of tokens cut."""
    candidate_truncated: int = 0
    base_unfinished: int = 0
    """Thoughts that never ended; they count as wrong."""
    candidate_unfinished: int = 0
    left_out: int = 0
    """Had no label, and are not among these."""


@dataclass(frozen=True, kw_only=True)
class Subgroup:
    """One stratum of an axis: a subject, a category, a label, a pool."""

    name: str
    num_items: int
    base: float
    candidate: float
    p_value: float
    """Two-sided: McNemar's exact test for right and wrong, else a paired z test."""
    flagged: bool = False
    """Different after Benjamini and Hochberg's control of false discoveries at 0.05; exploratory."""


@dataclass(frozen=True, kw_only=True)
class LostItem:
    """An item that the base had right and the candidate has wrong; texts are cut."""

    item_id: str
    subject: str
    text: str
    gold: str
    base: str
    """The base's answer."""
    candidate: str


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """How often each label (row) was given each label (column), by either model."""

    labels: tuple[str, ...]
    base: tuple[tuple[int, ...], ...]
    candidate: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class AxisDetails:
    """Where on an axis the difference comes from."""

    subgroups: tuple[Subgroup, ...] = ()
    """Worst first."""
    lost_items: tuple[LostItem, ...] = ()
    """Some of them."""
    confusion: Confusion | None = None
    """Of a classification with few enough labels."""


@dataclass(frozen=True, kw_only=True)
class AxisVerdict:
    """The verdict on one axis."""

    axis: str
    form: str
    """Of the benchmark, or `judge`."""
    question: str
    """`non-inferiority`, `superiority`, `equivalence` or `advisory`."""
    limit: float
    """The allowed loss, a positive number; of the customer's axis the gain asked for, 0: any."""
    verdict: str
    advice: str
    """What to do, in a sentence; empty where the axis passed."""
    detectable: float
    """The smallest allowed loss under which an unchanged model passes in 80 % of such runs."""
    power: float = 0.0
    """In which share of such runs an unchanged model passes, 0 to 1."""
    max_new_tokens: int = 0
    """Tokens of a generated answer at most; 0: nothing was generated."""
    items: ItemCounts
    measures: tuple[Measure, ...]
    """The verdict is about the first."""
    details: AxisDetails = AxisDetails()

    @property
    def title(self) -> str:
        """Its name and its metric."""
        return f"{self.axis} ({self.measure.metric})"

    @property
    def min_gain(self) -> float:
        """The gain that is asked for on the customer's records; 0: any, or another axis."""
        return self.limit if self.axis == CUSTOMER_AXIS and self.question == SUPERIORITY else 0.0

    @property
    def measure(self) -> Measure:
        """The score that the verdict is about."""
        return self.measures[0]

    def without_details(self) -> "AxisVerdict":
        """Return the same without single items and subgroups."""
        return replace(self, details=AxisDetails())


@dataclass(frozen=True, kw_only=True)
class DialVerdict:
    """The candidate at one strength of the dial, between its base (0) and itself (1)."""

    strength: float
    """Above 0, at most 1."""
    verdict: str
    """`failed` where it could not be evaluated."""
    reason: str = ""
    """Why it could not."""
    axes: tuple[AxisVerdict, ...] = ()
    """Without details."""

    def without_details(self) -> "DialVerdict":
        """Return the same without what an axis's details may hold."""
        return replace(self, axes=tuple(axis.without_details() for axis in self.axes))


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """What of an axis's items is in the training data."""

    axis: str
    num_items: int
    searched: int
    """Items that are long enough to be searched for: of at least eight words."""
    exact: int
    """Items that are in a training record from end to end; of at least thirteen words."""
    short_exact: int
    """The same for items of eight to twelve words, which may be common phrases."""
    partial: int
    """Items with at least half of their words in shared runs, but not found whole."""
    mean_coverage: float
    """Mean share of an item's words that are in runs of thirteen shared with one training record, 0 to 1."""
    items: tuple[str, ...] = ()
    """Ids of items found whole, twenty at most."""


@dataclass(frozen=True, kw_only=True)
class TrainedMix:
    """The shards that a candidate was trained on."""

    digest: str
    mix_ratio: float
    """Customer share of every global batch, 0 to 1."""
    seed: int
    num_steps: int
    global_batch_size: int
    receipt: MixReceipt = field(default_factory=MixReceipt)
    inputs: dict[str, PoolInputs] = field(default_factory=dict)
    """By input of the mix: `customer`, `general`."""

    @property
    def percent(self) -> float:
        """Customer share of every global batch, 0 to 100."""
        return round(100 * self.mix_ratio, 6)

    @property
    def terms(self) -> dict[str, Terms]:
        """Source and licence by pool, of those pools that were imported."""
        return {name: terms for pools in self.inputs.values() for name, terms in pools.terms.items()}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A candidate beside its base model on the same items."""

    KIND: ClassVar[str] = "comparison"
    VERSION: ClassVar[int] = 2

    verdict: str
    """`pass`, `fail` or `inconclusive`; `failed` where the candidate's training left no model."""
    reason: str = ""
    """Why there is no candidate; else empty."""
    blocks: bool = field(init=False)
    """Whether the verdict stops a release: a fail does, and an inconclusive one on full sets."""
    model_uri: str = ""
    """Fingerprinted URI of the candidate; empty where there is none."""
    axes: tuple[AxisVerdict, ...]
    identity: dict[str, Identity]
    """What was evaluated, of `base` and `candidate`."""
    limit: int
    """Items of an axis at most that the candidate was asked; 0: all."""
    contamination: tuple[Overlap, ...] = ()
    """Per axis; empty without shards."""
    mix: TrainedMix | None = None
    """None where `compare` was not given the shards."""
    dial: tuple[DialVerdict, ...] = ()
    """The candidate at lower strengths, from the lowest; they have no say in the verdict."""
    earlier: tuple[DialVerdict, ...] = ()
    """Of a restored candidate: the trained model that it was made of, from its lowest strength to itself, as above."""

    def __post_init__(self) -> None:
        """Derive `blocks`."""
        stops = self.verdict in (FAIL, FAILED) or (self.verdict == INCONCLUSIVE and not self.limit)
        object.__setattr__(self, "blocks", stops)
