"""The scores of an axis, base against candidate, each with its interval."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from mixtune.compare import bootstrap, paired_stats
from mixtune.compare.paired_stats import Estimate, Floats
from mixtune.evaluate.benchmarks.classification import probabilities, read_labels

Tables = tuple[pa.Table, pa.Table]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One score of both models."""

    metric: str
    base: float
    candidate: float
    difference: float
    """Candidate minus base; relative: the change as a share of the base's."""
    standard_error: float
    lower: float
    upper: float
    """One-sided 95 % bounds of the difference."""
    higher_is_better: bool = True
    relative: bool = False
    significant: bool = False
    """The gain is proved among all measures of its axis: one-sided, Holm, family error 0.05."""

    @property
    def judged(self) -> Estimate:
        """The difference turned so that more is better."""
        found = Estimate(
            difference=self.difference, standard_error=self.standard_error, lower=self.lower, upper=self.upper
        )
        return found if self.higher_is_better else paired_stats.negated(found)


def measure_axis(summary: dict[str, Any], tables: Tables) -> list[Measure]:
    """All scores of an axis; the first is the one that the verdict is about."""
    form = summary["form"]
    if form == "nll":
        return [_nll(tables)]
    if form in ("classification", "multilabel"):
        return _with_holm(_classification(summary, tables))
    if form == "mmlu":
        gold = [np.exp(-table["nll"].to_numpy()) for table in tables]
        return [_mean("accuracy", tables, _correct), _paired("gold_probability", tables, gold[0], gold[1])]
    if form == "ifeval":
        return _ifeval(tables)
    if form == "generation":
        return _with_holm(_generation(tables, summary["metric"]))
    return [_mean(summary["metric"], tables, _correct)]


def _nll(tables: Tables) -> Measure:
    base, candidate = tables
    found = paired_stats.paired_ratio(
        base["nll"].to_numpy(),
        candidate["nll"].to_numpy(),
        base["subject"].to_pylist(),
        base["cluster"].to_pylist(),
    )
    scores = [float(table["nll"].to_numpy().sum() / table["num_tokens"].to_numpy().sum()) for table in tables]
    return replace(_measure("nll_per_token", scores, found), higher_is_better=False, relative=True)


def _classification(summary: dict[str, Any], tables: Tables) -> list[Measure]:
    names, clusters = summary["labels"], tables[0]["cluster"].to_pylist()
    several = summary["form"] == "multilabel"
    gold = read_labels(tables[0]["gold"].to_pylist(), several)
    scores = [
        bootstrap.f1_score(gold, read_labels(table["prediction"].to_pylist(), several), names) for table in tables
    ]
    found = bootstrap.paired_bootstrap(scores[0], scores[1], clusters)
    whole = np.ones(len(gold))
    measures = [
        _measure("f1_macro", [score(whole) for score in scores], found),
        _mean("accuracy", tables, _correct),
    ]
    if not several and len(tables[0]["choice_logprobs"][0].as_py()):
        labels = tables[0]["gold"].to_pylist()
        areas = [bootstrap.auc_score(labels, probabilities(table), names) for table in tables]
        draws = bootstrap.auc_draws(len(gold), len(names))
        found = bootstrap.paired_bootstrap(areas[0], areas[1], clusters, draws)
        found = paired_stats.estimate(found.difference, found.standard_error)
        measures.append(_measure("auc_macro", [area(whole) for area in areas], found))
    return measures


def _generation(tables: Tables, first: str) -> list[Measure]:
    rows = [[dict(row) for row in table["measures"].to_pylist()] for table in tables]
    common = set.intersection(*(set(row) for side in rows for row in side))
    names = [first, *sorted(common - {first})]
    columns = {name: [np.array([row[name] for row in side]) for side in rows] for name in names}
    return [_paired(name, tables, base, candidate) for name, (base, candidate) in columns.items()]


def _ifeval(tables: Tables) -> list[Measure]:
    """Prompt level, and instruction level with the instructions of a prompt taken together."""

    def column(table: pa.Table, name: str) -> Floats:
        return np.array([dict(row)[name] for row in table["measures"].to_pylist()])

    measures = [_mean("prompt_strict", tables, _correct)]
    measures.append(_paired("prompt_loose", tables, *(column(table, "prompt_loose") for table in tables)))
    per_prompt = column(tables[0], "instructions").mean()
    for kind in ("strict", "loose"):
        shares = [column(table, f"instructions_{kind}") / per_prompt for table in tables]
        measures.append(_paired(f"instruction_{kind}", tables, *shares))
    return measures


def _with_holm(measures: list[Measure]) -> list[Measure]:
    """The measures with the proved gains marked."""
    values = []
    for measure in measures:
        found = measure.judged
        error = max(found.standard_error, 1e-12)
        values.append(float(norm.sf(found.difference / error)))
    proved: set[int] = set()
    for rank, place in enumerate(np.argsort(values)):
        if values[place] > 0.05 / (len(values) - rank):
            break
        proved.add(int(place))
    return [replace(measure, significant=place in proved) for place, measure in enumerate(measures)]


def _mean(metric: str, tables: Tables, read: Callable[[pa.Table], Floats]) -> Measure:
    return _paired(metric, tables, *(read(table) for table in tables))


def _paired(metric: str, tables: Tables, base: Floats, candidate: Floats) -> Measure:
    strata, clusters = tables[0]["subject"].to_pylist(), tables[0]["cluster"].to_pylist()
    found = paired_stats.paired_mean(base, candidate, strata, clusters)
    return _measure(metric, [float(base.mean()), float(candidate.mean())], found)


def _measure(metric: str, scores: list[float], found: Estimate) -> Measure:
    return Measure(
        metric=metric,
        base=scores[0],
        candidate=scores[1],
        difference=found.difference,
        standard_error=found.standard_error,
        lower=found.lower,
        upper=found.upper,
    )


def _correct(table: pa.Table) -> Floats:
    return np.array(table["correct"].to_pylist(), dtype=float)
