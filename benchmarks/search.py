"""The search for the least general share, in simulation: coverage, regret and cost against a grid of seven points.

    python benchmarks/search.py --tasks 60 --results benchmarks/results/search.md

A task is two general axes and the customer's, each following one of three curves that are not the law that is fitted:
exponential, hyperbolic and polynomial in the share, with a floor, a drift, a saturation. Every training scatters by a
tenth of its loss, every evaluation by its number of items.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mixtune.artifacts.mix_search import MixForecast, SearchedAxis, TrainingScore
from mixtune.find_mix.forecast import GENERAL_PERCENTS, forecast_mix
from mixtune.settings.find_mix import FindSettings, steps_of

Curve = Callable[[float, float], float]
"""Benefit by general share, 0 to 1, and length."""
GRID = (100.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0)
PROXIES = ((100.0, 0.1), (100.0, 0.25), (92.0, 0.25), (75.0, 0.25))
LIMIT, BASE, DISCORDANCE, SCATTER, Z95 = 0.02, 0.6, 0.1, 0.1, 1.645


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a search came to on one task."""

    inside: tuple[bool, ...]
    """For every axis of every full training: whether it lay within the predicted 90 %."""
    passes: bool
    grid_passes: bool
    regret: float
    """Customer gain of the best passing grid point minus that of the search; 0 where either has none."""
    cost: float
    """Training steps as a share of the grid's."""


def draw_loss(random: np.random.Generator) -> Curve:
    """Return the curve of a general axis."""
    drop = float(np.exp(random.uniform(np.log(0.02), np.log(0.35))))
    rate, power = float(np.exp(random.uniform(np.log(5), np.log(100)))), random.uniform(0.4, 1.1)
    half, drift = random.uniform(0.1, 0.6), random.uniform(-0.02, 0.005)
    curves: list[Curve] = [
        lambda share, length: -drop * length**power * (0.05 + 0.95 * np.exp(-rate * share)),
        lambda share, length: -drop * (1 - np.exp(-length / half)) / (1 - np.exp(-1 / half)) / (1 + rate * share),
        lambda share, length: -drop * length**power * (1 - share) ** (1 + rate / 4) - drift * share,
    ]
    return curves[random.integers(3)]


def draw_gain(random: np.random.Generator) -> Curve:
    """Return the curve of the customer's axis."""
    most, half, slope = random.uniform(0.1, 0.35), random.uniform(0.05, 1), random.uniform(-0.15, 0.25)
    return lambda share, length: most * (1 - np.exp(-length / half)) * (1 + slope * share)


def measure(
    random: np.random.Generator, curve: Curve, axis: SearchedAxis, percent: float, length: float, items: int
) -> TrainingScore:
    """Train and evaluate once."""
    error = float(np.sqrt(DISCORDANCE / items))
    benefit = curve(1 - percent / 100, length) * (1 + SCATTER * random.standard_normal())
    return TrainingScore(
        axis=axis.axis,
        percent=percent,
        length=length,
        benefit=benefit + error * random.standard_normal(),
        standard_error=error,
        num_items=items,
    )


def run_task(seed: int, proxy_items: int, items: int) -> Outcome:
    """Search on one task, two full trainings at most, and hold it against the grid without noise."""
    random = np.random.default_rng(seed)
    axis = SearchedAxis(axis="", is_customer=False, limit=LIMIT, largest=BASE, num_items=items)
    axes = [replace(axis, axis="first"), replace(axis, axis="second")]
    axes.append(replace(axis, axis="customer", is_customer=True, limit=0.0, largest=1 - BASE))
    curves = [draw_loss(random), draw_loss(random), draw_gain(random)]
    pairs = list(zip(axes, curves, strict=True))
    scores = [
        measure(random, curve, axis, percent, length, proxy_items)
        for percent, length in PROXIES
        for axis, curve in pairs
    ]
    inside: list[bool] = []
    tried: list[float] = []
    passes = False
    steps = sum(steps_of(percent, length) for percent, length in PROXIES)
    while not passes and len(tried) < 2:
        smallest = 100 / max(1.0, FindSettings().max_cost - steps)
        if tried and not any(smallest <= 100 - general < tried[-1] for general in GENERAL_PERCENTS):
            break
        forecast = forecast_mix(axes, scores, confidence=0.8, tried=tried, smallest=smallest, seed=seed)
        steps += steps_of(forecast.percent)
        tried.append(forecast.percent)
        full = [measure(random, curve, axis, forecast.percent, 1.0, items) for axis, curve in pairs]
        inside += is_inside(forecast, full)
        passes = all(passes_axis(axis, score) for axis, score in zip(axes, full, strict=True))
        scores += full
    error = float(np.sqrt(DISCORDANCE / items))
    good = [
        percent
        for percent in GRID
        if all(curve(1 - percent / 100, 1) - Z95 * error >= -axis.limit for axis, curve in pairs)
    ]
    best = max((curves[-1](1 - percent / 100, 1) for percent in good), default=0.0)
    regret = best - curves[-1](1 - tried[-1] / 100, 1) if good and passes else 0.0
    cost = steps / sum(100 / percent for percent in GRID)
    return Outcome(inside=tuple(inside), passes=passes, grid_passes=bool(good), regret=float(regret), cost=cost)


def is_inside(forecast: MixForecast, full: list[TrainingScore]) -> list[bool]:
    """Return for every axis whether what was measured lies within the predicted 90 %."""
    return [
        axis.benefit.lower <= score.benefit <= axis.benefit.upper
        for axis, score in zip(forecast.recommended.axes, full, strict=True)
    ]


def passes_axis(axis: SearchedAxis, score: TrainingScore) -> bool:
    """Return whether `compare` would let an axis pass."""
    return score.benefit - Z95 * score.standard_error >= -axis.limit


def main() -> None:
    """Run all tasks and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=60)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    lines = [
        "# The least general share, searched for in simulation",
        "",
        f"{options.tasks} tasks by `python benchmarks/search.py --tasks {options.tasks}`; the limit is {LIMIT}.",
        "",
        "| items: proxy, full | grid passes | search passes there | it passes elsewhere | inside the 90 % | mean regret | "
        "median cost of the grid's steps | seconds a forecast |",
        "|" + "---|" * 8,
    ]
    for proxy_items, items in ((300, 1_500), (1_000, 3_000), (3_000, 14_000)):
        start = time.process_time()
        outcomes = [run_task(seed, proxy_items, items) for seed in range(options.tasks)]
        seconds = time.process_time() - start
        passed = [item for item in outcomes if item.grid_passes]
        both = [item for item in passed if item.passes]
        inside = [value for item in outcomes for value in item.inside]
        elsewhere = sum(item.passes for item in outcomes) - len(both)
        lines.append(
            f"| {proxy_items:,}, {items:,} | {len(passed)} | {len(both)} | {elsewhere} | {np.mean(inside):.0%} | "
            f"{np.mean([item.regret for item in both]):.4f} | {np.median([item.cost for item in outcomes]):.0%} | "
            f"{seconds / (len(inside) / 3):.2f} |"
        )
        print(lines[-1], flush=True)
    if options.results:
        options.results.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
