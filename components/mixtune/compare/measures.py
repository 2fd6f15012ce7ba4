"""The scores of an axis, base against candidate, each with its interval."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from scipy.stats import norm

from mixtune.artifacts.comparison import SUPERIORITY, Estimate, Measure
from mixtune.compare import bootstrap, paired_stats
from mixtune.errors import DataError
from mixtune.evaluate.benchmarks.form import AnyForm, Contrast, Labels, ResampledContrast

Tables = tuple[pa.Table, pa.Table]


def measure_axis(form: AnyForm, labels: Labels, tables: Tables, metric: str) -> list[Measure]:
    """Return all scores of an axis; the first is the one that the verdict is about, `metric` where there is such."""
    strata, clusters = tables[0]["subject"].to_pylist(), tables[0]["cluster"].to_pylist()
    measures = []
    for contrast in form.contrasts(*tables, labels):
        if isinstance(contrast, Contrast):
            measures.append(_paired(contrast, form, strata, clusters))
        else:
            measures.append(_resampled(contrast, form, clusters))
    measures.sort(key=lambda measure: measure.metric != metric)
    return _mark_significant(measures) if form.question == SUPERIORITY else measures


def _paired(contrast: Contrast, form: AnyForm, strata: list[str], clusters: list[str]) -> Measure:
    rows = np.flatnonzero(contrast.base.weights)
    values = contrast.base.values[rows], contrast.candidate.values[rows]
    compare = paired_stats.paired_ratio if form.relative else paired_stats.paired_mean
    if not (np.isfinite(values[0]) & np.isfinite(values[1])).all():
        raise DataError(f"{contrast.metric}: an item's score is no number; evaluate again, in float32")
    scores = [float(side.values.sum() / side.weights.sum()) for side in (contrast.base, contrast.candidate)]
    change = compare(*values, [strata[row] for row in rows], [clusters[row] for row in rows])
    return _measure(contrast, form, scores, change)


def _resampled(contrast: ResampledContrast, form: AnyForm, clusters: list[str]) -> Measure:
    change = bootstrap.paired_bootstrap(contrast.base, contrast.candidate, clusters, contrast.draws)
    if contrast.normal_bounds:
        change = paired_stats.estimate(change.difference, change.standard_error)
    equal_weights = np.ones(len(clusters))
    scores = [contrast.base(equal_weights), contrast.candidate(equal_weights)]
    return _measure(contrast, form, scores, change)


def _measure(contrast: Contrast | ResampledContrast, form: AnyForm, scores: list[float], change: Estimate) -> Measure:
    return Measure(
        metric=contrast.metric,
        base=scores[0],
        candidate=scores[1],
        change=change,
        higher_is_better=form.higher_is_better and contrast.higher_is_better,
        relative=form.relative,
    )


def _mark_significant(measures: list[Measure]) -> list[Measure]:
    """Mark the gains that are proved by Holm's step-down procedure, one-sided, family error 0.05."""
    benefits = [measure.benefit for measure in measures]
    p_values = [float(norm.sf(item.difference / max(item.standard_error, 1e-12))) for item in benefits]
    proved: set[int] = set()
    for rank, place in enumerate(np.argsort(p_values)):
        if p_values[place] > 0.05 / (len(p_values) - rank):
            break
        proved.add(int(place))
    return [replace(measure, significant=place in proved) for place, measure in enumerate(measures)]
