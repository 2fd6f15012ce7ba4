"""Where on an axis a difference comes from: subjects, categories, labels, and single items."""

from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import binomtest, false_discovery_control, norm

from mixtune.artifacts.comparison import LostItem, Subgroup
from mixtune.compare.measures import Tables
from mixtune.compare.paired_stats import Floats
from mixtune.evaluate.benchmarks.form import AnyForm, ItemScores

MAX_LOST_ITEMS = 6
MAX_CHARACTERS = 600


def compare_subgroups(form: AnyForm, tables: Tables) -> tuple[Subgroup, ...]:
    """Return all strata of an axis, worst first."""
    base, candidate = (form.item_scores(table) for table in tables)
    subjects = np.array(tables[0]["subject"].to_pylist())
    groups = [_compare(str(name), subjects == name, base, candidate) for name in np.unique(subjects)]
    adjusted = false_discovery_control([group.p_value for group in groups])
    flagged = [replace(group, flagged=bool(value <= 0.05)) for group, value in zip(groups, adjusted, strict=True)]
    sign = 1 if form.higher_is_better else -1
    return tuple(sorted(flagged, key=lambda group: (sign * (group.candidate - group.base), group.name)))


def list_lost_items(tables: Tables) -> tuple[LostItem, ...]:
    """Return some items that the base had right and the candidate has wrong; of each stratum in turn."""
    base, candidate = (table["correct"].to_pylist() for table in tables)
    count_by_subject: Counter[str] = Counter()
    ranked = []
    for row, (before, after) in enumerate(zip(base, candidate, strict=True)):
        if before == 1 and after is not None and after < 1:
            subject = tables[0]["subject"][row].as_py()
            count_by_subject[subject] += 1
            ranked.append((count_by_subject[subject], row))
    return tuple(_lost_item(tables, row) for _, row in sorted(ranked)[:MAX_LOST_ITEMS])


def count_changes(tables: Tables) -> tuple[int, int]:
    """Return the number of items that were lost, and that were gained; 0 where nothing is right or wrong."""
    if tables[0]["correct"].null_count:
        return 0, 0
    base, candidate = (table["correct"].to_numpy() for table in tables)
    return int(((base == 1) & (candidate < 1)).sum()), int(((base < 1) & (candidate == 1)).sum())


def _lost_item(tables: Tables, row: int) -> LostItem:
    def answer(table: pa.Table) -> str:
        return str(table["prediction"][row].as_py() or table["response"][row].as_py())[:MAX_CHARACTERS]

    base, candidate = tables
    return LostItem(
        item_id=base["item_id"][row].as_py(),
        subject=base["subject"][row].as_py(),
        text=base["text"][row].as_py()[:MAX_CHARACTERS],
        gold=base["gold"][row].as_py()[:MAX_CHARACTERS],
        base=answer(base),
        candidate=answer(candidate),
    )


def _compare(name: str, rows: npt.NDArray[np.bool_], base: ItemScores, candidate: ItemScores) -> Subgroup:
    """Return one stratum: its scores, and the p-value of McNemar's exact test if items are right or wrong."""
    before, after = base.values[rows], candidate.values[rows]
    scores = [float(side.values[rows].sum() / side.weights[rows].sum()) for side in (base, candidate)]
    p_value = _z_test(after - before)
    if set(np.unique(np.concatenate([before, after]))) <= {0.0, 1.0}:
        lost, gained = int((before > after).sum()), int((before < after).sum())
        p_value = float(binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
    return Subgroup(name=name, num_items=len(before), base=scores[0], candidate=scores[1], p_value=p_value)


def _z_test(differences: Floats) -> float:
    """Return the two-sided p-value of a mean difference, (num_items,)."""
    if len(differences) < 2 or not differences.any():
        return 1.0
    error = differences.std(ddof=1) / np.sqrt(len(differences))
    return float(2 * norm.sf(abs(differences.mean()) / error)) if error else 0.0
