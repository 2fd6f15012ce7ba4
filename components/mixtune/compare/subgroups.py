"""Where on an axis a difference comes from: subjects, categories, labels, and single items."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest, false_discovery_control, norm

MAX_FLIPS = 6
MAX_TEXT = 600


@dataclass(frozen=True, kw_only=True)
class Slice:
    """One stratum of an axis."""

    name: str
    num_items: int
    base: float
    candidate: float
    difference: float
    """Candidate minus base; nats per token on general NLL."""
    p_value: float
    """Two-sided: McNemar's exact test for right and wrong, else a paired z test."""
    flagged: bool = False
    """Different after Benjamini and Hochberg's control of false discoveries at 0.05; exploratory."""


def find_slices(form: str, tables: tuple[pa.Table, pa.Table]) -> list[Slice]:
    """All strata of an axis, worst first."""
    base, candidate = tables
    names = np.array(base["subject"].to_pylist())
    found = []
    for name in np.unique(names):
        rows = names == name
        found.append(_nll(str(name), rows, tables) if form == "nll" else _mean(str(name), rows, base, candidate))
    adjusted = false_discovery_control([one.p_value for one in found])
    flagged = [replace(one, flagged=bool(value <= 0.05)) for one, value in zip(found, adjusted, strict=True)]
    sign = -1 if form == "nll" else 1
    return sorted(flagged, key=lambda one: (sign * one.difference, one.name))


def find_flips(tables: tuple[pa.Table, pa.Table], count: int = MAX_FLIPS) -> list[dict[str, Any]]:
    """Items that the base had right and the candidate has wrong; of each stratum in turn."""
    base, candidate = (table["correct"].to_pylist() for table in tables)
    lost = [
        row
        for row, (old, new) in enumerate(zip(base, candidate, strict=True))
        if old == 1 and new is not None and new < 1
    ]
    seen: dict[str, int] = {}
    ranked = []
    for row in lost:
        name = tables[0]["subject"][row].as_py()
        seen[name] = seen.get(name, 0) + 1
        ranked.append((seen[name], row))
    chosen = [row for _, row in sorted(ranked)[:count]]
    return [_flip(tables, row) for row in chosen]


def _flip(tables: tuple[pa.Table, pa.Table], row: int) -> dict[str, Any]:
    def said(table: pa.Table) -> str:
        return str(table["prediction"][row].as_py() or table["response"][row].as_py())[:MAX_TEXT]

    base, candidate = tables
    return {
        "item_id": base["item_id"][row].as_py(),
        "subject": base["subject"][row].as_py(),
        "text": base["text"][row].as_py()[:MAX_TEXT],
        "gold": base["gold"][row].as_py()[:MAX_TEXT],
        "base": said(base),
        "candidate": said(candidate),
    }


def _mean(name: str, rows: Any, base: pa.Table, candidate: pa.Table) -> Slice:
    old, new = (np.array(table["correct"].to_pylist(), dtype=float)[rows] for table in (base, candidate))
    lost, gained = int(((old == 1) & (new == 0)).sum()), int(((old == 0) & (new == 1)).sum())
    binary = set(np.unique(np.concatenate([old, new]))) <= {0.0, 1.0}
    p_value = _z_test(new - old)
    if binary:
        p_value = float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    return _slice(name, old.mean(), new.mean(), len(old), p_value)


def _nll(name: str, rows: Any, tables: tuple[pa.Table, pa.Table]) -> Slice:
    sums = [table["nll"].to_numpy()[rows] for table in tables]
    tokens = tables[0]["num_tokens"].to_numpy()[rows].sum()
    return _slice(name, sums[0].sum() / tokens, sums[1].sum() / tokens, int(rows.sum()), _z_test(sums[1] - sums[0]))


def _slice(name: str, base: float, candidate: float, count: int, p_value: float) -> Slice:
    return Slice(
        name=name,
        num_items=count,
        base=float(base),
        candidate=float(candidate),
        difference=float(candidate - base),
        p_value=p_value,
    )


def _z_test(differences: Any) -> float:
    if len(differences) < 2 or not differences.any():
        return 1.0
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(2 * norm.sf(abs(differences.mean()) / error)) if error else 0.0
