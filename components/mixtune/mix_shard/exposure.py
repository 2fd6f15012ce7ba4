"""How much of every pool is seen: from the settings of a mix and the sizes of its pools to the plan."""

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from math import ceil
from pathlib import Path

import numpy as np

from mixtune.artifacts.shards import Drops
from mixtune.errors import ConfigError, DataError
from mixtune.mix_shard.assignment import by_size, chairman, whole_batches
from mixtune.mix_shard.schedule import Layout, Plan, PlanPool, Stage, draw_records, lay_out
from mixtune.mix_shard.store import Store
from mixtune.settings.mix import MixSettings, to_fraction

SIZES_AT_ONCE = 4096


def make_plan(
    mix: MixSettings, names: Sequence[str], stores: Sequence[Store], drops: Sequence[Drops], path: Path
) -> Plan:
    """Lay the plan out in a file, the pool of every slot as uint16, which several processes can map.

    The first of the pools is the customer's; the settings' weights name exactly the others. `drops` says what each
    lost.

    Raises:
        DataError: A pool with a share has no record.
        ConfigError: Every general pool has reached its cap.
    """
    pools = tuple(PlanPool(name=name, size=len(store)) for name, store in zip(names, stores, strict=True))
    stages = plan_stages(mix, _general_sizes(pools))
    for stage in stages:
        _check_sizes(pools, stage.shares, drops)
    num_steps, first_pool_draws = plan_length(mix, pools[0].size)

    measures = _Measures(mix, pools, stores)

    def assign(stage: Stage, draws: list[int], lacks: list[Fraction]) -> Iterator[int]:
        if mix.granularity == "batch":
            return whole_batches(stage.shares, mix.global_batch_size, mix.seed, stage.first_step)
        if mix.unit == "records":
            return chairman(stage.shares, lacks)
        lacks = measures.lacks(stage, draws)
        return by_size(stage.shares, [measures.sizes(pool, draw) for pool, draw in enumerate(draws)], lacks)

    capped = mix.when_exhausted == "redistribute" and mix.max_epochs_per_pool
    layout = Layout(
        pools=pools,
        stages=stages,
        global_batch_size=mix.global_batch_size,
        rule=assign,
        num_steps=num_steps,
        first_pool_draws=first_pool_draws,
        caps=tuple(int(mix.max_epochs_per_pool * pool.size) for pool in pools) if capped else (),
    )
    realized = {}
    with open(path, "wb") as file:
        for stage, batch in lay_out(layout):
            realized[stage.first_step] = stage
            batch.tofile(file)
    return Plan(
        pools=pools,
        stages=tuple(realized.values()),
        global_batch_size=mix.global_batch_size,
        seed=mix.seed,
        assigned=np.memmap(path, np.uint16, "r"),
    )


def plan_stages(mix: MixSettings, general: Mapping[str, int]) -> tuple[Stage, ...]:
    """Return the stages of the run with the share of every pool, the customer's first; the last has no end.

    `general` has the number of records by pool: weights by temperature follow from them.
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
    """Return the number of steps, or 0 and the number of records that the customer's pool is to give.

    `max_steps` decides; else the customer's records are all seen `customer_epochs` times, the last batch filled from
    the next epoch. With one mix of records that is a number of steps: epochs x records / (mix ratio x batch), up.
    """
    draws = to_fraction(mix.customer_epochs) * num_customer_records
    if mix.max_steps:
        return mix.max_steps, 0
    if mix.unit == "records" and mix.granularity == "record" and not mix.stages:
        return ceil(draws / (mix.mix_ratio * mix.global_batch_size)), 0
    return 0, ceil(draws)


def check_repeats(mix: MixSettings, plan: Plan) -> list[str]:
    """Return a sentence for each pool that comes more often than `max_epochs_per_pool`.

    Raises:
        ConfigError: `when_exhausted` is "refuse" and there are any.
    """
    if not mix.max_epochs_per_pool:
        return []
    notes = [
        f"pool {pool.name!r} gives {draws:,} records of {pool.size:,}: {draws / pool.size:.2f} epochs, "
        f"max_epochs_per_pool is {mix.max_epochs_per_pool:g}"
        for pool, draws in zip(plan.pools, plan.draws_before(plan.num_slots).tolist(), strict=True)
        if draws > mix.max_epochs_per_pool * pool.size
    ]
    if notes and mix.when_exhausted == "refuse":
        raise ConfigError(f"{notes[0]}; give it more records, a smaller share, fewer steps, or raise the limit")
    begun = [stage for stage in plan_stages(mix, _general_sizes(plan.pools)) if stage.first_step < plan.num_steps]
    shares = [max(by_pool) for by_pool in zip(*(stage.shares for stage in begun), strict=True)]
    exposures = zip(plan.pools, shares, plan.draws_before(plan.num_slots).tolist(), strict=True)
    return notes + [
        f"pool {pool.name!r} gives none of its {pool.size:,} records: its share of one global batch could take it past "
        f"max_epochs_per_pool, {mix.max_epochs_per_pool:g}; its share went to the other general pools"
        for pool, share, draws in exposures
        if mix.when_exhausted == "redistribute"
        and share
        and not draws
        and int(mix.max_epochs_per_pool * pool.size) < share * mix.global_batch_size + 1
    ]


def _general_sizes(pools: Sequence[PlanPool]) -> dict[str, int]:
    return {pool.name: pool.size for pool in pools[1:]}


def _check_sizes(pools: Sequence[PlanPool], shares: Sequence[Fraction], drops: Sequence[Drops]) -> None:
    for pool, share, lost in zip(pools, shares, drops, strict=True):
        if share > 0 and pool.size == 0:
            why = "; ".join(f"{count:,} x {reason}" for reason, count in lost.dropped.items())
            raise DataError(
                f"pool {pool.name!r} is to give {float(share) * 100:g} % of every global batch and has no record with "
                f"tokens to learn: {why or 'its train split is empty'}; give it other records, a larger "
                "mix_options.max_length where they are longer, or a share of 0"
            )


class _Measures:
    """The pools' records, measured in the mix's unit, and what each pool lacks of its target as stages begin."""

    def __init__(self, mix: MixSettings, pools: Sequence[PlanPool], stores: Sequence[Store]) -> None:
        self._mix, self._pools, self._stores = mix, pools, stores
        self._draws, self._lacks = [0] * len(pools), [Fraction(0)] * len(pools)
        self._shares = tuple(self._lacks)

    def lacks(self, stage: Stage, draws: list[int]) -> list[Fraction]:
        """Return what each pool lacks as a stage begins; stages come in their order, with every pool's draws before."""
        spans = enumerate(zip(self._draws, draws, strict=True))
        sizes = [sum(islice(self.sizes(pool, start), end - start)) for pool, (start, end) in spans]
        changes = [share * sum(sizes) - size for share, size in zip(self._shares, sizes, strict=True)]
        self._lacks = [lack + change for lack, change in zip(self._lacks, changes, strict=True)]
        self._draws, self._shares = draws, stage.shares
        return self._lacks

    def sizes(self, pool: int, draw: int) -> Iterator[int]:
        """Yield the sizes of a pool's records from a draw on."""
        field = {"tokens": "length", "loss_tokens": "loss_tokens"}[self._mix.unit]
        while True:
            draws = np.arange(draw, draw + SIZES_AT_ONCE)
            records = draw_records(self._pools, self._mix.seed, np.full(SIZES_AT_ONCE, pool), draws)
            yield from self._stores[pool].rows[records][field].tolist()
            draw += SIZES_AT_ONCE
