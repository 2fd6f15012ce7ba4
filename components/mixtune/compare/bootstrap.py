"""Paired bootstrap for scores that are no mean over items: F1 and AUC."""

import numpy as np

from mixtune.artifacts.comparison import Estimate
from mixtune.compare import paired_stats
from mixtune.evaluate.benchmarks.form import Score

SEED = 20_260


def paired_bootstrap(base: Score, candidate: Score, clusters: list[str], draws: int) -> Estimate:
    """Return the difference of two scores, both computed on the same resampled items; bounds are percentiles.

    `clusters` has the cluster of each item; whole clusters are drawn, `draws` times. A difference is never more certain
    than that of one item that changed: few records that all changed alike, or not at all, give the same in each draw.
    """
    _, place = np.unique(np.array(clusters), return_inverse=True)
    count = int(place.max()) + 1
    random = np.random.default_rng(SEED)
    differences = np.empty(draws)
    for draw in range(draws):
        weights = np.bincount(random.integers(0, count, count), minlength=count)[place].astype(float)
        differences[draw] = candidate(weights) - base(weights)
    whole = np.ones(len(place))
    difference = candidate(whole) - base(whole)
    error = paired_stats.widening(count) / count if count > 1 else 1.0
    least = paired_stats.estimate(difference, error)
    return Estimate(
        difference=difference,
        standard_error=max(float(differences.std(ddof=1)), least.standard_error),
        lower=min(float(np.quantile(differences, 0.05)), least.lower),
        upper=max(float(np.quantile(differences, 0.95)), least.upper),
    )
