"""A mix as Nova writes it, in and out: the recipe's `data_mixing`, and the SDKs' two lists of percentages.

    data_mixing:                                   customer_data_percent: 75
      sources:                                     nova_data_percentages: {code: 60, math: 40}
        customer_data: {percent: 75}
        nova_data: {code: 60, math: 40}            customer_data_percent: 75
                                                   nova_code_percent: 60
                                                   nova_math_percent: 40

A category's percent is the weight of the general pool with that name. `dataset_catalog` names Nova's own data, which
nobody else has: your pools stand in its place.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mixtune.errors import ConfigError, reason
from mixtune.settings.foreign import JsonObject
from mixtune.settings.from_dict import Options
from mixtune.settings.mix import check_percent, check_weights
from mixtune.settings.pool_entries import read_pool_entries


@dataclass(frozen=True, kw_only=True)
class Mix:
    """What a global batch is made of."""

    customer_data_percent: float
    """Customer share of every global batch, 0 to 100."""
    weights: dict[str, float] = field(default_factory=dict)
    """Percents of the general share by category, sum 100; may be empty at 100 % customer."""

    def __post_init__(self) -> None:
        """Refuse shares that are none."""
        check_percent(self.customer_data_percent)
        if self.customer_data_percent < 100:
            check_weights(self.weights)


def read_mix(file: str) -> Mix:
    """The mix in a YAML or JSON file, in any of the three forms.

    Raises:
        ConfigError: No such file, another form, the customer's percent left out (Nova takes that for 0), or a sum
            that is not 100.
    """
    try:
        value = yaml.safe_load(Path(file).read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"--mix {file}: cannot be read as YAML ({reason(error)})") from error
    if not isinstance(value, dict):
        raise ConfigError(f"--mix {file}: a mapping is needed; got a {type(value).__name__}")
    try:
        percent, weights = _recipe(value["data_mixing"]) if "data_mixing" in value else _percentages(value)
        return Mix(
            customer_data_percent=float(percent),
            weights={name.replace("_", "-"): float(weight) for name, weight in weights.items()},
        )
    except KeyError as error:
        raise ConfigError(f"--mix {file}: {error.args[0]} is left out; say it, 0 included") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"--mix {file}: {error}") from error


def write_mix(mix: Mix) -> str:
    """The mix as the recipe's `data_mixing`."""
    sources = {"customer_data": {"percent": mix.customer_data_percent}, "nova_data": dict(mix.weights)}
    return str(yaml.safe_dump({"data_mixing": {"sources": sources}}, sort_keys=False))


def with_mix(arguments: Options, mix: Mix) -> dict[str, Any]:
    """A pipeline's arguments with the mix in them: the customer's percent, and a weight for every general pool.

    Raises:
        ConfigError: A category without a pool of that name, or a pool without a category.
    """
    pools: list[dict[str, object]] = arguments.get("general_pools") or []
    entries = read_pool_entries([{**pool, "weight": None} for pool in pools])
    names = [entry.category.replace("_", "-") for entry in entries]
    weights = {name: weight for name, weight in mix.weights.items() if weight or name in names}
    if weights or mix.customer_data_percent < 100:
        if missing := sorted(set(weights) - set(names)):
            raise ConfigError(f"the mix wants {', '.join(missing)}, but general_pools has only {', '.join(names)}")
        if unweighted := sorted(set(names) - set(weights)):
            raise ConfigError(f"the mix gives no percent for the pool {', '.join(unweighted)}; say it, 0 included")
        pools = [{**pool, "weight": weights[name]} for pool, name in zip(pools, names, strict=True)]
    return {**arguments, "general_pools": pools, "customer_data_percent": mix.customer_data_percent}


def mix_of(arguments: Options) -> Mix:
    """The mix that a pipeline's arguments ask for.

    Raises:
        ConfigError: They ask for none, as a grid's do not, or a pool has no weight.
    """
    if "customer_data_percent" not in arguments:
        raise ConfigError("this pipeline has no one mix: it has no customer_data_percent")
    entries = read_pool_entries(arguments["general_pools"])
    if unweighted := [entry.category for entry in entries if entry.weight is None]:
        raise ConfigError(f"general_pools: {unweighted[0]} has no weight")
    weights = {entry.category: entry.weight for entry in entries if entry.weight is not None}
    return Mix(customer_data_percent=float(arguments["customer_data_percent"]), weights=weights)


def _recipe(value: JsonObject) -> tuple[float, dict[str, float]]:
    sources = value["sources"]
    return sources["customer_data"]["percent"], sources.get("nova_data") or {}


def _percentages(value: JsonObject) -> tuple[float, dict[str, float]]:
    percent = value["customer_data_percent"]
    rest = {key: item for key, item in value.items() if key not in ("customer_data_percent", "dataset_catalog")}
    if "nova_data_percentages" in rest:
        return percent, rest["nova_data_percentages"] or {}
    if unknown := [key for key in rest if not (key.startswith("nova_") and key.endswith("_percent"))]:
        raise ValueError(f"unknown key {unknown[0]!r}; there are customer_data_percent and nova_<category>_percent")
    return percent, {key.removeprefix("nova_").removesuffix("_percent"): item for key, item in rest.items()}
