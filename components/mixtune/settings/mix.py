"""Settings of a mix: shares of pools, training length, and which tokens are learned; checked without any data."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction

from mixtune.errors import ConfigError
from mixtune.records import ROLES
from mixtune.settings.chat import ChatSettings
from mixtune.settings.from_dict import from_dict, suggest

UNITS = ("records", "tokens", "loss_tokens")
LARGEST_GRID = 20
"""Points of a mix grid; with more, Argo ends the run for its workflow's size (`tests/backend/workflow_size.py`)."""
_SUM_TOLERANCE = 0.01


def to_fraction(number: object) -> Fraction:
    """Return a number as the decimal that was written: 0.1 is one tenth."""
    return number if isinstance(number, Fraction) else Fraction(str(number))


def check_weights(weights: Mapping[str, float | Fraction]) -> None:
    """Check percents of the general share by pool: the one rule for them.

    Raises:
        ConfigError: A weight is negative, or they do not sum to 100.
    """
    for name, weight in weights.items():
        if weight < 0:
            raise ConfigError(f"weight of {name!r} is {float(weight):g}; it is a percent, 0 to 100")
    total = math.fsum(weights.values())
    if not abs(total - 100) <= _SUM_TOLERANCE:
        raise ConfigError(f"the weights sum to {total:g}; they are percents of the general share, sum 100")


def check_grid(num_points: int) -> None:
    """Check the number of a grid's points; a ConfigError where Argo would end the run after hours."""
    if num_points > LARGEST_GRID:
        raise ConfigError(
            f"customer_data_percents has {num_points} mixes; a run holds {LARGEST_GRID} at most, since Argo ends a run "
            "whose workflow is larger than 1 MiB: make two runs of them, what both need comes from the cache"
        )


def check_percent(percent: float) -> None:
    """Check that a customer share is 0 to 100; else a ConfigError."""
    if not 0 <= percent <= 100:
        raise ConfigError(
            f"customer_data_percent is the customer share of every global batch, 0 to 100; got {percent:g}"
        )


@dataclass(frozen=True, kw_only=True)
class TokenSettings(ChatSettings):
    """How records become tokens, and which of them are learned."""

    max_length: int = 8192
    """Longest record in tokens; 2 or more."""
    too_long: str = "drop"
    """What becomes of longer ones: "drop"; "truncate": cut so that an answer stays whole; or "error"."""
    train_on: tuple[str, ...] = ("assistant",)
    """Roles whose turns are learned: "assistant", "user", "system", "tool"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_choice("too_long", self.too_long, ("drop", "truncate", "error"))
        if self.max_length < 2:
            raise ConfigError(f"max_length counts tokens, 2 or more; got {self.max_length}")
        if not self.train_on:
            raise ConfigError("train_on names no role, so there is nothing to learn; the usual is assistant")
        if unknown := sorted(set(self.train_on) - set(ROLES)):
            raise ConfigError(f"train_on: there is no role {unknown[0]!r}; there are {', '.join(ROLES)}")

    @property
    def chat(self) -> ChatSettings:
        """How conversations are rendered."""
        return ChatSettings(**{item.name: getattr(self, item.name) for item in fields(ChatSettings)})


@dataclass(frozen=True, kw_only=True)
class MixStage:
    """First steps of a run, with shares of their own; None: as in the mix."""

    steps: int
    """1 or more."""
    customer_data_percent: float | None = None
    weights: dict[str, float] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps is 1 or more; got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class MixSettings:
    """The requested mix: pool shares, training length and tokens."""

    customer_data_percent: float
    """Customer share of every global batch, 0 to 100."""
    weights: Mapping[str, float | Fraction] = field(default_factory=dict)
    """Percent of the general share for each general pool; they sum to 100."""
    global_batch_size: int = 32
    """Records of one optimizer step, over all GPUs; 1 or more."""
    customer_epochs: float = 1.0
    """Passes over the customer pool, where `max_steps` is 0; more than 0."""
    max_steps: int = 0
    """Number of steps; 0: by `customer_epochs`."""
    seed: int = 42
    unit: str = "records"
    """What shares count: "records" (every batch holds them), "tokens" or "loss_tokens" (cumulated over batches)."""
    granularity: str = "record"
    """"record"; or "batch": a coin makes every batch the customer's or general, so that only the mean is right."""
    temperature: float = 0.0
    """Not 0: general weights are in proportion of pool size ** (1 / temperature), and `weights` stays empty."""
    stages: tuple[MixStage, ...] = ()
    """First stages of the run; the mix itself follows."""
    max_epochs_per_pool: float = 0.0
    """How often a record of a pool may come, on the mean; 0: no limit."""
    when_exhausted: str = "refuse"
    """Action when a pool reaches that limit: "refuse" the run, "warn", or "redistribute" its share over general
    pools."""
    tokens: TokenSettings = field(default_factory=TokenSettings)

    def __post_init__(self) -> None:
        _check_choice("unit", self.unit, UNITS)
        _check_choice("granularity", self.granularity, ("record", "batch"))
        _check_choice("when_exhausted", self.when_exhausted, ("refuse", "warn", "redistribute"))
        if self.granularity == "batch" and self.unit != "records":
            raise ConfigError(f"granularity 'batch' counts records; unit is {self.unit!r}")
        if self.temperature < 0 or self.max_epochs_per_pool < 0:
            raise ConfigError("temperature and max_epochs_per_pool are 0 or more")
        if self.temperature and self.weights:
            raise ConfigError("weights: they follow from pool sizes where temperature is set; give one of the two")
        check_percent(self.customer_data_percent)
        if self.global_batch_size < 1:
            raise ConfigError(f"global_batch_size counts records, 1 or more; got {self.global_batch_size}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is a whole number from 0; got {self.seed}")
        if self.max_steps < 0:
            raise ConfigError(f"max_steps is a number of steps, 0 for 'by customer_epochs'; got {self.max_steps}")
        if self.max_steps == 0 and self.customer_data_percent == 0:
            raise ConfigError("customer_data_percent is 0, so customer_epochs gives no length; set max_steps")
        if self.max_steps == 0 and not self.customer_epochs > 0:
            raise ConfigError(f"customer_epochs is more than 0, or set max_steps; got {self.customer_epochs}")
        if 0 < self.max_steps < (planned := sum(stage.steps for stage in self.stages)):
            raise ConfigError(
                f"stages take {planned} steps, and max_steps is {self.max_steps}: raise it, or shorten them"
            )
        for number, stage in enumerate(self.stages, 1):
            try:
                self.at_stage(stage)
            except ConfigError as error:
                raise ConfigError(f"stages, entry {number}: {error}") from error

    def about_steps(self, customer_records: int) -> int:
        """Return about how many optimizer steps so many customer records make, where `max_steps` does not say it."""
        return self.max_steps or math.ceil(
            self.customer_epochs * customer_records / self.mix_ratio / self.global_batch_size
        )

    @property
    def mix_ratio(self) -> Fraction:
        """Customer share of every global batch, 0 to 1."""
        return to_fraction(self.customer_data_percent) / 100

    def at_stage(self, stage: MixStage) -> "MixSettings":
        """Return the settings of a stage alone: no stages, the stage's shares in place of the mix's."""
        percent = self.customer_data_percent if stage.customer_data_percent is None else stage.customer_data_percent
        alone = replace(self, stages=(), max_steps=stage.steps, customer_data_percent=percent)
        return alone if stage.weights is None else replace(alone, weights=stage.weights, temperature=0.0)

    def check_general_pools(self, names: Sequence[str]) -> None:
        """Check that the weights of every stage name exactly the general pools.

        Raises:
            ConfigError: A pool without weight, a weight without pool, a negative weight, a sum that is not 100, or no
                general pool where one is needed.
        """
        for stage in self.stages:
            self.at_stage(stage).check_general_pools(names)
        if not self.temperature:
            if missing := sorted(set(names) - set(self.weights)):
                raise ConfigError(f"weights: general pool {missing[0]!r} has none; give it a percent (0 is one)")
            if unknown := sorted(set(self.weights) - set(names)):
                listed = ", ".join(names) or "none"
                raise ConfigError(f"weights: there is no general pool {unknown[0]!r}; there are {listed}")
            if names:
                check_weights(self.weights)
        if not names and self.customer_data_percent < 100:
            raise ConfigError(f"customer_data_percent is {self.customer_data_percent:g}, and there is no general pool")


def read_mix_settings(parameters: Mapping[str, object], options: Mapping[str, object]) -> MixSettings:
    """Build the settings from plain values: those with a parameter of their own, `TokenSettings`' too, and the others.

    Raises:
        ConfigError: An unknown key, a value of another type, or settings that cannot be.
    """
    token_names = {item.name for item in fields(TokenSettings)}
    names = [item.name for item in fields(MixSettings) if item.name != "tokens"] + sorted(token_names)
    if unknown := [key for key in options if key not in names or key in parameters]:
        free = [name for name in names if name not in parameters]
        raise ConfigError(f"options: unknown key {unknown[0]!r}; {suggest(unknown[0], free)}")
    values = {**options, **parameters}
    tokens = from_dict(TokenSettings, {name: values.pop(name) for name in token_names & set(values)}, "mix_shard")
    return from_dict(MixSettings, {**values, "tokens": tokens}, "mix_shard")


def _check_choice(name: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ConfigError(f"{name} is {value!r}; it is one of {', '.join(choices)}")
