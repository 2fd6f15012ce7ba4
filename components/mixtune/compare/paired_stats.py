"""Paired, stratified comparison of two models on the same items.

A difference is judged by its one-sided 95 % bounds. For a general axis the question is non-inferiority: is the loss
smaller than the allowed one? For the customer's it is superiority: is there a gain at all?
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from mixtune.results import FAIL, INCONCLUSIVE, PASS

Floats = npt.NDArray[np.float64]
Z95 = 1.6448536269514722
"""One-sided 95 % point of the normal distribution."""
Z80 = 0.8416212335729143
"""80 % point: the power at which the detectable loss is stated."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference, candidate minus base, with its uncertainty."""

    difference: float
    standard_error: float
    lower: float
    """One-sided 95 % lower bound."""
    upper: float
    """One-sided 95 % upper bound."""

    @property
    def detectable(self) -> float:
        """The smallest allowed loss under which an unchanged model passes in 80 % of runs like this one."""
        return (Z95 + Z80) * self.standard_error


def estimate(difference: float, standard_error: float) -> Estimate:
    """A difference with normal bounds."""
    reach = Z95 * standard_error
    return Estimate(
        difference=difference,
        standard_error=standard_error,
        lower=difference - reach,
        upper=difference + reach,
    )


def paired_mean(base: Floats, candidate: Floats, strata: list[str], clusters: list[str]) -> Estimate:
    """Mean difference over items, strata as sampled, items of one cluster taken together.

    The standard error is at least that of one item that changed, so that a few equal answers are no certainty.
    """
    differences = candidate - base
    error = _stratified_error(differences, strata, clusters) / len(differences)
    return estimate(float(differences.mean()), max(error, 1 / len(differences)))


def paired_ratio(base: Floats, candidate: Floats, strata: list[str], clusters: list[str]) -> Estimate:
    """Relative change of a sum: what the candidate's total is over the base's, minus one."""
    total = float(base.sum())
    change = float(candidate.sum()) / total - 1
    residual = candidate - (1 + change) * base
    return estimate(change, _stratified_error(residual, strata, clusters) / abs(total))


def non_inferiority(found: Estimate, limit: float) -> str:
    """`pass` when the loss is surely at most `limit`, `fail` when it is surely more, else `inconclusive`."""
    if found.lower >= -limit:
        return PASS
    return FAIL if found.upper < -limit else INCONCLUSIVE


def superiority(found: Estimate) -> str:
    """`pass` when there surely is a gain, `fail` when there surely is a loss, else `inconclusive`."""
    if found.lower > 0:
        return PASS
    return FAIL if found.upper < 0 else INCONCLUSIVE


def negated(found: Estimate) -> Estimate:
    """The same difference where lower is better, turned so that more is better."""
    return Estimate(
        difference=-found.difference,
        standard_error=found.standard_error,
        lower=-found.upper,
        upper=-found.lower,
    )


def overall(verdicts: list[str]) -> str:
    """`fail` if any failed, `pass` if all passed, else `inconclusive`."""
    if FAIL in verdicts:
        return FAIL
    return PASS if verdicts and all(verdict == PASS for verdict in verdicts) else INCONCLUSIVE


def _stratified_error(values: Floats, strata: list[str], clusters: list[str]) -> float:
    """Standard error of the sum of values: clusters within fixed strata; lone clusters share one stratum."""
    stratum, cluster = (pa.array(names).dictionary_encode().indices.to_numpy() for names in (strata, clusters))
    group, place = np.unique(stratum * np.int64(len(values)) + cluster, return_inverse=True)
    sums, sizes = np.bincount(place, weights=values), np.bincount(place)
    stratum = group // len(values)
    alone = np.bincount(stratum)[stratum] == 1
    stratum = np.where(alone, stratum.max() + 1, stratum)
    counts = np.bincount(stratum)
    mean = np.bincount(stratum, weights=sums) / np.maximum(np.bincount(stratum, weights=sizes), 1)
    squares = np.bincount(stratum, weights=(sums - mean[stratum] * sizes) ** 2)
    return math.sqrt(float((counts / np.maximum(counts - 1, 1) * squares).sum()))
