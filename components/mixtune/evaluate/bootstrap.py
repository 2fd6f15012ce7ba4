"""Paired bootstrap for scores that are no mean over items: F1 and AUC."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from mixtune.evaluate.statistics import Estimate

Floats = npt.NDArray[np.float64]
DRAWS = 2000
SEED = 20_260

Score = Callable[[Floats], float]
"""A score as a function of the items' weights."""


def paired_bootstrap(base: Score, candidate: Score, clusters: list[str], draws: int = DRAWS) -> Estimate:
    """Difference of two scores, both computed on the same resampled items; bounds are percentiles.

    Args:
        base: The base model's score by item weights.
        candidate: The candidate's.
        clusters: Per item; whole clusters are drawn.
        draws: Number of resamples.
    """
    _, place = np.unique(np.array(clusters), return_inverse=True)
    count = int(place.max()) + 1
    random = np.random.default_rng(SEED)
    differences = np.empty(draws)
    for draw in range(draws):
        weights = np.bincount(random.integers(0, count, count), minlength=count)[place].astype(float)
        differences[draw] = candidate(weights) - base(weights)
    whole = np.ones(len(place))
    return Estimate(
        difference=candidate(whole) - base(whole),
        standard_error=float(differences.std(ddof=1)),
        lower=float(np.quantile(differences, 0.05)),
        upper=float(np.quantile(differences, 0.95)),
    )


def f1_score(gold: list[str], predicted: list[str]) -> Score:
    """Macro F1 over the labels that occur, by item weights."""
    names = sorted(set(gold) | set(predicted))
    index = {name: number for number, name in enumerate(names)}
    wanted = np.array([index[name] for name in gold])
    said = np.array([index[name] for name in predicted])
    hits = wanted == said

    def score(weights: Floats) -> float:
        right = np.bincount(wanted[hits], weights[hits], minlength=len(names))
        total = np.bincount(wanted, weights, minlength=len(names)) + np.bincount(said, weights, minlength=len(names))
        seen = total > 0
        return float((2 * right[seen] / total[seen]).mean())

    return score
