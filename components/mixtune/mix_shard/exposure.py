"""How much of every pool is seen: shares from percents, steps from customer epochs, and what is refused."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import ceil

from mixtune.errors import ConfigError, DataError
from mixtune.mix_shard.assignment import by_size, chairman, whole_batches
from mixtune.mix_shard.schedule import Stage
from mixtune.settings.mix import MixSettings, to_fraction


def plan_stages(mix: MixSettings, general: Mapping[str, int]) -> tuple[Stage, ...]:
    """Return the stages of the run with the share of every pool, the customer's first; the last has no end.

    Args:
        mix: Settings whose weights name exactly the general pools.
        general: Number of records by general pool; weights by temperature follow from them.
    """
    stages, first_step = [], 0
    for stage in mix.stages:
        stages.append(Stage(first_step=first_step, shares=_plan_shares(mix.at_stage(stage), general)))
        first_step += stage.steps
    return (*stages, Stage(first_step=first_step, shares=_plan_shares(mix, general)))


def _plan_shares(mix: MixSettings, general: Mapping[str, int]) -> tuple[Fraction, ...]:
    """Return the share of the customer pool and of each general pool; they sum to 1."""
    if mix.temperature:
        weights = [Fraction(round(size ** (1 / mix.temperature) * 10**6)) for size in general.values()]
        weights = weights if any(weights) else [Fraction(1) for _ in weights]
    else:
        weights = [to_fraction(mix.weights[name]) for name in general]
    total = sum(weights)
    return (mix.mix_ratio, *((1 - mix.mix_ratio) * weight / total for weight in weights))


def plan_length(mix: MixSettings, num_customer_records: int) -> tuple[int, int]:
    """Number of steps, or 0 and the number of records that the customer's pool is to give.

    `max_steps` decides; else the customer's records are all seen `customer_epochs` times, the last batch filled from
    the next epoch. With one mix of records that is a number of steps: epochs x records / (mix ratio x batch), up.
    """
    draws = to_fraction(mix.customer_epochs) * num_customer_records
    if mix.max_steps:
        return mix.max_steps, 0
    if mix.unit == "records" and mix.granularity == "record" and not mix.stages:
        return ceil(draws / (mix.mix_ratio * mix.global_batch_size)), 0
    return 0, ceil(draws)


def plan_caps(mix: MixSettings, sizes: Sequence[int]) -> tuple[int, ...]:
    """Records that each pool may give before its share goes to others; empty: no limit."""
    if mix.when_exhausted != "redistribute" or not mix.max_epochs_per_pool:
        return ()
    return tuple(int(mix.max_epochs_per_pool * size) for size in sizes)


def assignment_rule(
    mix: MixSettings, sizes_from: Callable[[int, int], Iterator[int]]
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


def check_repeats(mix: MixSettings, names: Sequence[str], sizes: Sequence[int], drawn: Sequence[int]) -> list[str]:
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
