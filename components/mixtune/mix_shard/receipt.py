"""The mix receipt: what was asked for and what the shards hold, in records, tokens and loss tokens."""

import html
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from mixtune.mix_shard.plan import CHUNK_SLOTS, Plan
from mixtune.mix_shard.store import Drops, Store

UNITS = ("records", "tokens", "loss_tokens")


def make_receipt(plan: Plan, stores: Sequence[Store], drops: Sequence[Drops]) -> tuple[dict[str, Any], list[int]]:
    """The receipt, and the loss tokens of every step, by going through the whole plan."""
    size, count = plan.global_batch_size, len(plan.pools)
    totals = {unit: np.zeros(count, np.int64) for unit in UNITS}
    per_batch: list[np.ndarray] = []
    loss_tokens: list[int] = []
    deviation = np.zeros(count)
    shares = np.array([float(pool.share) for pool in plan.pools])
    chunk = max(1, CHUNK_SLOTS // size)
    for first in range(0, plan.num_steps, chunk):
        steps = min(chunk, plan.num_steps - first)
        slots = plan.slots(first, steps)
        lengths, losses = np.zeros(len(slots.pools), np.int64), np.zeros(len(slots.pools), np.int64)
        for index, store in enumerate(stores):
            mine = slots.pools == index
            rows = store.rows[slots.records[mine]]
            lengths[mine], losses[mine] = rows["length"], rows["loss_tokens"]
        batches = np.stack([(slots.pools == i).reshape(steps, size).sum(1) for i in range(count)], 1)
        ends = totals["records"] + batches.cumsum(0)
        targets = (np.arange(first + 1, first + steps + 1) * size)[:, None] * shares
        deviation = np.maximum(deviation, np.abs(ends - targets).max(0))
        per_batch.append(batches)
        totals["records"] += batches.sum(0)
        totals["tokens"] += np.bincount(slots.pools, lengths, count).astype(np.int64)
        totals["loss_tokens"] += np.bincount(slots.pools, losses, count).astype(np.int64)
        loss_tokens += losses.reshape(steps, size).sum(1).tolist()
    batches = np.concatenate(per_batch)
    pools = []
    for index, (pool, store, drop) in enumerate(zip(plan.pools, stores, drops, strict=True)):
        drawn = int(totals["records"][index])
        pools.append(
            {
                "name": pool.name,
                "planned_share": float(pool.share),
                **{f"num_{unit}": int(totals[unit][index]) for unit in UNITS},
                **{f"share_of_{unit}": _share(totals[unit], index) for unit in UNITS},
                "pool_records": len(store),
                "unique_records": min(drawn, len(store)),
                "repeats": max(0, drawn - len(store)),
                "epochs": drawn / len(store) if len(store) else 0.0,
                "per_batch": [int(batches[:, index].min()), int(batches[:, index].max())],
                "worst_deviation": float(deviation[index]),
                **asdict(drop),
            }
        )
    receipt = {
        "num_steps": plan.num_steps,
        "global_batch_size": size,
        "mix_ratio": float(plan.pools[0].share),
        "seed": plan.seed,
        "bound": float(plan.bound),
        "num_tokens": int(totals["tokens"].sum()),
        "num_loss_tokens": int(totals["loss_tokens"].sum()),
        "pools": pools,
    }
    return receipt, loss_tokens


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
    return lines


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
    "dropped": "dropped",
}


def receipt_markdown(receipt: dict[str, Any]) -> str:
    """The receipt as a Markdown table."""
    head = f"| {' | '.join(COLUMNS.values())} |\n|{'---|' * len(COLUMNS)}\n"
    rows = "".join(f"| {' | '.join(_cells(pool))} |\n" for pool in receipt["pools"])
    return f"# Mix receipt\n\n{receipt_lines(receipt)[0]}.\n\n{head}{rows}"


def receipt_html(receipt: dict[str, Any]) -> str:
    """The receipt as a page."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS.values())
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(pool)) + "</tr>"
        for pool in receipt["pools"]
    )
    return (
        "<!doctype html><meta charset='utf-8'><title>Mix receipt</title>"
        "<style>body{font:14px sans-serif}td,th{padding:2px 8px;text-align:right}</style>"
        f"<h1>Mix receipt</h1><p>{html.escape(receipt_lines(receipt)[0])}.</p>"
        f"<table><tr>{head}</tr>{rows}</table>"
    )


def _share(totals: np.ndarray, index: int) -> float:
    return float(totals[index] / totals.sum()) if totals.sum() else 0.0


def _cells(pool: dict[str, Any]) -> list[str]:
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
