"""Where on an axis a difference comes from: subjects, categories, labels, and single items."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import binomtest, false_discovery_control, norm

from mixtune.evaluate.benchmarks.form import BenchmarkForm, ItemScores

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


def find_slices(form: BenchmarkForm[Any], tables: tuple[pa.Table, pa.Table]) -> list[Slice]:
    """Return all strata of an axis, worst first."""
    base, candidate = (form.item_scores(table) for table in tables)
    subjects = np.array(tables[0]["subject"].to_pylist())
    slices = [_slice(str(name), subjects == name, base, candidate) for name in np.unique(subjects)]
    adjusted = false_discovery_control([one.p_value for one in slices])
    flagged = [replace(one, flagged=bool(value <= 0.05)) for one, value in zip(slices, adjusted, strict=True)]
    sign = 1 if form.higher_is_better else -1
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


def _slice(name: str, rows: Any, base: ItemScores, candidate: ItemScores) -> Slice:
    """Return one stratum: its scores, and the p-value of McNemar's exact test if items are right or wrong."""
    before, after = base.values[rows], candidate.values[rows]
    scores = [float(side.values[rows].sum() / side.weights[rows].sum()) for side in (base, candidate)]
    p_value = _z_test(after - before)
    if set(np.unique(np.concatenate([before, after]))) <= {0.0, 1.0}:
        lost, gained = int((before > after).sum()), int((before < after).sum())
        p_value = float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    return Slice(
        name=name,
        num_items=len(before),
        base=scores[0],
        candidate=scores[1],
        difference=scores[1] - scores[0],
        p_value=p_value,
    )


def _z_test(differences: Any) -> float:
    if len(differences) < 2 or not differences.any():
        return 1.0
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(2 * norm.sf(abs(differences.mean()) / error)) if error else 0.0
