"""What instances cost and hold: the package's own table, or a user's in the same form."""

import datetime
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from mixtune.errors import ConfigError, reason

OWN_TABLE = Path(__file__).with_name("prices.toml")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One instance type."""

    name: str
    usd_per_hour: float
    """Above 0."""
    gpus: int
    gpu: str
    gpu_memory_gb: float
    """Of one GPU, in 10^9 bytes."""
    tflops: float
    """Dense bf16 peak of one GPU, in 10^12 operations a second."""

    def __post_init__(self) -> None:
        for key in ("usd_per_hour", "gpus", "gpu_memory_gb", "tflops"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"price table: {key} of {self.name} is above 0; got {getattr(self, key)}")


@dataclass(frozen=True, kw_only=True)
class Prices:
    """A price table."""

    source: str
    date: datetime.date
    """When the prices were taken."""
    region: str
    stale_after_days: int
    instances: dict[str, Instance]

    def __getitem__(self, name: str) -> Instance:
        if name not in self.instances:
            names = ", ".join(self.instances)
            raise ConfigError(f"no price of {name!r}; there are {names}; give --prices FILE with it")
        return self.instances[name]

    def warning(self, today: datetime.date) -> str:
        """Return a warning where the table is older than it may be; else an empty text."""
        age = (today - self.date).days
        if age <= self.stale_after_days:
            return ""
        return f"the prices are {age} days old ({self.source}, {self.date}); look them up, and give --prices FILE"


def usd_per_hour(hyperpod: str) -> float | None:
    """Return US dollars an hour of all instances of `tracking.hyperpod` (`4x-p5.48xlarge`); None: no price known."""
    match = re.fullmatch(r"(\d+)x-(?:ml\.)?([\w.-]+)", hyperpod)
    instances = read_prices().instances
    return int(match[1]) * instances[match[2]].usd_per_hour if match and match[2] in instances else None


def read_prices(file: str = "") -> Prices:
    """Read a price table; empty: the package's own.

    Raises:
        ConfigError: It cannot be read, or something in it is missing or wrong.
    """
    path = Path(file) if file else OWN_TABLE
    try:
        table = tomllib.loads(path.read_text())
        instances = {name: Instance(name=name, **item) for name, item in table.pop("instances").items()}
        return Prices(instances=instances, **table)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"--prices {path}: not a price table ({reason(error)}); take {OWN_TABLE} as a model"
        ) from error
