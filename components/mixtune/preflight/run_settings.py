"""A run as preflight sees it: the arguments of a pipeline, and the settings that its steps construct of them."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from mixtune.errors import ConfigError
from mixtune.preflight.places import about_records
from mixtune.settings.from_dict import Options
from mixtune.settings.job import NodeSettings
from mixtune.settings.mix import MixSettings, read_mix_settings
from mixtune.settings.sanitize import SourceSettings
from mixtune.settings.train import TrainSettings

T = TypeVar("T")

NUMBERS = {"customer_epochs": float, "max_steps": int, "learning_rate": float, "seed": int}
"""Parameters that are numbers, by their type: KFP hands 5.0 on for 5."""
SAME = ("base_model", "mix_options", "method", "train_options", "sanitize_options", "evaluate_options", "num_nodes",
        "gpus_per_node", "data_memory", "tracking", "storage")  # fmt: skip
"""Parameters that are taken as they are."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Arguments of a pipeline, under its names and in its units.

    The settings themselves are constructed where a check asks for them, so that all that is wrong comes at once.
    """

    base_model: str
    general_pools: list[str]
    """Their names."""
    weights: dict[str, float]
    """Percent of the general share by general pool; empty where `mix_options` has a temperature."""
    customer_data_percents: list[float]
    """Several for a grid, at least one."""
    customer_epochs: float = 1.0
    max_steps: int = 0
    max_batch_tokens: int = 0
    """Tokens of the largest global batch; 0: not known before the data is mixed."""
    mix_options: Options = field(default_factory=dict)
    method: str = "lora"
    learning_rate: float = 1e-5
    train_options: Options = field(default_factory=dict)
    sanitize_options: Options = field(default_factory=dict)
    evaluate_options: Options = field(default_factory=dict)
    seed: int = 42
    num_nodes: str = ""
    gpus_per_node: str = ""
    data_memory: str = ""
    """Memory that sanitize's tasks reserve, such as `4G`; empty: not looked at."""
    namespace: str = ""
    """Of the training job; empty: the pod's own."""
    measured: list[SourceSettings] = field(default_factory=list)
    """The benchmarks' files, of which no record is trained on."""
    sources: list[SourceSettings] = field(default_factory=list)
    """The records that are read, as `fingerprint` leaves them."""
    limits: Mapping[str, float] = field(default_factory=dict)
    """What may be lost by axis, over the defaults; of the customer's, the gain that is asked for."""
    artifacts: str = ""
    """Folder or prefix that artifacts are written to; empty: not looked at."""
    tracking: Options = field(default_factory=dict)
    storage: Options = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    """Checks of what this run does not do, such as `training` where nothing is trained."""

    @classmethod
    def from_arguments(cls, arguments: Options) -> "RunSettings":
        """Read the arguments of any pipeline, defaults included; no file is looked at.

        What the pipeline does not take has its usual default, and the checks of what it does not do are left out.
        """
        pools = arguments.get("general_pools", [])
        percents = arguments.get("customer_data_percents") or [arguments.get("customer_data_percent", 50.0)]
        mixes = "customer_data_percent" in arguments or "customer_data_percents" in arguments
        trains = "train_options" in arguments
        return cls(
            general_pools=[pool["category"] for pool in pools],
            weights={pool["category"]: float(pool["weight"]) for pool in pools if "weight" in pool},
            customer_data_percents=[float(percent) for percent in percents],
            left_out=(
                *(() if mixes else ("mix",)),
                *(() if trains else ("training", "memory", "cluster")),
                *(() if "evaluate_options" in arguments else ("items",)),
            ),
            **{name: kind(arguments[name]) for name, kind in NUMBERS.items() if name in arguments},
            **{name: arguments[name] for name in SAME if name in arguments},
        )

    @cached_property
    def num_records(self) -> Counter[tuple[str, str]]:
        """About how many records the sources have, by pool and split; 0 where they cannot be counted."""
        return about_records(self.sources)

    @property
    def asks_cluster(self) -> bool:
        """Whether a training job is asked of a cluster."""
        return self.num_nodes not in ("", "0")

    def mix(self, percent: float | None = None) -> MixSettings:
        """Construct the settings of `mix_shard`, for one share or the first; a ConfigError where they cannot be."""
        parameters = {
            "customer_data_percent": self.customer_data_percents[0] if percent is None else percent,
            "weights": self.weights,
            "customer_epochs": self.customer_epochs,
            "max_steps": self.max_steps,
            "seed": self.seed,
        }
        return read_mix_settings(parameters, self.mix_options)

    def training(self) -> TrainSettings:
        """Construct the settings of `train`; a ConfigError where they cannot be."""
        parameters = {"method": self.method, "learning_rate": self.learning_rate, "seed": self.seed}
        return TrainSettings.from_options(self.train_options, **parameters)

    def nodes(self) -> NodeSettings:
        """Construct the settings of the training job; a ConfigError where they cannot be."""
        return NodeSettings(num_nodes=self.num_nodes, gpus_per_node=self.gpus_per_node)


def valid(construct: Callable[[], T]) -> T | None:
    """Return what a method of `RunSettings` constructs; None where it cannot, which is another check's to say."""
    try:
        return construct()
    except ConfigError:
        return None
