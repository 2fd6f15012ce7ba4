"""Samples from a density of a few parameters, without tuning: the ensemble sampler of Goodman and Weare (2010)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
WALKERS, BURN_IN, ROUNDS, THIN = 80, 400, 400, 4
STRETCH, STARTS = 2.0, 100


def sample(
    log_density: Callable[[Array], Array], start: Callable[[np.random.Generator, int], Array], seed: int
) -> Array:
    """Return draws from a density, (WALKERS * ROUNDS / THIN, num_parameters).

    `log_density` takes (num_walkers, num_parameters) to (num_walkers,), up to a constant, -inf outside its support;
    `start` returns so many points within the support.
    """
    rng = np.random.default_rng(seed)
    points = start(rng, WALKERS * STARTS)
    densities = log_density(points)
    # The likeliest of many: walkers of one mode never cross to another that is far off.
    best = np.argsort(-densities, kind="stable")[:WALKERS]
    walkers, density = points[best], densities[best]
    half, draws = WALKERS // 2, []
    for number in range(BURN_IN + ROUNDS):
        for moving in (slice(0, half), slice(half, WALKERS)):
            others = walkers[half:] if moving.start == 0 else walkers[:half]
            # A walker moves along the line to one of the other half: z ~ 1 / sqrt(z) on [1 / STRETCH, STRETCH].
            scale = (1 + (STRETCH - 1) * rng.random(half)) ** 2 / STRETCH
            partner = others[rng.integers(half, size=half)]
            proposal = partner + scale[:, None] * (walkers[moving] - partner)
            proposed = log_density(proposal)
            accept = np.log(rng.random(half)) < (walkers.shape[1] - 1) * np.log(scale) + proposed - density[moving]
            walkers[moving] = np.where(accept[:, None], proposal, walkers[moving])
            density[moving] = np.where(accept, proposed, density[moving])
        if number >= BURN_IN and number % THIN == 0:
            draws.append(walkers.copy())
    return np.concatenate(draws)
