"""Settings of the search for the smallest general share: which short trainings it learns from, and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass

from mixtune.errors import ConfigError
from mixtune.settings.from_dict import from_dict
from mixtune.settings.inference import EvaluateSettings

MIN_PROXIES = 3
"""Short trainings that a law of two curves needs at least, at two lengths and two shares."""


def steps_of(percent: float, length: float = 1.0) -> float:
    """Return the steps of a training, in full trainings on customer records alone."""
    return length * 100 / percent


@dataclass(frozen=True, kw_only=True)
class FindSettings:
    """The short trainings, called proxies, and what is asked of the mix that they recommend."""

    customer_data_percents: tuple[float, ...] = (100.0, 92.0, 75.0)
    """Customer shares of the proxies, above 0 and at most 100; dense near 100, where forgetting changes most."""
    proxy_share: float = 0.25
    """Length of a proxy as a share of the full training's customer epochs, above 0 and below 1."""
    short_share: float = 0.4
    """A further proxy on the largest customer share is this much shorter: it tells how forgetting grows with length."""
    proxy_items: int = 200
    """Items of an axis that proxies are evaluated on; 0: all."""
    confidence: float = 0.8
    """Predicted chance that every axis passes, which the recommended share needs, of the most that can be had: that of
    an unchanged model, or of the best share; 0.5 to 0.99."""
    max_cost: float = 6.0
    """Steps of all trainings of a search at most, in full trainings on customer records alone; seven shares from 100 to
    50 % cost 9. At a share of 50 % a full training costs 2."""

    def __post_init__(self) -> None:
        percents = self.customer_data_percents
        if len(set(percents)) < len(percents) or not all(0 < percent <= 100 for percent in percents):
            raise ConfigError(
                f"find_options: customer_data_percents are above 0, at most 100, none twice; got {list(percents)}"
            )
        if len(percents) + 1 < MIN_PROXIES:
            raise ConfigError("find_options: customer_data_percents names two customer shares at least")
        for name, value in {"proxy_share": self.proxy_share, "short_share": self.short_share}.items():
            if not 0 < value < 1:
                raise ConfigError(f"find_options: {name} is above 0 and below 1; got {value:g}")
        if self.proxy_items < 0:
            raise ConfigError(f"find_options: proxy_items counts items, 0 for all; got {self.proxy_items}")
        if not 0.5 <= self.confidence <= 0.99:
            raise ConfigError(f"find_options: confidence is 0.5 to 0.99; got {self.confidence:g}")
        if self.max_cost < (least := self.proxy_cost + steps_of(max(percents))):
            raise ConfigError(
                f"find_options: max_cost is {least:.2f} or more: the short trainings cost {self.proxy_cost:.2f}, then "
                f"comes a full one; got {self.max_cost:g}"
            )

    @property
    def proxies(self) -> list[tuple[float, float]]:
        """Customer share of every proxy and its length, as a share of the full training's."""
        percents = sorted(self.customer_data_percents, reverse=True)
        return [(percents[0], self.proxy_share * self.short_share), *((each, self.proxy_share) for each in percents)]

    def limit_items(self, evaluate_options: Mapping[str, object]) -> dict[str, object]:
        """Return the options of the proxies' evaluations: `proxy_items` of an axis, and no more than a full one has.

        Args:
            evaluate_options: Of the full evaluation, whose base model's items the proxies' are some of.
        """
        settings, most = from_dict(EvaluateSettings, evaluate_options, "evaluate_options"), self.proxy_items
        limits = {axis: min(limit or most, most or limit) for axis, limit in settings.axis_limits.items()}
        limit = min(settings.limit or most, most or settings.limit)
        return {**evaluate_options, "limit": limit, **({"axis_limits": limits} if limits else {})}

    @property
    def proxy_cost(self) -> float:
        """Steps of all proxies, in full trainings on customer records alone."""
        return sum(steps_of(percent, length) for percent, length in self.proxies)


def read_find_settings(options: Mapping[str, object]) -> FindSettings:
    """Build the settings from the `find_options` of a pipeline.

    Raises:
        ConfigError: An unknown key, a value of another type, or settings that cannot be.
    """
    return from_dict(FindSettings, options, "find_options")
