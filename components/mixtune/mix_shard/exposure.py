"""How much of every pool is seen: shares from percents, steps from customer epochs, and what is refused."""

from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import Any

from mixtune.errors import ConfigError, DataError

SUM_TOLERANCE = Fraction(1, 10**6)


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What is asked for: how much of what, for how long."""

    customer_data_percent: float
    """Customer share of every global batch, 0 to 100."""
    weights: dict[str, float] = field(default_factory=dict)
    """Percent of the general share for each general pool; they sum to 100."""
    global_batch_size: int = 32
    """Records of one optimizer step, over all GPUs; 1 or more."""
    customer_epochs: float = 1.0
    """Passes over the customer pool, where `max_steps` is 0; more than 0."""
    max_steps: int = 0
    """Number of steps; 0: by `customer_epochs`."""
    seed: int = 42

    def __post_init__(self) -> None:
        if not 0 <= self.customer_data_percent <= 100:
            raise ConfigError(
                f"customer_data_percent is the customer share of every global batch, 0 to 100; "
                f"got {self.customer_data_percent}"
            )
        if self.global_batch_size < 1:
            raise ConfigError(f"global_batch_size counts records, 1 or more; got {self.global_batch_size}")
        if self.max_steps < 0:
            raise ConfigError(f"max_steps is a number of steps, 0 for 'by customer_epochs'; got {self.max_steps}")
        if self.max_steps == 0 and self.customer_data_percent == 0:
            raise ConfigError("customer_data_percent is 0, so customer_epochs gives no length; set max_steps")
        if self.max_steps == 0 and not self.customer_epochs > 0:
            raise ConfigError(f"customer_epochs is more than 0, or set max_steps; got {self.customer_epochs}")

    @property
    def mix_ratio(self) -> Fraction:
        """Customer share of every global batch, 0 to 1."""
        return exact(self.customer_data_percent) / 100


def exact(number: Any) -> Fraction:
    """The decimal number that was written: 0.1 is one tenth."""
    return Fraction(str(number))


def plan_shares(mix: Mix, general: list[str]) -> list[Fraction]:
    """Shares of the customer pool and of each general pool; they sum to 1.

    Raises:
        ConfigError: The weights do not name exactly the general pools, one is negative, or they do not sum to 100.
    """
    weights = {name: exact(weight) for name, weight in mix.weights.items()}
    missing, unknown = sorted(set(general) - set(weights)), sorted(set(weights) - set(general))
    if missing:
        raise ConfigError(f"weights: general pool {missing[0]!r} has none; give it a percent (0 is one)")
    if unknown:
        raise ConfigError(f"weights: there is no general pool {unknown[0]!r}; there are {', '.join(general) or 'none'}")
    for name, weight in weights.items():
        if weight < 0:
            raise ConfigError(f"weights: {name!r} is {float(weight):g}; a percent is 0 or more")
    total = sum(weights.values(), Fraction(0))
    if general and abs(total - 100) > SUM_TOLERANCE:
        raise ConfigError(f"weights are percents of the general share and sum to 100; these sum to {float(total):g}")
    if not general and mix.mix_ratio < 1:
        raise ConfigError(f"customer_data_percent is {mix.customer_data_percent:g}, and there is no general pool")
    return [mix.mix_ratio, *((1 - mix.mix_ratio) * weights[name] / total for name in general)]


def plan_steps(mix: Mix, num_customer_records: int) -> int:
    """Number of steps: `max_steps`, else so many that the customer's records are all seen `customer_epochs` times."""
    if mix.max_steps:
        return mix.max_steps
    return ceil(exact(mix.customer_epochs) * num_customer_records / (mix.mix_ratio * mix.global_batch_size))


def check_sizes(names: list[str], sizes: list[int], shares: list[Fraction]) -> None:
    """Refuse a share of a pool that has nothing to give.

    Raises:
        DataError: A pool with a share has no record.
    """
    for name, size, share in zip(names, sizes, shares, strict=True):
        if share > 0 and size == 0:
            raise DataError(
                f"pool {name!r} is to give {float(share) * 100:g} % of every global batch and has no record with "
                "tokens to learn in its train split; give it records or a share of 0"
            )
