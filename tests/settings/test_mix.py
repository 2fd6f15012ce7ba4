"""Settings of a mix, checked without any data."""

from typing import Any

import pytest

from mixtune.errors import ConfigError
from mixtune.settings.mix import MixSettings, MixStage, check_weights, read_mix_settings

MIX: dict[str, Any] = {"customer_data_percent": 50, "weights": {"chat": 80.0, "math": 20.0}}


def test_plain_values_and_options_become_settings_with_their_types() -> None:
    options = {"train_on": ["user"], "unit": "tokens", "stages": [{"steps": 3.0, "customer_data_percent": 10}]}
    settings = read_mix_settings({**MIX, "global_batch_size": 8.0, "max_length": 4096.0}, options)
    assert (settings.global_batch_size, settings.unit) == (8, "tokens")
    assert (settings.tokens.max_length, settings.tokens.train_on) == (4096, ("user",))
    assert settings.stages == (MixStage(steps=3, customer_data_percent=10.0),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"too_lng": "drop"}, "options: unknown key 'too_lng'; did you mean 'too_long'?"),
        ({"weights": {}}, "options: unknown key 'weights'"),
        ({"too_long": "cut"}, "too_long is 'cut'; it is one of drop, truncate, error"),
        ({"max_length": 1}, "max_length counts tokens, 2 or more; got 1"),
        ({"train_on": []}, "train_on names no role"),
        ({"temperature": "hot"}, "temperature is a number; got 'hot'"),
        ({"stages": [{"steps": 1, "customer_data_percent": 101}]}, "stages, entry 1: customer_data_percent is the"),
    ],
)
def test_an_option_that_is_not_known_or_not_possible_is_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_mix_settings(MIX, options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"chat": 80, "math": 10}, "the weights sum to 90; they are percents of the general share, sum 100"),
        ({"chat": float("nan")}, "the weights sum to nan"),
        ({"chat": 120, "math": -20}, "weight of 'math' is -20; it is a percent, 0 to 100"),
        ({}, "the weights sum to 0"),
    ],
)
def test_weights_that_are_no_percents_of_a_whole_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_weights(weights)


def test_weights_that_are_rounded_thirds_are_accepted() -> None:
    check_weights({"a": 33.33, "b": 33.33, "c": 33.34})
    check_weights({"a": 33.333, "b": 33.333, "c": 33.333})


def test_the_weights_of_every_stage_name_exactly_the_general_pools() -> None:
    MixSettings(**MIX).check_general_pools(["chat", "math"])
    MixSettings(customer_data_percent=50, temperature=2.0).check_general_pools(["chat", "math"])
    MixSettings(customer_data_percent=100).check_general_pools([])
    with pytest.raises(ConfigError, match="general pool 'code' has none; give it a percent"):
        MixSettings(**MIX).check_general_pools(["chat", "math", "code"])
    with pytest.raises(ConfigError, match="there is no general pool 'math'; there are chat"):
        MixSettings(**MIX).check_general_pools(["chat"])
    staged = MixSettings(**MIX, stages=(MixStage(steps=2, weights={"chat": 100.0}),))
    with pytest.raises(ConfigError, match="general pool 'math' has none"):
        staged.check_general_pools(["chat", "math"])
    with pytest.raises(ConfigError, match="customer_data_percent is 50, and there is no general pool"):
        MixSettings(customer_data_percent=50).check_general_pools([])
