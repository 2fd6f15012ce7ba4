"""The search: from the comparisons of short trainings to a share, and on from a full training that did not pass."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from mixtune.artifacts.comparison import ADVISORY, CUSTOMER_AXIS, FAILED, INCONCLUSIVE, PASS, AxisVerdict, Comparison
from mixtune.artifacts.grid import Candidate
from mixtune.artifacts.mix_search import MixSearch, SearchedAxis, SearchRound, TrainingScore
from mixtune.artifacts.samples import Samples
from mixtune.errors import DataError, TrainingError
from mixtune.find_mix.forecast import GENERAL_PERCENTS, NEAR_BEST, forecast_mix
from mixtune.settings.find_mix import MIN_PROXIES, FindSettings, steps_of

MAX_ROUNDS = 2
"""Full trainings of a search."""
WORTH_A_TRAINING = 0.2
"""Least chance to pass of a second full training."""
AGAIN, STOP = "again", "stop"
"""What comes after a full training."""


def start_search(
    comparisons: Sequence[Comparison], base: Samples, settings: FindSettings, customer_epochs: float, seed: int
) -> MixSearch:
    """Fit the laws to the proxies, and forecast the first full training.

    Raises:
        TrainingError: Too few proxies have a model.
        DataError: Proxies that were not compared on the same axes.
    """
    trained = [comparison for comparison in comparisons if comparison.axes]
    failures = tuple(f"{_percent(item):g} %: {item.reason}" for item in comparisons if not item.axes)
    if len(trained) < MIN_PROXIES:
        reasons = "; ".join(failures) or "there are no more"
        raise TrainingError(
            f"{len(trained)} of {len(comparisons)} short trainings have a model, a law needs {MIN_PROXIES} ({reasons})"
        )
    axes = tuple(_searched(axis, base) for axis in trained[0].axes if axis.question != ADVISORY)
    search = MixSearch(
        customer_epochs=customer_epochs,
        confidence=settings.confidence,
        max_cost=settings.max_cost,
        axes=axes,
        scores=tuple(score for item in trained for score in _scores(axes, item, customer_epochs)),
        failures=failures,
    )
    return _next_round(search, seed)


def continue_search(search: MixSearch, comparison: Comparison, seed: int) -> MixSearch:
    """Take a full training into a search whose last round has none; say what follows one that did not pass.

    That is another full training where one that may be paid for is likelier to pass. Else it is up to the user.
    """
    percent, scores = _percent(comparison), search.scores
    candidate = Candidate(name=f"{percent:g} %", comparison=comparison)
    rounds = (*search.rounds[:-1], replace(search.rounds[-1], candidate=candidate))
    if comparison.axes:
        scores = (*scores, *_scores(search.axes, comparison, search.customer_epochs))
    search = replace(search, rounds=rounds, scores=scores)
    if comparison.verdict in (PASS, FAILED):
        return search
    is_payable = any(smallest_share(search) <= 100 - each < percent for each in GENERAL_PERCENTS)
    goes_on = is_payable and len(rounds) < MAX_ROUNDS
    longer = _next_round(search if goes_on else replace(search, max_cost=0.0, rounds=()), seed + len(rounds))
    forecast = longer.rounds[-1].forecast
    chances = {item.percent: item.pass_chance for item in forecast.shares}
    again = chances.get(percent, 0.0)
    if goes_on and chances[forecast.percent] > max(again, WORTH_A_TRAINING):
        return longer
    least = max(again, WORTH_A_TRAINING)
    likelier = {each: chance for each, chance in chances.items() if each < percent and chance > least}
    near_best = [each for each, chance in likelier.items() if chance >= NEAR_BEST * max(likelier.values())]
    search = replace(search, likelier_percent=near_best[0] if near_best else 0.0)
    return replace(search, stopped=_advise(search, chances, again, is_payable=is_payable))


def _advise(search: MixSearch, chances: Mapping[float, float], again: float, *, is_payable: bool) -> str:
    """Return why no full training follows, and what to do: ask the model more items, or train at another share."""
    last, comparison = search.tried[-1], search.tried[-1].comparison
    why = f"it would exceed find_options.max_cost={search.max_cost:g}"
    why = "none that may be paid for is likelier to pass" if is_payable else why
    second = len(search.rounds) < MAX_ROUNDS
    parts = [f"There is no second full training: {why}." if second else "There is no third full training."]
    parts += [axis.advice for axis in comparison.axes if axis.verdict == INCONCLUSIVE]
    if comparison.verdict == INCONCLUSIVE and comparison.limit:
        parts.append(
            f"Next, without a training: run evaluate_only with model_uri={comparison.model_uri} and an "
            f"evaluate_options.limit above {comparison.limit}, where the benchmarks have more items."
        )
    if share := search.likelier_percent:
        parts.append(
            f"Next, with one: run finetune with customer_data_percent={share:g}, the steps of {steps_of(share):.1f} "
            f"trainings on customer records alone. All axes pass with a chance of {chances[share]:.0%}."
        )
    else:
        parts.append(
            f"More general records make no pass likely: trained once more, {last.name} has a chance of {again:.0%}."
        )
    return " ".join(parts)


def smallest_share(search: MixSearch) -> float:
    """Return the smallest customer share whose full training may still be paid for; 0: any."""
    left = search.max_cost - spent(search)
    return 0.0 if not search.max_cost else 100 / max(left, 1.0)


def spent(search: MixSearch) -> float:
    """Return the steps of all trainings so far, in full trainings on customer records alone."""
    proxies = [item for item in search.scores if item.axis == search.axes[0].axis and not item.is_full]
    full = sum(steps_of(candidate.mix.percent) for candidate in search.tried)
    return full + sum(steps_of(proxy.percent, proxy.length) for proxy in proxies)


def describe_cost(search: MixSearch) -> str:
    """Return what the trainings cost in steps, in a sentence."""
    allowed = f"; find_options.max_cost allows {search.max_cost:g}" if search.max_cost else ""
    return f"All trainings took the steps of {spent(search):.1f} full ones on customer records alone{allowed}."


def next_action(search: MixSearch) -> str:
    """Return what comes next: `again` or `stop`."""
    return STOP if search.rounds[-1].candidate else AGAIN


def _next_round(search: MixSearch, seed: int) -> MixSearch:
    forecast = forecast_mix(
        search.axes,
        search.scores,
        confidence=search.confidence,
        tried=[candidate.mix.percent for candidate in search.tried],
        smallest=smallest_share(search) - 1e-9,
        seed=seed,
    )
    return replace(search, rounds=(*search.rounds, SearchRound(forecast=forecast)))


def _searched(axis: AxisVerdict, base: Samples) -> SearchedAxis:
    measure = axis.measure
    is_customer = axis.axis == CUSTOMER_AXIS
    is_share = measure.higher_is_better and not measure.relative and 0 <= measure.base <= 1
    room = 1 - measure.base if is_customer else measure.base
    summary = base.axes.get(axis.axis)
    return SearchedAxis(
        axis=axis.axis,
        is_customer=is_customer,
        limit=axis.min_gain if is_customer else axis.limit,
        largest=max(room, 1e-3) if is_share else 0.0,
        num_items=summary.num_items if summary else axis.items.total,
    )


def _scores(axes: Sequence[SearchedAxis], comparison: Comparison, customer_epochs: float) -> list[TrainingScore]:
    by_name = {axis.axis: axis for axis in comparison.axes}
    if missing := [axis.axis for axis in axes if axis.axis not in by_name]:
        raise DataError(f"the training at {_percent(comparison):g} % was not compared on {missing[0]}, another one was")
    return [
        TrainingScore(
            axis=axis.axis,
            percent=_percent(comparison),
            length=_length(comparison, customer_epochs),
            benefit=by_name[axis.axis].measure.benefit.difference,
            standard_error=by_name[axis.axis].measure.benefit.standard_error,
            num_items=by_name[axis.axis].items.total,
        )
        for axis in axes
    ]


def _percent(comparison: Comparison) -> float:
    if comparison.mix is None:
        raise DataError("a training was compared without shards, so its mix is not known; give `compare` the shards")
    return comparison.mix.percent


def _length(comparison: Comparison, customer_epochs: float) -> float:
    """Return the passes over the customer's records as a share of the full training's."""
    if comparison.mix is None or not comparison.mix.receipt.pools:
        raise DataError("a training was compared without its mix receipt, so its length is not known")
    return comparison.mix.receipt.pools[0].epochs / customer_epochs
