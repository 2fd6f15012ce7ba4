"""A point: one candidate with what its comparison found, as it was trained or turned down by the dial."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from mixtune import storage
from mixtune.choose.costs import training_cost
from mixtune.errors import DataError
from mixtune.results import CUSTOMER_AXIS, PASS


@dataclass(frozen=True, kw_only=True)
class Point:
    """One mix, trained and compared."""

    percent: float
    """Customer share of every global batch, 0 to 100."""
    verdict: str
    """pass, fail or inconclusive; failed where its training ended without a model."""
    reason: str
    """Why it failed; empty for a trained point."""
    num_steps: int
    num_tokens: int
    """Tokens trained on."""
    axes: dict[str, dict[str, Any]]
    """What `compare` found on each axis."""
    label: str = ""
    """What a report calls it; empty: its percent."""
    strength: float = 1.0
    """How far the model goes from its base: 1 as trained, less where it is turned down."""
    model_uri: str = ""
    """As trained; empty where there is none."""
    cost: dict[str, Any] = field(default_factory=dict)
    """Of `training_cost`; empty: not known."""
    audit: dict[str, Any] = field(default_factory=dict)
    """`identity`, `mix` and `contamination` of its comparison, for the run's record."""

    @property
    def gain(self) -> float:
        """Difference on the customer's axis; more is better."""
        return better(self.axes[CUSTOMER_AXIS]) if self.axes else 0.0

    @property
    def gained(self) -> bool:
        """Whether the gain is certain."""
        return bool(self.axes) and self.axes[CUSTOMER_AXIS]["verdict"] == PASS

    @property
    def name(self) -> str:
        """`75 %`, `75 % at 0.5`, or its label."""
        return self.label or f"{self.percent:g} %{'' if self.strength == 1 else f' at {self.strength:g}'}"

    def as_json(self) -> dict[str, Any]:
        """The point as a report's JSON has it, with its name."""
        return {**asdict(self), "name": self.name}


def read_points(path: str, usd_per_hour: float | None = None) -> Iterator[Point]:
    """A point as it was trained, then what the dial made of it, from the JSON that `compare` wrote.

    Args:
        path: That JSON.
        usd_per_hour: Of the machines that trained; None: not known.

    Raises:
        DataError: It was compared without the shards that say what its mix was.
    """
    found = storage.read_json(path)
    if "mix_ratio" not in found["mix"]:
        raise DataError(f"{path}: compared without shards, its mix is not known; give `compare` the shards")
    common: dict[str, Any] = {
        "percent": round(100 * float(found["mix"]["mix_ratio"]), 6),
        "num_steps": int(found["mix"]["num_steps"]),
        "num_tokens": int(found["mix"]["receipt"]["num_tokens"]),
        "model_uri": found["model_uri"],
    }
    cost = training_cost(found["model_uri"], usd_per_hour)
    audit = {key: found[key] for key in ("identity", "mix", "contamination")}
    for item in (found, *found["dial"]):
        of_training = {"cost": cost, "audit": audit} if item is found else {"strength": item["strength"]}
        axes = {axis["axis"]: axis for axis in item["axes"]}
        yield Point(verdict=item["verdict"], reason=item["reason"], axes=axes, **common, **of_training)


def better(axis: dict[str, Any]) -> float:
    """An axis's difference, turned so that more is better."""
    return float(axis["difference"]) * (1 if axis["higher_is_better"] else -1)
