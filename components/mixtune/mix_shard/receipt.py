"""The mix receipt: what was asked for and what the shards hold, in records, tokens and loss tokens."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from mixtune.mix_shard.schedule import CHUNK_SLOTS, Plan
from mixtune.mix_shard.store import Drops, Store

UNITS = ("records", "tokens", "loss_tokens")
MAX_WINDOWS = 50
NOTABLE = 1.25
"""The general share in loss tokens is said in a sentence where it is off the planned one by more than this factor."""


@dataclass
class Tally:
    """What was counted going through the plan; arrays over (steps, pools) or (pools,)."""

    totals: np.ndarray
    """int64, (units, pools)"""
    low: np.ndarray
    """Fewest records of a pool in a global batch."""
    high: np.ndarray
    """Most records of a pool in a global batch."""
    worst: np.ndarray
    """Largest distance from the target after any step, in the plan's unit."""
    longest: int = 0
    """Largest size of one record in the plan's unit."""
    loss_tokens: list[int] = field(default_factory=list)
    """Per step."""
    windows: list[dict[str, Any]] = field(default_factory=list)


def make_receipt(
    plan: Plan, stores: Sequence[Store], drops: Sequence[Drops], unit: str = "records", notes: Sequence[str] = ()
) -> tuple[dict[str, Any], list[int]]:
    """The receipt, and the loss tokens of every step, by going through the whole plan.

    Args:
        plan: The plan.
        stores: Tokenized records of its pools.
        drops: What was dropped from each.
        unit: What the planned shares count.
        notes: Sentences to go with it.
    """
    tally = _count(plan, stores, UNITS.index(unit))
    planned = plan.targets(plan.num_steps) / plan.num_slots
    pools = [_pool(plan, index, stores[index], drops[index], tally, planned) for index in range(len(plan.pools))]
    active = int((planned > 0).sum())
    bound = float(tally.longest) if unit != "records" else max(0.0, 1 - 1 / (2 * (active - 1))) if active > 1 else 0.0
    receipt = {
        "num_steps": plan.num_steps,
        "global_batch_size": plan.global_batch_size,
        "mix_ratio": float(planned[0]),
        "seed": plan.seed,
        "unit": unit,
        "bound": bound,
        "stages": [
            {"first_step": stage.first_step, "shares": [float(share) for share in stage.shares]}
            for stage in plan.stages
        ],
        "num_tokens": int(tally.totals[1].sum()),
        "num_loss_tokens": int(tally.totals[2].sum()),
        "pools": pools,
        "windows": tally.windows,
        "notes": [*_sentences(pools, unit), *notes],
    }
    return receipt, tally.loss_tokens


def receipt_metrics(receipt: dict[str, Any]) -> dict[str, float]:
    """The receipt's numbers under flat names, for a tracker."""
    return {
        f"mix/{pool['name']}/{key}": float(value)
        for pool in receipt["pools"]
        for key, value in pool.items()
        if isinstance(value, int | float)
    }


def _count(plan: Plan, stores: Sequence[Store], unit: int) -> Tally:
    size, count = plan.global_batch_size, len(plan.pools)
    zero = np.zeros(count, np.int64)
    tally = Tally(np.zeros((len(UNITS), count), np.int64), zero + size, zero.copy(), np.zeros(count))
    width = -(-plan.num_steps // MAX_WINDOWS)
    chunk = min(width, max(1, CHUNK_SLOTS // size))
    for window in range(0, plan.num_steps, width):
        end, before = min(window + width, plan.num_steps), tally.totals.copy()
        for first in range(window, end, chunk):
            _count_steps(plan, stores, unit, first, min(chunk, end - first), tally)
        within = tally.totals - before
        shares = within / np.maximum(1, within.sum(1, keepdims=True))
        named = {name: shares[number].round(6).tolist() for number, name in enumerate(UNITS)}
        tally.windows.append({"first_step": window, "num_steps": end - window, **named})
    return tally


def _count_steps(plan: Plan, stores: Sequence[Store], unit: int, first: int, steps: int, tally: Tally) -> None:
    size, count = plan.global_batch_size, len(plan.pools)
    slots = plan.slots(first, steps)
    sizes = np.ones((len(UNITS), len(slots.pools)), np.int64)
    for index, store in enumerate(stores):
        mine = np.flatnonzero(slots.pools == index)
        rows = store.rows[slots.records[mine]]
        sizes[1, mine], sizes[2, mine] = rows["length"], rows["loss_tokens"]
    cell = np.repeat(np.arange(steps), size) * count + slots.pools
    by_step = np.stack([np.bincount(cell, weights, steps * count).reshape(steps, count) for weights in sizes])
    by_step = by_step.astype(np.int64)
    ends = tally.totals[unit] + by_step[unit].cumsum(0)
    targets = np.array([plan.targets(step) for step in range(first + 1, first + steps + 1)])
    if unit:
        targets = targets / targets.sum(1, keepdims=True) * ends.sum(1, keepdims=True)
    tally.worst = np.maximum(tally.worst, np.abs(ends - targets).max(0))
    tally.low, tally.high = np.minimum(tally.low, by_step[0].min(0)), np.maximum(tally.high, by_step[0].max(0))
    tally.longest = max(tally.longest, int(sizes[unit].max()))
    tally.totals += by_step.sum(1)
    tally.loss_tokens += by_step[2].sum(1).tolist()


def _pool(plan: Plan, index: int, store: Store, drop: Drops, tally: Tally, planned: np.ndarray) -> dict[str, Any]:
    drawn, totals = int(tally.totals[0, index]), tally.totals
    shares = totals[:, index] / np.maximum(1, totals.sum(1))
    return {
        "name": plan.pools[index].name,
        "planned_share": float(planned[index]),
        **{f"num_{unit}": int(totals[number, index]) for number, unit in enumerate(UNITS)},
        **{f"share_of_{unit}": float(shares[number]) for number, unit in enumerate(UNITS)},
        "pool_records": len(store),
        "unique_records": min(drawn, len(store)),
        "repeats": max(0, drawn - len(store)),
        "epochs": drawn / len(store) if len(store) else 0.0,
        "per_batch": [int(tally.low[index]), int(tally.high[index])],
        "worst_deviation": float(tally.worst[index]),
        "lengths": length_histogram(store.rows["length"]),
        **asdict(drop),
    }


def length_histogram(tokens: np.ndarray) -> dict[str, int]:
    """Records of a pool by their length in tokens, between powers of two."""
    sizes = np.bincount(np.frexp(tokens)[1])
    return {f"< {2**power}": int(count) for power, count in enumerate(sizes) if count}


def _sentences(pools: Sequence[dict[str, Any]], unit: str) -> list[str]:
    """What a reader must know of the general share: it may be another part of what is learned than was asked for."""
    planned = sum(pool["planned_share"] for pool in pools[1:])
    learned = sum(pool["share_of_loss_tokens"] for pool in pools[1:])
    if not 0 < planned < 1 or not 0 < learned < 1:
        return []
    odds = learned / (1 - learned) / (planned / (1 - planned))
    if unit == "loss_tokens" or 1 / NOTABLE <= odds <= NOTABLE:
        return []
    customer = pools[0]["share_of_loss_tokens"]
    return [
        f"The mix is {1 - planned:.1%} customer to {planned:.1%} general in {unit}, but {customer:.1%} to "
        f"{learned:.1%} in loss tokens, which are what the model learns from: answers differ in length. "
        "To plan by loss tokens, set unit='loss_tokens'."
    ]


def receipt_lines(receipt: dict[str, Any]) -> list[str]:
    """The realized mix, as plain lines."""
    lines = [
        f"{receipt['num_steps']} steps of {receipt['global_batch_size']} records: "
        f"{receipt['num_tokens']:,} tokens, {receipt['num_loss_tokens']:,} of them to learn"
    ]
    for pool in receipt["pools"]:
        low, high = pool["per_batch"]
        lines.append(
            f"{pool['name']}: planned {pool['planned_share']:.4%}, got {pool['share_of_records']:.4%} of records "
            f"({low} to {high} in every global batch), {pool['share_of_tokens']:.2%} of tokens, "
            f"{pool['share_of_loss_tokens']:.2%} of loss tokens; {pool['unique_records']:,} of "
            f"{pool['pool_records']:,} records, {pool['epochs']:.2f} epochs, "
            f"{sum(pool['dropped'].values()):,} dropped"
        )
    return lines + [f"note: {note}" for note in receipt["notes"]]


COLUMNS = {
    "name": "pool",
    "planned_share": "planned",
    "share_of_records": "records",
    "share_of_tokens": "tokens",
    "share_of_loss_tokens": "loss tokens",
    "per_batch": "per batch",
    "worst_deviation": "worst deviation",
    "pool_records": "in pool",
    "num_records": "drawn",
    "epochs": "epochs",
    "repeats": "repeats",
    "num_truncated": "truncated",
    "dropped": "dropped",
}


def receipt_markdown(receipt: dict[str, Any]) -> str:
    """The receipt as a Markdown table."""
    head = f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}\n"
    rows = "".join(f"| {' | '.join(pool_cells(pool))} |\n" for pool in receipt["pools"])
    notes = "".join(f"\n**Note.** {note}\n" for note in receipt["notes"])
    return f"# Mix receipt\n\n{receipt_lines(receipt)[0]}.\n\n{head}{rows}{notes}"


def pool_cells(pool: dict[str, Any]) -> list[str]:
    """A pool's row of the table."""
    cells = []
    for key in COLUMNS:
        value = pool[key]
        if key == "name":
            cells.append(value)
        elif "share" in key:
            cells.append(f"{value:.4%}")
        elif key == "per_batch":
            cells.append(f"{value[0]} to {value[1]}")
        elif key == "dropped":
            cells.append("; ".join(f"{count:,} {reason}" for reason, count in value.items()) or "0")
        else:
            cells.append(f"{value:.2f}" if isinstance(value, float) else f"{value:,}")
    return cells
