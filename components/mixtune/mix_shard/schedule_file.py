"""From what is asked for and the tokenized pools to the plan, laid out in a file that several processes can read."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mixtune.mix_shard.exposure import assignment_rule, check_sizes, plan_caps, plan_length, plan_stages
from mixtune.mix_shard.schedule import Layout, Plan, PlanPool, draw_records, lay_out
from mixtune.mix_shard.store import Store
from mixtune.settings.mix import MixSettings

SIZES_AT_ONCE = 4096


def make_plan(mix: MixSettings, names: Sequence[str], stores: Sequence[Store], path: Path) -> Plan:
    """Lay the plan out in a file.

    Args:
        mix: What is asked for.
        names: Names of the pools, the customer's first.
        stores: Their tokenized records.
        path: Of the file: the pool of every slot.

    Raises:
        DataError: A pool with a share has no record.
        ConfigError: The mix cannot be had from these pools.
    """
    sizes = [len(store) for store in stores]
    stages = plan_stages(mix, dict(zip(names[1:], sizes[1:], strict=True)))
    for stage in stages:
        check_sizes(list(names), sizes, list(stage.shares))
    pools = tuple(PlanPool(name=name, size=size) for name, size in zip(names, sizes, strict=True))
    num_steps, draws = plan_length(mix, sizes[0])
    layout = Layout(
        pools=pools,
        stages=stages,
        global_batch_size=mix.global_batch_size,
        rule=assignment_rule(mix, lambda index, draw: _sizes(mix, pools, stores, index, draw)),
        num_steps=num_steps,
        first_pool_draws=draws,
        caps=plan_caps(mix, sizes),
    )
    found = {}
    with open(path, "wb") as file:
        for stage, batch in lay_out(layout):
            found[stage.first_step] = stage
            batch.tofile(file)
    return Plan(
        pools=pools,
        stages=tuple(found.values()),
        global_batch_size=mix.global_batch_size,
        seed=mix.seed,
        assigned=np.memmap(path, np.uint16, "r"),
    )


def _sizes(
    mix: MixSettings, pools: Sequence[PlanPool], stores: Sequence[Store], index: int, draw: int
) -> Iterator[int]:
    """Sizes of a pool's records from a draw on, in the order of draws."""
    field = {"tokens": "length", "loss_tokens": "loss_tokens"}[mix.unit]
    while True:
        draws = np.arange(draw, draw + SIZES_AT_ONCE)
        records = draw_records(pools, mix.seed, np.full(SIZES_AT_ONCE, index), draws)
        yield from stores[index].rows[records][field].tolist()
        draw += SIZES_AT_ONCE
