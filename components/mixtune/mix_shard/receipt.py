"""The mix receipt: what was asked for and what the shards hold, in records, tokens and loss tokens."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mixtune.artifacts.shards import Drops, MixReceipt, PoolReceipt, StageReceipt, WindowReceipt
from mixtune.mix_shard.assignment import chairman_bound
from mixtune.mix_shard.schedule import CHUNK_SLOTS, Plan
from mixtune.mix_shard.store import Store
from mixtune.settings.mix import UNITS

MAX_WINDOWS = 50
NOTABLE = 1.25
"""Factor between the planned odds of general data and those in loss tokens from which on a note says so."""


@dataclass
class Tally:
    """Counts over the plan; arrays by pool, (pools,), where nothing else is said."""

    totals: np.ndarray
    """int64, (units, pools)."""
    fewest: np.ndarray
    """Records in a global batch."""
    most: np.ndarray
    worst: np.ndarray
    """Largest distance from the target after any step, in the plan's unit."""
    longest: int = 0
    """Largest size of one record in the plan's unit."""
    loss_tokens: list[int] = field(default_factory=list)
    """Per step."""
    max_batch_tokens: int = 0
    """Of the largest global batch."""
    windows: list[WindowReceipt] = field(default_factory=list)


def make_receipt(
    plan: Plan, stores: Sequence[Store], drops: Sequence[Drops], unit: str = "records", notes: Sequence[str] = ()
) -> tuple[MixReceipt, list[int]]:
    """Return the receipt, and the loss tokens of every step, by going through the whole plan.

    `drops` has what was dropped from each pool, `unit` what the planned shares count, `notes` sentences to go with it.
    """
    tally = _count(plan, stores, UNITS.index(unit))
    planned = plan.targets(plan.num_steps) / plan.num_slots
    pools = [_pool(plan, index, stores[index], drops[index], tally, planned) for index in range(len(plan.pools))]
    receipt = MixReceipt(
        num_steps=plan.num_steps,
        global_batch_size=plan.global_batch_size,
        mix_ratio=float(planned[0]),
        seed=plan.seed,
        unit=unit,
        bound=_bound(plan, chairman_bound(int((planned > 0).sum())) if unit == "records" else float(tally.longest)),
        stages=tuple(
            StageReceipt(first_step=stage.first_step, shares=tuple(map(float, stage.shares))) for stage in plan.stages
        ),
        num_tokens=int(tally.totals[1].sum()),
        num_loss_tokens=int(tally.totals[2].sum()),
        max_batch_tokens=tally.max_batch_tokens,
        pools=tuple(pools),
        windows=tuple(tally.windows),
        notes=(*_notes(pools, unit), *notes),
    )
    return receipt, tally.loss_tokens


def _bound(plan: Plan, of_one: float) -> float:
    """Return how far from its target a pool may be: a stage begins with what the one before left, and adds as much."""
    return of_one * min(2, len(plan.stages))


def _count(plan: Plan, stores: Sequence[Store], unit: int) -> Tally:
    size, num_pools = plan.global_batch_size, len(plan.pools)
    zero = np.zeros(num_pools, np.int64)
    tally = Tally(np.zeros((len(UNITS), num_pools), np.int64), zero + size, zero.copy(), np.zeros(num_pools))
    width = -(-plan.num_steps // MAX_WINDOWS)
    chunk = min(width, max(1, CHUNK_SLOTS // size))
    for first_step in range(0, plan.num_steps, width):
        end, before = min(first_step + width, plan.num_steps), tally.totals.copy()
        for step in range(first_step, end, chunk):
            _count_steps(plan, stores, unit, range(step, min(step + chunk, end)), tally)
        within = tally.totals - before
        shares = (within / np.maximum(1, within.sum(1, keepdims=True))).round(6)
        by_unit = {name: tuple(shares[number].tolist()) for number, name in enumerate(UNITS)}
        tally.windows.append(WindowReceipt(first_step=first_step, num_steps=end - first_step, **by_unit))
    return tally


def _count_steps(plan: Plan, stores: Sequence[Store], unit: int, steps: range, tally: Tally) -> None:
    slots = plan.slots(steps.start, len(steps))
    # (units, slots) size of every slot's record
    sizes = np.ones((len(UNITS), len(slots.pools)), np.int64)
    for index, store in enumerate(stores):
        mine = np.flatnonzero(slots.pools == index)
        rows = store.rows[slots.records[mine]]
        sizes[1, mine], sizes[2, mine] = rows["length"], rows["loss_tokens"]
    # (units, steps, pools) sizes summed over the slots of a step and pool
    shape = len(steps), len(plan.pools)
    cell = np.repeat(np.arange(len(steps)), plan.global_batch_size) * shape[1] + slots.pools
    by_step = np.stack([np.bincount(cell, weights, shape[0] * shape[1]).reshape(shape) for weights in sizes])
    by_step = by_step.astype(np.int64)
    # (steps, pools) of the plan's unit after each step; targets in tokens are shares of what all pools gave so far
    ends = tally.totals[unit] + by_step[unit].cumsum(0)
    targets = np.array([plan.targets(step + 1) for step in steps])
    if unit:
        targets = targets / targets.sum(1, keepdims=True) * ends.sum(1, keepdims=True)
    tally.worst = np.maximum(tally.worst, np.abs(ends - targets).max(0))
    tally.fewest = np.minimum(tally.fewest, by_step[0].min(0))
    tally.most = np.maximum(tally.most, by_step[0].max(0))
    tally.longest = max(tally.longest, int(sizes[unit].max()))
    tally.totals += by_step.sum(1)
    tally.loss_tokens += by_step[2].sum(1).tolist()
    tally.max_batch_tokens = max(tally.max_batch_tokens, int(by_step[1].sum(1).max(initial=0)))


def _pool(plan: Plan, index: int, store: Store, drops: Drops, tally: Tally, planned: np.ndarray) -> PoolReceipt:
    num_records, num_tokens, num_loss_tokens = tally.totals[:, index].tolist()
    shares = (tally.totals[:, index] / np.maximum(1, tally.totals.sum(1))).tolist()
    return PoolReceipt(
        name=plan.pools[index].name,
        planned_share=float(planned[index]),
        num_records=num_records,
        num_tokens=num_tokens,
        num_loss_tokens=num_loss_tokens,
        share_of_records=shares[0],
        share_of_tokens=shares[1],
        share_of_loss_tokens=shares[2],
        pool_records=len(store),
        unique_records=min(num_records, len(store)),
        repeats=max(0, num_records - len(store)),
        epochs=num_records / len(store) if len(store) else 0.0,
        per_batch=(int(tally.fewest[index]), int(tally.most[index])),
        worst_deviation=float(tally.worst[index]),
        lengths=length_histogram(store.rows["length"]),
        **vars(drops),
    )


def length_histogram(tokens: np.ndarray) -> dict[str, int]:
    """Return the records of a pool by their length in tokens, between powers of two."""
    sizes = np.bincount(np.frexp(tokens)[1])
    return {f"< {2**power}": int(count) for power, count in enumerate(sizes) if count}


def _notes(pools: Sequence[PoolReceipt], unit: str) -> list[str]:
    """Return a sentence where the general share of what is learned is another than was asked for."""
    planned = sum(pool.planned_share for pool in pools[1:])
    learned = sum(pool.share_of_loss_tokens for pool in pools[1:])
    if not 0 < planned < 1 or not 0 < learned < 1:
        return []
    odds = learned / (1 - learned) / (planned / (1 - planned))
    if unit == "loss_tokens" or 1 / NOTABLE <= odds <= NOTABLE:
        return []
    return [
        f"The mix is {1 - planned:.1%} customer to {planned:.1%} general in {unit}, but "
        f"{pools[0].share_of_loss_tokens:.1%} to {learned:.1%} in loss tokens, which are what the model learns from: "
        "answers differ in length. To plan by loss tokens, give mix_options.unit=loss_tokens."
    ]


def rendering_notes(names: Sequence[str], drops: Sequence[Drops]) -> list[str]:
    """Return a sentence for each pool whose records were split, or are learned without a part of theirs."""
    notes = []
    for name, counts in zip(names, drops, strict=True):
        if counts.num_split:
            notes.append(
                f"pool {name!r}: {counts.num_split:,} records give {counts.num_added:,} examples more: the template "
                "shows earlier turns otherwise than the model writes them; each is learned once, drawn like a record"
            )
        if counts.lost:
            listed = ", ".join(f"{count:,} without {part}" for part, count in counts.lost.items())
            notes.append(f"pool {name!r}: records are learned without a part of theirs: {listed}")
    return notes
