"""The scores of an axis, base against candidate, each with its interval."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from mixtune.compare import bootstrap, paired_stats
from mixtune.compare.paired_stats import Estimate
from mixtune.evaluate.benchmarks.form import SUPERIORITY, BenchmarkForm, Contrast, Labels, ResampledContrast

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


def measure_axis(form: BenchmarkForm[Any], labels: Labels, tables: Tables) -> list[Measure]:
    """Return all scores of an axis; the first is the one that the verdict is about."""
    strata, clusters = tables[0]["subject"].to_pylist(), tables[0]["cluster"].to_pylist()
    measures = []
    for contrast in form.contrasts(*tables, labels):
        if isinstance(contrast, Contrast):
            measures.append(_paired(contrast, form, strata, clusters))
        else:
            measures.append(_resampled(contrast, form, clusters))
    return _with_holm(measures) if form.question == SUPERIORITY else measures


def _paired(contrast: Contrast, form: BenchmarkForm[Any], strata: list[str], clusters: list[str]) -> Measure:
    values = contrast.base.values, contrast.candidate.values
    compare = paired_stats.paired_ratio if form.relative else paired_stats.paired_mean
    scores = [float(side.values.sum() / side.weights.sum()) for side in (contrast.base, contrast.candidate)]
    return _measure(contrast.metric, form, scores, compare(*values, strata, clusters))


def _resampled(contrast: ResampledContrast, form: BenchmarkForm[Any], clusters: list[str]) -> Measure:
    found = bootstrap.paired_bootstrap(contrast.base, contrast.candidate, clusters, contrast.draws)
    if contrast.normal_bounds:
        found = paired_stats.estimate(found.difference, found.standard_error)
    whole = np.ones(len(clusters))
    return _measure(contrast.metric, form, [contrast.base(whole), contrast.candidate(whole)], found)


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


def _measure(metric: str, form: BenchmarkForm[Any], scores: list[float], found: Estimate) -> Measure:
    return Measure(
        metric=metric,
        base=scores[0],
        candidate=scores[1],
        difference=found.difference,
        standard_error=found.standard_error,
        lower=found.lower,
        upper=found.upper,
        higher_is_better=form.higher_is_better,
        relative=form.relative,
    )
