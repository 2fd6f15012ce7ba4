"""The least general share at which every axis is likely to pass, from what trainings lost and gained so far."""

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np
from scipy.special import ndtr

from mixtune.artifacts.mix_search import (
    AxisForecast,
    Interval,
    MixForecast,
    SearchedAxis,
    ShareForecast,
    TrainingScore,
)
from mixtune.find_mix.law import AxisLaw, fit_gain, fit_loss
from mixtune.find_mix.sampler import Array

GENERAL_PERCENTS = (0, 1, 2, 3, 5, 7.5, 10, 12.5, 15, 20, 25, 30, 35, 40, 50, 60, 75, 90)
"""General shares that are weighed."""
Z_VERDICT = 1.6449
"""A verdict asks for the one-sided 95 % bound."""
LOWER, UPPER = 5, 95
NEAR_BEST = 0.9
"""A chance is as good as the best that is this much of it."""
LIKELY = 0.5
"""Where no share has this chance, none is recommended: one is tried."""


def forecast_mix(
    axes: Sequence[SearchedAxis],
    scores: Sequence[TrainingScore],
    *,
    confidence: float,
    tried: Sequence[float] = (),
    smallest: float = 0.0,
    seed: int = 0,
) -> MixForecast:
    """Predict the full training at every share, and choose the least general share that is likely to pass.

    There are trainings of two lengths and two shares at least, on every axis. The share needs `confidence`, 0 to 1, of
    the chance that can be had: that of a model which forgot nothing, or of the best share where that is more. The
    customer shares that were tried did not pass: they and larger ones are out, and so are those below the smallest that
    may be paid for.
    """
    laws = {axis.axis: _fit(axis, scores, seed + number) for number, axis in enumerate(axes)}
    errors = {axis.axis: _final_error(axis, scores) for axis in axes}
    rng = np.random.default_rng(seed)
    shares = tuple(_forecast_share(general / 100, axes, laws, errors, rng) for general in GENERAL_PERCENTS)
    open_shares = [share for share in shares if smallest <= share.percent < min(tried, default=inf)]
    unchanged = _unchanged_chances(axes, errors)
    reachable = max(float(np.prod([*unchanged.values()])), *(share.pass_chance for share in open_shares))
    likely = [share for share in open_shares if share.pass_chance >= confidence * reachable]
    is_certain = bool(likely) and reachable >= LIKELY
    chosen = likely[0] if is_certain else _most_promising(open_shares, is_last=bool(tried))
    reason = _explain(chosen, f"{confidence:.0%} of the {reachable:.0%} that can be had", is_certain=is_certain)
    if chosen.percent < (end := min(score.percent for score in scores)):
        reason += f" That lies beyond the shares tried, which end at {end:g} %."
    reason += _ask_for_items(chosen, axes, unchanged)
    return MixForecast(percent=chosen.percent, is_certain=is_certain, reason=reason, shares=shares)


def _most_promising(shares: Sequence[ShareForecast], *, is_last: bool) -> ShareForecast:
    """Return the share to train at where none is likely to pass.

    Steps grow as the customer's share falls, and a first training at full length teaches the laws more than any proxy:
    it is the one with the most chance for its steps. A last one is the least general of those as good as the best.
    """
    if not is_last:
        return max(shares, key=lambda share: share.pass_chance * share.percent**0.5)
    near_best = NEAR_BEST * max(share.pass_chance for share in shares)
    return next(share for share in shares if share.pass_chance >= near_best)


def _fit(axis: SearchedAxis, scores: Sequence[TrainingScore], seed: int) -> AxisLaw:
    own = [score for score in scores if score.axis == axis.axis]
    largest = axis.largest or inf
    if axis.is_customer:
        return fit_gain(own, largest, seed)
    return fit_loss(own, axis.limit, largest, seed)


def _final_error(axis: SearchedAxis, scores: Sequence[TrainingScore]) -> float:
    """Return the standard error that the full evaluation will have: the mean one, with its number of items."""
    variances = [score.standard_error**2 * score.num_items for score in scores if score.axis == axis.axis]
    return float(np.sqrt(np.mean(variances) / max(axis.num_items, 1)))


def _forecast_share(
    general_share: float,
    axes: Sequence[SearchedAxis],
    laws: Mapping[str, AxisLaw],
    errors: Mapping[str, float],
    rng: np.random.Generator,
) -> ShareForecast:
    forecasts = []
    for axis in axes:
        law, error = laws[axis.axis], errors[axis.axis]
        benefit = law.benefit(general_share)
        deviation = np.hypot(law.error(benefit), error)
        measured = benefit + deviation * rng.standard_normal(len(benefit))
        margin = benefit - axis.least_benefit - Z_VERDICT * error
        chance = float(ndtr(margin / np.maximum(deviation, 1e-12)).mean())
        forecasts.append(
            AxisForecast(axis=axis.axis, limit=axis.limit, benefit=_interval(measured), pass_chance=chance)
        )
    together = float(np.prod([item.pass_chance for item in forecasts]))
    return ShareForecast(percent=100 - 100 * general_share, pass_chance=together, axes=tuple(forecasts))


def _unchanged_chances(axes: Sequence[SearchedAxis], errors: Mapping[str, float]) -> dict[str, float]:
    """Return by general axis the chance that a model which forgot nothing passes it: the fewer items, the smaller."""
    general = [axis for axis in axes if not axis.is_customer and errors[axis.axis] > 0]
    return {axis.axis: float(ndtr(axis.limit / errors[axis.axis] - Z_VERDICT)) for axis in general}


def _ask_for_items(chosen: ShareForecast, axes: Sequence[SearchedAxis], unchanged: Mapping[str, float]) -> str:
    """Return a sentence where the axis that is least likely to pass has too few items for any model; else nothing."""
    weakest = min(chosen.axes, key=lambda axis: axis.pass_chance).axis
    if unchanged.get(weakest, 1.0) >= LIKELY:
        return ""
    num_items = next(axis.num_items for axis in axes if axis.axis == weakest)
    return (
        f" {weakest} has only {num_items:,} items: a model that lost nothing on it passes with a chance of "
        f"{unchanged[weakest]:.0%}. More items raise that; so does a larger max_drop."
    )


def _interval(draws: Array) -> Interval:
    lower, median, upper = np.percentile(draws, [LOWER, 50, UPPER])
    return Interval(median=float(median), lower=float(lower), upper=float(upper))


def _explain(chosen: ShareForecast, asked: str, *, is_certain: bool) -> str:
    general = 100 - chosen.percent
    if is_certain:
        return (
            f"{general:g} % general records are the least with which all axes are likely to pass, with a chance of "
            f"{chosen.pass_chance:.0%}. Asked for was {asked}."
        )
    weakest = min(chosen.axes, key=lambda axis: axis.pass_chance)
    return (
        f"What was trained so far cannot tell. {general:g} % general records promise most for their steps: all axes "
        f"pass with a chance of {chosen.pass_chance:.0%}; weakest is {weakest.axis}, {weakest.pass_chance:.0%}."
    )
