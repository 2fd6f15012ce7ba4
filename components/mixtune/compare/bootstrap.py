"""Paired bootstrap for scores that are no mean over items: F1 and AUC."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy import sparse

from mixtune.compare.paired_stats import Estimate

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


def f1_score(gold: list[list[str]], predicted: list[list[str]], names: list[str]) -> Score:
    """Macro F1 by item weights, over the labels that occur with weight in either.

    Args:
        gold: True labels per item; one for single-label data.
        predicted: Labels that were given; none for an invalid answer.
        names: All labels.
    """
    wanted, said = _indicators(gold, names), _indicators(predicted, names)
    both = wanted.multiply(said).tocsr()

    def score(weights: Floats) -> float:
        right = both.T @ weights
        total = wanted.T @ weights + said.T @ weights
        seen = total > 0
        return float((2 * right[seen] / total[seen]).mean())

    return score


def auc_score(gold: list[str], shares: Floats, names: list[str]) -> Score:
    """Mean over labels of one-against-rest AUC, by item weights; ties count half.

    Args:
        gold: True label per item.
        shares: (items, labels).
        names: The labels, as columns of `shares`.
    """
    index = {name: number for number, name in enumerate(names)}
    wanted = np.array([index[label] for label in gold])
    labels = [label for label in np.unique(wanted) if (wanted == label).sum() < len(wanted)]
    sorts = []
    for label in labels:
        column = shares[:, label]
        order = np.argsort(column, kind="stable")
        ranked = column[order]
        hits = np.flatnonzero(wanted[order] == label)
        below, upto = np.searchsorted(ranked, ranked[hits], "left"), np.searchsorted(ranked, ranked[hits], "right")
        sorts.append((order, hits, below, upto))

    def score(weights: Floats) -> float:
        areas = []
        for order, hits, below, upto in sorts:
            ranked = weights[order]
            positive = ranked[hits]
            rest = ranked.copy()
            rest[hits] = 0
            total = np.concatenate([[0.0], np.cumsum(rest)])
            pairs = positive.sum() * total[-1]
            if pairs > 0:
                areas.append(float((positive * (total[below] + total[upto]) / 2).sum() / pairs))
        return float(np.mean(areas)) if areas else 0.5

    return score


def auc_draws(num_items: int, num_labels: int) -> int:
    """Resamples for AUC, which is dear with many labels: 20 to 500."""
    return int(np.clip(4e8 / max(1, num_items * num_labels), 20, 500))


def _indicators(items: list[list[str]], names: list[str]) -> sparse.csr_matrix:
    index = {name: number for number, name in enumerate(names)}
    columns = [index[name] for item in items for name in item]
    starts = np.concatenate([[0], np.cumsum([len(item) for item in items])])
    return sparse.csr_matrix((np.ones(len(columns)), columns, starts), shape=(len(items), len(names)))
