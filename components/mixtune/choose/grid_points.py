"""The points of a mix grid: every customer share to try, with what all of them share."""

from collections.abc import Mapping, Sequence

from mixtune.errors import ConfigError
from mixtune.settings.mix import check_grid


def plan_points(percents: Sequence[float], shared: Mapping[str, object]) -> list[dict[str, object]]:
    """Return the points of a grid: every mix with what all of them share.

    KFP's local runner lets no other task's parameter into a loop, so every point carries all that it needs.

    Raises:
        ConfigError: No percentage, one that is not above 0 and at most 100, or one twice.
    """
    if not percents:
        raise ConfigError("customer_data_percents is empty; name at least one mix, e.g. [100, 75, 50]")
    check_grid(len(percents))
    numbers = [float(percent) for percent in percents]
    for number in numbers:
        if not 0 < number <= 100:
            raise ConfigError(
                f"customer_data_percents: each is above 0 and at most 100, got {number:g}; 0 is the base model itself"
            )
        if numbers.count(number) > 1:
            raise ConfigError(f"customer_data_percents: {number:g} is there twice; name every mix once")
    return [{"percent": number, **shared} for number in numbers]
