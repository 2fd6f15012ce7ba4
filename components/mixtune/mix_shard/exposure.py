"""How much of every pool is seen: shares from percents, steps from customer epochs, and what is refused."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import ceil
from typing import Any

from mixtune.errors import ConfigError, DataError
from mixtune.mix_shard.assignment import by_size, chairman, whole_batches
from mixtune.mix_shard.schedule import Stage
from mixtune.mixes import wrong_sum

UNITS = ("records", "tokens", "loss_tokens")


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What is asked for: how much of what, for how long."""

    customer_data_percent: float
    """Customer share of every global batch, 0 to 100."""
    weights: dict[str, float | Fraction] = field(default_factory=dict)
    """Percent of the general share for each general pool; they sum to 100."""
    global_batch_size: int = 32
    """Records of one optimizer step, over all GPUs; 1 or more."""
    customer_epochs: float = 1.0
    """Passes over the customer pool, where `max_steps` is 0; more than 0."""
    max_steps: int = 0
    """Number of steps; 0: by `customer_epochs`."""
    seed: int = 42
    unit: str = "records"
    """What shares count: "records" (every batch holds them), "tokens" or "loss_tokens" (cumulated over batches)."""
    granularity: str = "record"
    """"record", or "batch": a coin makes every batch the customer's or general, as some descriptions have it."""
    temperature: float = 0.0
    """0: `weights` are given; else general weights are in proportion of pool size ** (1 / temperature)."""
    stages: list[dict[str, Any]] = field(default_factory=list)
    """First stages of the run: {"steps", "customer_data_percent", "weights"}; then the mix itself."""
    max_epochs_per_pool: float = 0.0
    """How often a record of a pool may come, on the mean; 0: as often as it takes."""
    when_exhausted: str = "refuse"
    """What becomes of a pool at `max_epochs_per_pool`: "refuse", "warn", or "redistribute" over general pools."""

    def __post_init__(self) -> None:
        _one_of("unit", self.unit, UNITS)
        _one_of("granularity", self.granularity, ("record", "batch"))
        _one_of("when_exhausted", self.when_exhausted, ("refuse", "warn", "redistribute"))
        if self.granularity == "batch" and self.unit != "records":
            raise ConfigError(f"granularity 'batch' counts records; unit is {self.unit!r}")
        if self.temperature < 0 or self.max_epochs_per_pool < 0:
            raise ConfigError("temperature and max_epochs_per_pool are 0 or more")
        if self.temperature and self.weights:
            raise ConfigError("weights: they follow from pool sizes where temperature is set; give one of the two")
        for number, stage in enumerate(self.stages, 1):
            if unknown := sorted(set(stage) - {"steps", "customer_data_percent", "weights"}):
                raise ConfigError(f"stages, entry {number}: unknown key {unknown[0]!r}")
            if not stage.get("steps", 0) >= 1:
                raise ConfigError(f"stages, entry {number}: steps is 1 or more; got {stage.get('steps')}")
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
    return number if isinstance(number, Fraction) else Fraction(str(number))


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
    if general and (wrong := wrong_sum([float(total)])):
        raise ConfigError(f"the weights {wrong}")
    if not general and mix.mix_ratio < 1:
        raise ConfigError(f"customer_data_percent is {mix.customer_data_percent:g}, and there is no general pool")
    return [mix.mix_ratio, *((1 - mix.mix_ratio) * weights[name] / total for name in general)]


def plan_stages(mix: Mix, general: list[str], sizes: Sequence[int]) -> tuple[Stage, ...]:
    """The stages of the run, the last without an end.

    Args:
        mix: What is asked for.
        general: Names of the general pools.
        sizes: Their numbers of records; weights by temperature follow from them.
    """
    if mix.temperature:
        scaled = [round(size ** (1 / mix.temperature) * 10**6) for size in sizes]
        total = max(1, sum(scaled))
        weights: dict[str, float | Fraction] = {
            name: Fraction(100 * value, total) for name, value in zip(general, scaled, strict=True)
        }
        mix = replace(mix, temperature=0.0, weights=weights)
    stages, first = [], 0
    for stage in mix.stages:
        changes = {key: stage[key] for key in ("customer_data_percent", "weights") if key in stage}
        stages.append(Stage(first_step=first, shares=tuple(plan_shares(replace(mix, stages=[], **changes), general))))
        first += int(stage["steps"])
    return (*stages, Stage(first_step=first, shares=tuple(plan_shares(mix, general))))


def plan_length(mix: Mix, num_customer_records: int) -> tuple[int, int]:
    """Number of steps, or 0 and the number of records that the customer's pool is to give.

    `max_steps` decides; else the customer's records are all seen `customer_epochs` times, the last batch filled from
    the next epoch. With one mix of records that is a number of steps: epochs x records / (mix ratio x batch), up.
    """
    draws = exact(mix.customer_epochs) * num_customer_records
    if mix.max_steps:
        return mix.max_steps, 0
    if mix.unit == "records" and mix.granularity == "record" and not mix.stages:
        return ceil(draws / (mix.mix_ratio * mix.global_batch_size)), 0
    return 0, ceil(draws)


def plan_caps(mix: Mix, sizes: Sequence[int]) -> tuple[int, ...]:
    """Records that each pool may give before its share goes to others; empty: no limit."""
    if mix.when_exhausted != "redistribute" or not mix.max_epochs_per_pool:
        return ()
    return tuple(int(mix.max_epochs_per_pool * size) for size in sizes)


def assignment_rule(
    mix: Mix, sizes_from: Callable[[int, int], Iterator[int]]
) -> Callable[[int, tuple[Fraction, ...], list[int]], Iterator[int]]:
    """The rule by which slots are given to pools.

    Args:
        mix: What is asked for.
        sizes_from: Sizes, in `mix.unit`, of a pool's records from its draw on, in the order of draws.
    """

    def rule(step: int, shares: tuple[Fraction, ...], given: list[int]) -> Iterator[int]:
        if mix.granularity == "batch":
            return whole_batches(shares, mix.global_batch_size, mix.seed, step)
        if mix.unit == "records":
            return chairman(shares)
        return by_size(shares, [sizes_from(index, draw) for index, draw in enumerate(given)])

    return rule


def check_repeats(mix: Mix, names: Sequence[str], sizes: Sequence[int], drawn: Sequence[int]) -> list[str]:
    """What is to be said of pools that come more often than `max_epochs_per_pool`.

    Raises:
        ConfigError: `when_exhausted` is "refuse" and there are any.
    """
    if not mix.max_epochs_per_pool:
        return []
    said = [
        f"pool {name!r} gives {count:,} records of {size:,}: {count / size:.2f} epochs, "
        f"max_epochs_per_pool is {mix.max_epochs_per_pool:g}"
        for name, size, count in zip(names, sizes, drawn, strict=True)
        if count > mix.max_epochs_per_pool * size
    ]
    if said and mix.when_exhausted == "refuse":
        raise ConfigError(f"{said[0]}; give it more records, a smaller share, fewer steps, or raise the limit")
    return said


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name} is {value!r}; it is one of {', '.join(known)}")


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
