"""Training settings, checked as they are constructed: what the train components, their jobs and preflight share."""

import re
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from mixtune.errors import ConfigError
from mixtune.settings.from_dict import from_dict

METHODS = ("lora", "sft")
VALIDATION_STEPS = 5
"""Steps of the validation run that precedes every training."""
LORA_INITS = ("gaussian", "orthogonal", "pissa", "pissa_niter_<number>", "olora")
"""Initialisations by name, beside PEFT's own default (true). None of them needs data."""
SLOW_LORA = 5e-5
"""Learning rate of the B matrices below which an adapter hardly learns."""
FAST = 0.1
"""Learning rate above which one is a slip."""
DTYPES = ("", "float32", "bfloat16")
SMALLEST = sys.float_info.min
"""Above 0."""
ACTIVATIONS = ("", "keep", "selective", "recompute", "offload")
COMPILED = ("", "yes", "no")


def _check_range(
    settings: object, names: tuple[str, ...], words: str, *, low: float, high: float = float("inf")
) -> None:
    for name in names:
        if not low <= getattr(settings, name) <= high:
            raise ConfigError(f"{name} is {words}; got {getattr(settings, name)}")


@dataclass(frozen=True, kw_only=True)
class ScheduleSettings:
    """The learning-rate schedule and AdamW's other settings."""

    min_lr_ratio: float = 0.1
    """Learning rate after the last step as a share of the peak, 0 to 1; a cosine leads there."""
    warmup_ratio: float = 0.05
    """Share of the steps over which the learning rate rises, 0 to 1."""
    weight_decay: float = 0.0
    """Decoupled weight decay, 0 or more."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm, above 0."""

    def __post_init__(self) -> None:
        _check_range(self, ("min_lr_ratio", "warmup_ratio"), "a share, 0 to 1", low=0, high=1)
        _check_range(self, ("weight_decay",), "0 or more", low=0)
        _check_range(self, ("max_grad_norm",), "above 0", low=SMALLEST)


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """When a training stops by itself; 0 switches a guard off."""

    max_loss_rise: float = 5.0
    """Nats by which a loss may exceed the mean of the last 20 steps."""
    max_grad_ratio: float = 100.0
    """Factor by which a gradient norm may exceed the mean of the last 20 steps (or `max_grad_norm`)."""
    max_nll_rise: float = 0.0
    """Nats a token by which the NLL of held-out general records may exceed the base model's. Beyond, the training ends
    with the newest checkpoint within. Measured whenever a checkpoint is due by its steps, and at the end."""

    def __post_init__(self) -> None:
        _check_range(self, ("max_loss_rise", "max_grad_ratio", "max_nll_rise"), "0 or more", low=0)


@dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
    """How often a checkpoint is written, and how many stay."""

    every_steps: int = 100
    """Steps between two checkpoints, 1 or more."""
    every_seconds: float = 0.0
    """Above 0: a checkpoint also whenever this many seconds have passed since the last."""
    keep: int = 2
    """Newest checkpoints that stay until the model is there, 1 or more."""

    def __post_init__(self) -> None:
        _check_range(self, ("every_steps", "keep"), "1 or more", low=1)
        _check_range(self, ("every_seconds",), "0 or more", low=0)


@dataclass(frozen=True, kw_only=True)
class MemorySettings:
    """What fits on a GPU, and in which precision."""

    max_tokens_per_gpu: int = 0
    """Tokens of one micro batch at most; a longer record is a micro batch of its own. 0: 16,384 on a GPU; on a CPU as
    many as its memory holds, and no more than packed records are quicker with."""
    dtype: str = ""
    """Of the arithmetic: `float32`, or `bfloat16` with trained weights in float32; empty: `bfloat16` on GPUs alone."""
    activations: str = ""
    """For the backward pass: `keep` them; `selective`: keep results of matrix products and attention; `recompute` each
    layer's; or `offload` the layers' inputs to the host's memory as well. Empty: on GPUs the first of these but
    `offload` that surely fits, by the estimate; else `keep`."""
    compiled: str = ""
    """`yes`: layers are compiled by torch, where they compile; `no`; empty: `yes` on GPUs."""
    fused_kernels: bool = False
    """Liger's kernels for norms, rotary embeddings and MLPs, on GPUs."""
    shard_base: bool = False
    """LoRA: shard the base model over the processes (FSDP2), where it is too large for one; full SFT always does."""

    def __post_init__(self) -> None:
        for name, allowed in (("dtype", DTYPES), ("activations", ACTIVATIONS), ("compiled", COMPILED)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is one of {', '.join(allowed[1:])} or empty; got {getattr(self, name)!r}")
        _check_range(self, ("max_tokens_per_gpu",), "0 or more", low=0)


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """What an adapter is beyond its rank and alpha: LoRA+, merging, and a checked subset of PEFT's options."""

    lora_plus_ratio: float = 64.0
    """Learning rate of the B matrices over that of the A matrices (LoRA+, Hayou et al. 2024), 1 or more."""
    merge: bool = False
    """Whether base and adapter are written as one model too, into the folder `merged` beside the adapter."""
    target_modules: str | list[str] = "all-linear"
    """`all-linear`: every matrix of the text decoder, experts that are fused into one tensor and shared ones among
    them; never routers, other towers, or the head. Else names, as PEFT takes them."""
    target_parameters: list[str] | None = None
    """Beside named `target_modules`: fused experts by name, such as `experts.gate_up_proj`."""
    exclude_modules: str | list[str] | None = None
    use_rslora: bool = False
    use_dora: bool = False
    use_osf: bool = False
    """Orthogonal subspace tuning: `lora_rank` directions of every matrix move, alpha and LoRA+ have no part."""
    lora_dropout: float = 0.0
    """Share of an adapter's inputs that is dropped, 0 to below 1; fused experts drop none."""
    init_lora_weights: bool | str = True
    """True, or one of `LORA_INITS`."""
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_range(self, ("lora_plus_ratio",), "1 or more", low=1)
        init = self.init_lora_weights
        if init is not True and not re.fullmatch(r"gaussian|orthogonal|pissa(_niter_\d+)?|olora", str(init)):
            raise ConfigError(f"init_lora_weights is true, {' or '.join(LORA_INITS)}; got {init!r}")
        for name, number in {**self.rank_pattern, **self.alpha_pattern}.items():
            if min(number, self.rank_pattern.get(name, 1)) < 1:
                raise ConfigError(f"rank_pattern and alpha_pattern have numbers from 1; got {number} for {name!r}")
        if not 0 <= self.lora_dropout < 1:
            raise ConfigError(f"lora_dropout is 0 to below 1; got {self.lora_dropout}")
        used = {
            name
            for name in ("exclude_modules", "use_rslora", "use_dora", "lora_dropout", "rank_pattern", "alpha_pattern")
            if getattr(self, name)
        }
        if init is not True:
            used.add("init_lora_weights")
        if self.target_parameters and (self.target_modules == "all-linear" or self.use_osf):
            raise ConfigError("target_parameters go with named target_modules; all-linear has them already")
        if self.use_osf and used:
            raise ConfigError("beside use_osf there is target_modules alone; leave the others out")
        if self.changes_base and used & {"use_dora", "rank_pattern", "alpha_pattern"}:
            raise ConfigError("pissa and olora go without use_dora, rank_pattern and alpha_pattern")

    @property
    def changes_base(self) -> bool:
        """Whether the adapter begins by taking a part out of the base weights."""
        return str(self.init_lora_weights).startswith(("pissa", "olora"))

    @property
    def decomposes(self) -> bool:
        """Whether the adapter begins with a decomposition of every matrix."""
        return self.changes_base or self.use_osf


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How a trained model is drawn back towards its base, on answers of its own (`restore`)."""

    max_new_tokens: int = 64
    """Tokens of an answer at most, 1 or more: where a model has left its base, its first tokens say so."""
    temperature: float = 1.0
    """At which answers are sampled, above 0; 1 is the model's own distribution."""
    learned_ratio: float = 0.0
    """Share of the general records that are learned as they are, as in `train`, beside the others' distillation; 0 to
    below 1."""

    def __post_init__(self) -> None:
        _check_range(self, ("max_new_tokens",), "1 or more", low=1)
        _check_range(self, ("temperature",), "above 0", low=SMALLEST)
        if not 0 <= self.learned_ratio < 1:
            raise ConfigError(f"learned_ratio is a share, 0 to below 1; got {self.learned_ratio}")


_MAY_CHANGE = {
    "checkpoints": ("every_steps", "every_seconds", "keep"),
    "guards": ("max_nll_rise",),
    "lora_options": ("merge",),
    "memory": ("max_tokens_per_gpu", "activations", "compiled", "shard_base"),
    "": ("interpolate",),
}
"""By group: settings that do not decide the trajectory."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """One training over all steps of a shards artifact."""

    method: str
    """`lora` (an adapter) or `sft` (all weights)."""
    learning_rate: float = 1e-5
    """Peak, above 0; for LoRA that of the A matrices."""
    lora_rank: int = 16
    """Rank of the adapter, 1 or more."""
    lora_alpha: int = 32
    """Scaling of the adapter, 1 or more."""
    lora_options: AdapterSettings = AdapterSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    guards: GuardSettings = GuardSettings()
    checkpoints: CheckpointSettings = CheckpointSettings()
    memory: MemorySettings = MemorySettings()
    interpolate: float = 1.0
    """How far the saved model goes from the base (0) to the tuned weights (1), above 0 (WiSE-FT, Wortsman et al. 2022);
    for LoRA, a factor on what the adapter adds."""
    seed: int = 42
    """Of the adapter's initialisation and its dropout; of the answers that `restore` samples."""
    restore: RestoreSettings | None = None
    """Of the component `restore`, which begins with a trained model; None: a training, which takes none."""

    def __post_init__(self) -> None:
        if self.restore and self.guards.max_nll_rise:
            raise ConfigError("max_nll_rise has no part in restore, which begins beyond it; leave it at 0")
        if self.method not in METHODS:
            raise ConfigError(f"method is one of {', '.join(METHODS)}; got {self.method!r}")
        _check_range(self, ("learning_rate",), "above 0", low=SMALLEST)
        _check_range(self, ("lora_rank", "lora_alpha"), "1 or more", low=1)
        if not 0 < self.interpolate <= 1:
            raise ConfigError(f"interpolate is above 0, at most 1; got {self.interpolate}")
        for name in ("lora_rank", "lora_alpha", "lora_options") if self.method != "lora" else ():
            if getattr(self, name) != getattr(TrainSettings, name):
                raise ConfigError(f"{name} is for method lora, and method is {self.method}; leave it out")
        if self.interpolate < 1 and (self.lora_options.use_osf or self.lora_options.use_dora):
            raise ConfigError("interpolate: what use_osf and use_dora add cannot be scaled; leave interpolate at 1")

    @classmethod
    def from_options(cls, options: Mapping[str, object], **parameters: object) -> "TrainSettings":
        """Construct settings from the fields that are parameters of their own, and a dictionary of any others.

        Raises:
            ConfigError: An option that is unknown or a parameter, or a value of another type or out of its range.
        """
        if doubled := sorted(set(options) & set(parameters)):
            raise ConfigError(f"train_options: {doubled[0]} is a parameter of its own")
        return from_dict(cls, {**options, **parameters}, "train")

    @property
    def fast_learning_rate(self) -> float:
        """Peak learning rate of an adapter's B matrices (LoRA+)."""
        return self.learning_rate * (1 if self.lora_options.use_osf else self.lora_options.lora_plus_ratio)

    def warning(self) -> str:
        """Return what is likely to be wrong; empty where nothing is."""
        rate = self.fast_learning_rate
        if self.method == "lora" and rate < SLOW_LORA:
            return f"an adapter hardly learns at {rate:.1e} (learning_rate times lora_plus_ratio); raise one of them"
        if self.learning_rate > FAST:
            return f"learning_rate {self.learning_rate:g} would leave nothing of a model; 1e-5 to 1e-3 are usual"
        return ""

    def article_tags(self) -> dict[str, object]:
        """Return those of the article's tags that a training decides, as far as they apply."""
        adapter = {"lora_rank": self.lora_rank, "lora_lr": self.fast_learning_rate}
        return {"lr": self.learning_rate, **(adapter if self.method == "lora" else {})}

    def flat(self) -> dict[str, object]:
        """Return all settings by name; those of a group as `group.name`."""
        pairs: dict[str, object] = {}
        for name, value in asdict(self).items():
            group = {f"{name}.{key}": item for key, item in value.items()} if isinstance(value, dict) else {}
            pairs |= group or ({} if value is None else {name: value})
        return pairs

    def identity(self) -> dict[str, object]:
        """Return what decides the trajectory: a checkpoint is taken up only by a training with the same."""
        free = {f"{group}.{name}".lstrip(".") for group, names in _MAY_CHANGE.items() for name in names}
        return {name: value for name, value in self.flat().items() if name not in free}
