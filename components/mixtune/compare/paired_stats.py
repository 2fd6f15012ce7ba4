"""Paired, stratified comparison of two models on the same items.

A difference is judged by its one-sided 95 % bounds. For a general axis the question is non-inferiority: is the loss
smaller than the allowed one? For the customer's it is superiority: is there a gain at all?
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy.stats import t as student_t

from mixtune.artifacts.comparison import FAIL, INCONCLUSIVE, PASS, Estimate
from mixtune.errors import DataError
from mixtune.evaluate.power import Z95

Floats = npt.NDArray[np.float64]

COARSENESS = 0.25
"""Added to the variance of few changed answers: with it 5.7 % pass at the margin at most, without it 7.2 %."""


def estimate(difference: float, standard_error: float) -> Estimate:
    """Return a difference with normal bounds."""
    reach = Z95 * standard_error
    return Estimate(
        difference=difference, standard_error=standard_error, lower=difference - reach, upper=difference + reach
    )


def paired_mean(base: Floats, candidate: Floats, strata: list[str], clusters: list[str]) -> Estimate:
    """Return the mean difference over items, strata as sampled, items of one cluster taken together.

    The standard error is at least that of one item that changed, so that a few equal answers are no certainty, and is
    widened as Student's t is: few clusters, and few items, spread by chance less than they should. One cluster tells
    nothing of the others. Of right and wrong answers the bounds are at least as wide as Tango's: where few answers
    changed, the spread of those few says too little, and normal bounds would pass one in five models that lost just
    more than is allowed.
    """
    differences = candidate - base
    count = len(set(clusters))
    error = max(_stratified_error(differences, strata, clusters), 1) / len(differences)
    change = estimate(float(differences.mean()), error * widening(count) if count > 1 else 1.0)
    lost, gained = int((differences == -1).sum()), int((differences == 1).sum())
    if lost + gained + int((differences == 0).sum()) < len(differences):
        return change
    lower = min(change.lower, -largest_loss(lost, gained, len(differences)))
    upper = max(change.upper, largest_loss(gained, lost, len(differences)))
    error = max(upper - change.difference, change.difference - lower) / Z95
    return replace(change, standard_error=error, lower=lower, upper=upper)


def largest_loss(lost: int, gained: int, count: int) -> float:
    """Return the largest loss, as a share of `count` pairs, that so many lost and gained answers leave possible.

    It is the bound of Tango's score test for paired proportions (1998), which takes the spread from that very loss. A
    quarter of an item is added to the variance, and Student's t stands for the normal distribution: whole items are
    coarse, and few of them would pass too often.
    """
    reach = Z95 * widening(count) if count > 1 else math.inf
    low, high = (lost - gained) / count, 1.0
    for _ in range(50):
        loss = (low + high) / 2
        half = (lost + gained - (2 * count - lost + gained) * loss) / (4 * count)
        root = math.sqrt(max(0.0, half**2 + gained * loss * (1 - loss) / (2 * count)))
        spread = math.sqrt(max(0.0, count * (2 * (half + root) + loss - loss**2)) + COARSENESS)
        low, high = (loss, high) if count * loss - (lost - gained) < reach * spread else (low, loss)
    return high


def paired_ratio(base: Floats, candidate: Floats, strata: list[str], clusters: list[str]) -> Estimate:
    """Return the relative change of a sum: the candidate's total over the base's, minus one.

    Few items spread by chance less than they should, so the error is widened as Student's t is; a change of a single
    one may be all chance.

    Raises:
        DataError: The base's total is 0, of which nothing is a share.
    """
    total = float(base.sum())
    if not total:
        raise DataError(f"the base's total over {len(base)} items is 0, so that no change is a share of it")
    change = float(candidate.sum()) / total - 1
    if len(set(clusters)) == 1:
        return estimate(change, float(change != 0))
    residual = candidate - (1 + change) * base
    return estimate(change, widening(len(set(clusters))) * _stratified_error(residual, strata, clusters) / abs(total))


@cache
def widening(count: int) -> float:
    """Return by how much the error of `count` clusters, two at least, is wider than the normal distribution has it."""
    return float(student_t.ppf(0.95, count - 1)) / Z95


def non_inferiority(benefit: Estimate, limit: float) -> str:
    """Return `pass` when the loss is surely at most `limit`, `fail` when it is surely more, else `inconclusive`."""
    if benefit.lower >= -limit:
        return PASS
    return FAIL if benefit.upper < -limit else INCONCLUSIVE


def superiority(benefit: Estimate, min_gain: float = 0.0) -> str:
    """Return `pass` when the gain is surely above `min_gain`, `fail` when it is surely below, else `inconclusive`."""
    if benefit.lower > min_gain:
        return PASS
    return FAIL if benefit.upper < min_gain else INCONCLUSIVE


def equivalence(benefit: Estimate, limit: float) -> str:
    """Return `pass` when the difference is surely at most `limit` either way, `fail` when it surely is more."""
    if -limit <= benefit.lower and benefit.upper <= limit:
        return PASS
    return FAIL if benefit.upper < -limit or benefit.lower > limit else INCONCLUSIVE


def overall(verdicts: Sequence[str]) -> str:
    """Return `fail` if any failed, `pass` if all passed, else `inconclusive`."""
    if FAIL in verdicts:
        return FAIL
    return PASS if verdicts and all(verdict == PASS for verdict in verdicts) else INCONCLUSIVE


def _stratified_error(values: Floats, strata: list[str], clusters: list[str]) -> float:
    """Return the standard error of the sum of values, (num_items,): clusters within fixed strata."""
    stratum, cluster = (pa.array(names).dictionary_encode().indices.to_numpy() for names in (strata, clusters))
    # From here on one entry per (stratum, cluster): the sum of its values, its size, its stratum. Clusters that are
    # alone in their stratum share one stratum, since a single value has no variance.
    group, place = np.unique(stratum * np.int64(len(values)) + cluster, return_inverse=True)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    stratum = group // len(values)
    alone = np.bincount(stratum)[stratum] == 1
    stratum = np.where(alone, stratum.max() + 1, stratum)
    # (num_strata,) clusters and mean value of each stratum
    counts = np.bincount(stratum)
    mean = np.bincount(stratum, weights=sums) / np.maximum(np.bincount(stratum, weights=sizes), 1)
    squares = np.bincount(stratum, weights=(sums - mean[stratum] * sizes) ** 2)
    return math.sqrt(float((counts / np.maximum(counts - 1, 1) * squares).sum()))
