"""Estimate how likely a verdict is with a number of items: for `preflight` beforehand, for `compare` afterwards."""

import math
from collections.abc import Iterator
from statistics import NormalDist

from mixtune.artifacts.comparison import CUSTOMER_AXIS

Z95 = NormalDist().inv_cdf(0.95)
"""One-sided 95 % point of the normal distribution, by Python itself: where runs are checked there is no scipy."""
Z80 = NormalDist().inv_cdf(0.8)
"""80 % point: the power at which the detectable loss is stated."""
ENOUGH = 0.8
"""Share of runs in which a model that lost nothing should pass."""
CHANGED, OWN_CHANGED, NLL_MOVED = 0.05, 0.1, 0.1**2
"""Variance that an item's change is assumed to have before it is measured: of a benchmark's answers one in twenty turns
right or wrong, of the customer's one in ten; a held-out record's NLL moves by a tenth of the mean."""
GAIN = 0.1
"""The gain that the customer's records should show where no gain is asked for."""


def pass_rate(limit: float, standard_error: float) -> float:
    """Return in which share of runs like this one an unchanged model shows that its loss is at most `limit`, 0 to 1."""
    return NormalDist().cdf(limit / standard_error - Z95) if standard_error > 0 else 1.0


def detectable_loss(standard_error: float) -> float:
    """Return the smallest allowed loss under which an unchanged model passes in 80 % of runs like this one."""
    return (Z95 + Z80) * standard_error


def enough_items(num_items: int, detectable: float, gap: float) -> int:
    """Return how many items show in 80 % of runs a difference `gap`, where `num_items` show `detectable`."""
    exact = math.ceil(num_items * (detectable / max(gap, 1e-9)) ** 2)
    unit = int(10 ** max(0, len(str(exact)) - 2))
    return max(num_items, math.ceil(exact / unit) * unit)


def warn_of_few(
    axis: str, num_items: int, limit: float, way: str, spread: float = CHANGED
) -> Iterator[tuple[str, str]]:
    """Yield a warning where a model that lost nothing would pass an axis in too few runs, and the way out.

    On the customer's axis it is one that gains twice the `limit`, or `GAIN` where no gain is asked for. `way` says how
    there are more items, up to their number; `spread` is the variance of an item's change.
    """
    gains = axis == CUSTOMER_AXIS
    gap, error = limit or (GAIN if gains else 0.0), math.sqrt(spread / max(1, num_items))
    chance, detectable = pass_rate(gap, error), detectable_loss(error)
    if not num_items or chance >= ENOUGH:
        return
    runs, more = f"in about {100 * chance:.0f} % of runs", f"{way} about {enough_items(num_items, detectable, gap):,}"
    if gains:
        proved = f"passes min_gain={limit:g}" if limit else "is proved"
        yield "warn", f"{axis}: about {num_items:,} test records: a gain of {limit + gap:g} {proved} {runs}; {more}"
        return
    text = f"{axis}: {num_items:,} items and max_drop={limit:g}: a model that lost nothing passes {runs}"
    larger = f"set benchmarks.{axis}.max_drop to {math.ceil(1000 * detectable) / 1000:g}"
    yield "warn", f"{text}; {f'{more}, or ' if limit else ''}{larger}"
