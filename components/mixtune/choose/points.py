"""What a report can recommend: a candidate as it was trained, or the same model at one strength of the dial."""

from collections.abc import Iterable
from dataclasses import dataclass

from mixtune.artifacts.comparison import CUSTOMER_AXIS, PASS, AxisVerdict, DialVerdict
from mixtune.artifacts.grid import Candidate


@dataclass(frozen=True, kw_only=True)
class Point:
    """One model with its verdicts."""

    candidate: Candidate
    dial: DialVerdict | None = None
    """None: the candidate as it was trained."""

    @property
    def name(self) -> str:
        """`75 %`, or `75 % at 0.5`."""
        return self.candidate.name + ("" if self.dial is None else f" at {self.strength:g}")

    @property
    def strength(self) -> float:
        """How far the model goes from its base, above 0; 1: as it was trained."""
        return 1.0 if self.dial is None else self.dial.strength

    @property
    def verdict(self) -> str:
        """`pass`, `fail`, `inconclusive` or `failed`."""
        return (self.dial or self.candidate.comparison).verdict

    @property
    def reason(self) -> str:
        """Why there is no model; else empty."""
        return (self.dial or self.candidate.comparison).reason

    @property
    def axes(self) -> dict[str, AxisVerdict]:
        """The verdicts by axis; none where there is no model."""
        return {axis.axis: axis for axis in (self.dial or self.candidate.comparison).axes}

    @property
    def gain(self) -> float:
        """Benefit on the customer's axis."""
        return self.axes[CUSTOMER_AXIS].measure.benefit.difference if self.axes else 0.0

    @property
    def gain_text(self) -> str:
        """Metric and gain: `f1_macro +0.250`."""
        return f"{self.axes[CUSTOMER_AXIS].measure.metric} {self.gain:+.3f}"

    @property
    def worst_axis(self) -> AxisVerdict | None:
        """The general axis that lost most of what it may lose; None where there is none."""
        general = [axis for name, axis in self.axes.items() if name != CUSTOMER_AXIS]
        return min(general, key=lambda axis: axis.measure.benefit.difference / (axis.limit or 1.0), default=None)

    @property
    def forgetting(self) -> float:
        """Its loss, in allowed losses; 0 where all general axes gained."""
        worst = self.worst_axis
        return max(0.0, -worst.measure.benefit.difference / (worst.limit or 1.0)) if worst else 0.0

    def is_tied(self, other: "Point") -> bool:
        """Return whether the bounds of the two points' gains overlap: these items cannot tell which gained more."""
        if not self.axes or not other.axes:
            return False
        mine, its = (point.axes[CUSTOMER_AXIS].measure.benefit for point in (self, other))
        return mine.lower <= its.upper and its.lower <= mine.upper

    @property
    def has_certain_gain(self) -> bool:
        """Whether the customer's axis passed."""
        return bool(self.axes) and self.axes[CUSTOMER_AXIS].verdict == PASS


def dial_points(candidates: Iterable[Candidate]) -> list[Point]:
    """Return the candidates at every strength of the dial at which they were compared."""
    return [Point(candidate=item, dial=verdict) for item in candidates for verdict in item.comparison.dial]
