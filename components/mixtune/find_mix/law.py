"""Laws of what a training loses and gains, fitted to short trainings with their uncertainty.

Loss on a general axis, after Bethune et al., "Scaling laws for forgetting during finetuning with pretraining data
injection" (2502.06042): `D^b * (A * h - E * (1 - h))`, `h = (1 + B g D^c)^-a`, for length `D` (customer epochs, the
full training's is 1) and general share `g`, where E is what an axis gains from general records. With c above 0 a longer
training learns again what its first steps lost. A score cannot lose more than it has: the loss saturates there.

Gain on the customer's axis: `S * (1 - (1 + (D / D0)^k)^-r) * (1 + c g)`. With k above 1 a task is hardly learned at
first and then at once.

All parameters have broad priors, so that a prediction is as wide as what short trainings leave open.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mixtune.artifacts.mix_search import TrainingScore
from mixtune.find_mix.sampler import Array, sample

RELATIVE_ERROR, ERROR_OF_LIMIT = 0.3, 0.1
"""How far a training lies from the law: a share of what it predicts, and of the limit. Seeds differ by that."""
OFFSET_OF_LIMIT = 0.3
"""Scale of E, as a share of the limit, where no training gained more; E below 0 is a loss that no share mends."""
GAIN_OF_BEST = 2.5
"""Scale of E, as a share of the largest gain of a training."""
MOST_GAINED = 1.0
"""Where a gain saturates: no score of 0 to 1 rises by more, and no loss falls by more than itself."""
MAX_INJECTION = 1000.0
"""Largest B: at 1 % general records the loss has changed by a factor."""
LEAST_DECAY, MAX_DECAY = 0.15, 30.0
"""Range of a; a large one with a small B is exponential in the share."""
POWER_SCALE = 0.6
"""Scale of b around 0.7; below 0 a longer training has lost less."""
RECOVERY_SCALE, MAX_RECOVERY = 1.0, 3.0
"""Scale and largest value of c."""
LEAST_LIMIT = 0.005
"""The scale of an axis that may lose nothing."""
ONSET, ONSET_SCALE, MAX_ONSET = 1.5, 0.7, 6.0
"""Likeliest k, scale of its logarithm, and the largest."""
GAIN_SCALE = 0.02
"""A gain smaller than this is noise, when nothing else gives its scale."""


@dataclass(frozen=True, kw_only=True)
class AxisLaw:
    """Draws of what the full training does on one axis."""

    is_loss: bool
    parameters: Array
    """(num_draws, num_parameters)."""
    largest: float
    """The most that can be lost or gained; inf: no bound."""
    scale: float
    """What counts as a change on the axis, more than 0."""

    def benefit(self, general_share: float, length: float = 1.0) -> Array:
        """Return the law's benefit for every draw: (num_draws,)."""
        law = _loss if self.is_loss else _gain
        values = law(self.parameters, np.array([[general_share, length]]), self.largest)[:, 0]
        return -values if self.is_loss else values

    def error(self, benefit: Array) -> Array:
        """Return how far a training may lie from the law, as a standard deviation, for every draw."""
        return _law_error(benefit, self.scale)


def fit_loss(observations: Sequence[TrainingScore], limit: float, largest: float, seed: int) -> AxisLaw:
    """Fit the loss on a general axis, of which `limit` is allowed and `largest` can be lost; inf: no bound."""
    points, losses, errors = _arrays(observations)
    losses, limit = -losses, max(limit, LEAST_LIMIT)
    scale = max(float(np.max(losses / points[:, 1] ** 0.7)), 0.5 * limit)

    gain_scale = max(OFFSET_OF_LIMIT * limit, GAIN_OF_BEST * float(np.max(-losses / points[:, 1] ** 0.7)))

    def log_prior(draws: Array) -> Array:
        log_a, power, log_b, log_decay, offset, recovery = draws.T
        inside = (np.abs(power - 1) < 1.5) & (log_b > -1) & (log_b < np.log(MAX_INJECTION))
        inside &= (recovery >= 0) & (recovery < MAX_RECOVERY)
        inside &= (log_decay > np.log(LEAST_DECAY)) & (log_decay < np.log(MAX_DECAY))
        offset_scale = np.where(offset > 0, gain_scale, OFFSET_OF_LIMIT * limit)
        density = -0.5 * (
            (log_a - np.log(scale)) ** 2 + ((power - 0.7) / POWER_SCALE) ** 2 + (offset / offset_scale) ** 2
        )
        return np.where(inside, density - 0.5 * (recovery / RECOVERY_SCALE) ** 2, -np.inf)

    def start(rng: np.random.Generator, count: int) -> Array:
        columns = [
            rng.normal(np.log(scale), 0.5, count),
            rng.uniform(0.3, 1.2, count),
            rng.uniform(0.5, np.log(MAX_INJECTION) - 0.5, count),
            rng.uniform(np.log(0.3), np.log(3), count),
            np.abs(rng.normal(0, 0.5 * gain_scale, count)),
            np.abs(rng.normal(0, 0.5 * RECOVERY_SCALE, count)),
        ]
        return np.stack(columns, 1)

    def log_density(draws: Array) -> Array:
        fitted = _loss(draws, points, largest)
        return log_prior(draws) + _log_likelihood(losses, fitted, errors, limit)

    draws = sample(log_density, start, seed)
    return AxisLaw(is_loss=True, parameters=draws, largest=largest, scale=limit)


def fit_gain(observations: Sequence[TrainingScore], largest: float, seed: int) -> AxisLaw:
    """Fit the gain on the customer's axis, of which `largest` is the most that there can be; inf: no bound."""
    points, gains, errors = _arrays(observations)
    best = max(float(np.max(gains + 2 * errors)), GAIN_SCALE)
    # Between twice what short trainings gained and all that there is to gain.
    middle = float(np.sqrt(2 * best * max(largest, 2 * best))) if np.isfinite(largest) else 2 * best
    limit = GAIN_SCALE

    def log_prior(draws: Array) -> Array:
        log_s, log_d, power, slope, log_onset = draws.T
        inside = (power > 0.3) & (power < 2) & (np.exp(log_s) < largest) & (np.abs(log_onset) < np.log(MAX_ONSET))
        density = -0.5 * ((log_s - np.log(middle)) ** 2 + ((log_d - np.log(0.8)) / 1.5) ** 2)
        density -= 0.5 * ((slope / 0.2) ** 2 + ((log_onset - np.log(ONSET)) / ONSET_SCALE) ** 2)
        return np.where(inside, density, -np.inf)

    def start(rng: np.random.Generator, count: int) -> Array:
        columns = [
            np.minimum(rng.normal(np.log(1.3 * best), 0.2, count), np.log(largest) - 0.01),
            rng.normal(np.log(0.2), 0.5, count),
            rng.uniform(0.5, 1.8, count),
            rng.normal(0, 0.1, count),
            rng.normal(0, 0.3, count),
        ]
        return np.stack(columns, 1)

    def log_density(draws: Array) -> Array:
        fitted = _gain(draws, points, largest)
        return log_prior(draws) + _log_likelihood(gains, fitted, errors, limit)

    draws = sample(log_density, start, seed)
    return AxisLaw(is_loss=False, parameters=draws, largest=largest, scale=limit)


def _arrays(observations: Sequence[TrainingScore]) -> tuple[Array, Array, Array]:
    """Return (n, 2) shares and lengths, (n,) benefits, (n,) standard errors."""
    points = np.array([[item.general_share, item.length] for item in observations])
    benefits = np.array([item.benefit for item in observations])
    return points, benefits, np.array([item.standard_error for item in observations])


def _loss(draws: Array, points: Array, largest: float) -> Array:
    """Return the loss of every draw at every point: (num_draws, num_points)."""
    log_a, power, log_b, log_decay, offset, recovery = (column[:, None] for column in draws.T)
    share, length = points.T
    injected = (1 + np.exp(log_b) * share * length**recovery) ** -np.exp(log_decay)
    loss: Array = length**power * (np.exp(log_a) * injected - offset * (1 - injected))
    lost = largest * -np.expm1(-np.maximum(loss, 0) / largest) if np.isfinite(largest) else loss
    saturated: Array = np.where(loss > 0, lost, MOST_GAINED * np.expm1(np.minimum(loss, 0) / MOST_GAINED))
    return saturated


def _gain(draws: Array, points: Array, largest: float) -> Array:
    """Return the gain of every draw at every point: (num_draws, num_points)."""
    log_s, log_d, power, slope, log_onset = (column[:, None] for column in draws.T)
    share, length = points.T
    # Proposals outside the support are computed, too: they may not overflow.
    progress = (length / np.exp(log_d)) ** np.clip(np.exp(log_onset), 0, MAX_ONSET)
    gain: Array = np.exp(log_s) * (1 - (1 + progress) ** -power) * (1 + slope * share)
    capped: Array = np.minimum(gain, largest)
    return capped


def _law_error(fitted: Array, limit: float) -> Array:
    error: Array = np.hypot(RELATIVE_ERROR * fitted, ERROR_OF_LIMIT * limit)
    return error


def _log_likelihood(measured: Array, fitted: Array, errors: Array, limit: float) -> Array:
    """Return (num_draws,) log-likelihoods, normal around the law with its own error and the measurement's."""
    variance = _law_error(fitted, limit) ** 2 + errors**2
    likelihood: Array = -0.5 * np.sum((measured - fitted) ** 2 / variance + np.log(variance), axis=1)
    return likelihood
