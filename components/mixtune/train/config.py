"""What a training is told."""

import re
from dataclasses import asdict, dataclass, field
from typing import Any

from mixtune.errors import ConfigError

METHODS = ("lora", "sft")
LORA_OPTIONS: dict[str, tuple[type, ...]] = {
    "target_modules": (str, list),
    "exclude_modules": (str, list),
    "use_rslora": (bool,),
    "use_dora": (bool,),
    "use_osf": (bool,),
    "lora_dropout": (float, int),
    "init_lora_weights": (bool, str),
    "rank_pattern": (dict,),
    "alpha_pattern": (dict,),
}
"""Options of PEFT that are passed through, and their types."""
LORA_INITS = ("gaussian", "orthogonal", "pissa", "pissa_niter_<number>", "olora")
"""Initialisations by name, beside PEFT's own default (true). None that needs data."""
SLOW_LORA = 5e-5
"""Learning rate of the B matrices under which an adapter hardly learns."""
DTYPES = ("", "float32", "bfloat16")
ACTIVATIONS = ("", "keep", "recompute", "offload")
_NO_MATTER = {
    "activations",
    "checkpoint_seconds",
    "checkpoint_steps",
    "keep_checkpoints",
    "max_tokens_per_gpu",
    "shard_base",
    "validation_steps",
}
_NO_MATTER |= {"interpolate", "merge", "max_nll_rise"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training over all steps of a shards artifact."""

    method: str
    """`lora` (an adapter) or `sft` (all weights)."""
    learning_rate: float = 1e-5
    """Peak, above 0."""
    min_lr_ratio: float = 0.1
    """Learning rate of the last step as a share of the peak, 0 to 1."""
    warmup_ratio: float = 0.05
    """Share of the steps over which the learning rate rises, 0 to 1."""
    weight_decay: float = 0.0
    """Of AdamW, 0 or more."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm, above 0."""
    max_loss_rise: float = 5.0
    """A loss so many nats above the mean of the last 20 steps stops the training; 0: never."""
    max_grad_ratio: float = 100.0
    """A gradient norm so many times the mean of the last 20 steps (or `max_grad_norm`) stops it; 0: never."""
    max_nll_rise: float = 0.0
    """Nats a token by which the NLL of held-out general records may rise above the base model's; beyond, the training
    ends with the newest checkpoint that is within. 0: never. Looked at every `checkpoint_steps` and at the end."""
    lora_rank: int = 16
    """Rank of the adapter, 1 or more."""
    lora_alpha: int = 32
    """Scaling of the adapter, 1 or more."""
    lora_options: dict[str, Any] = field(default_factory=dict)
    """Further options of PEFT's LoraConfig, those of `LORA_OPTIONS` alone; by default all linear layers are adapted."""
    lora_plus_ratio: float = 64.0
    """Learning rate of the B matrices over that of the A matrices (LoRA+, Hayou et al. 2024), 1 or more."""
    max_tokens_per_gpu: int = 16384
    """Tokens of one micro batch at most; a longer record is a micro batch of its own."""
    dtype: str = ""
    """Of the arithmetic: `float32`, or `bfloat16` with trained weights in float32; empty: `bfloat16` on GPUs alone."""
    activations: str = ""
    """For the backward pass: `keep` them, `recompute` each layer's, or `offload` the layers' inputs to the host's
    memory as well; empty: `recompute` on GPUs, else `keep`."""
    fused_kernels: bool = False
    """Liger's kernels for norms, rotary embeddings and MLPs, on GPUs."""
    shard_base: bool = False
    """LoRA: hold the base model in slices over the processes, where it is too large for one; full SFT always does."""
    checkpoint_steps: int = 100
    """Steps between two checkpoints, 1 or more."""
    checkpoint_seconds: float = 0.0
    """Above 0: a checkpoint also whenever so many seconds have passed since the last."""
    keep_checkpoints: int = 2
    """Newest checkpoints that stay, 1 or more."""
    interpolate: float = 1.0
    """How far the saved model goes from the base (0) to the tuned weights (1), above 0 (WiSE-FT, Wortsman et al. 2022);
    for LoRA, a factor on what the adapter adds."""
    merge: bool = False
    """Whether an adapter is written merged into its base too."""
    seed: int = 42
    """Of the adapter's initialisation and its dropout."""
    validation_steps: int = 0
    """Above 0: a validation run of so many steps, of which no model is kept."""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method is one of {', '.join(METHODS)}; got {self.method!r}")
        for name, allowed in (("dtype", DTYPES), ("activations", ACTIVATIONS)):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is one of {', '.join(allowed[1:])} or empty; got {getattr(self, name)!r}")
        for name in ("learning_rate", "max_grad_norm"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is above 0; got {getattr(self, name)}")
        at_least_one = ("lora_rank", "lora_alpha", "lora_plus_ratio", "max_tokens_per_gpu")
        for name in (*at_least_one, "checkpoint_steps", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is 1 or more; got {getattr(self, name)}")
        for name in ("min_lr_ratio", "warmup_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a share, 0 to 1; got {getattr(self, name)}")
        self._check_lora()
        limits = ("max_loss_rise", "max_grad_ratio", "max_nll_rise")
        for name in ("weight_decay", "validation_steps", "checkpoint_seconds", *limits):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is 0 or more; got {getattr(self, name)}")

    def _check_lora(self) -> None:
        for name, value in self.lora_options.items():
            if name not in LORA_OPTIONS:
                raise ConfigError(f"lora_options: unknown option {name!r}; there are {', '.join(LORA_OPTIONS)}")
            if not isinstance(value, LORA_OPTIONS[name]):
                raise ConfigError(f"lora_options: {name} is {LORA_OPTIONS[name][0].__name__}; got {value!r}")
        if (self.lora_options or self.merge) and self.method != "lora":
            raise ConfigError("lora_options and merge are for method lora; leave them empty")
        init = self.lora_options.get("init_lora_weights", True)
        if init is not True and not re.fullmatch(r"gaussian|orthogonal|pissa(_niter_\d+)?|olora", str(init)):
            raise ConfigError(f"lora_options: init_lora_weights is true, {' or '.join(LORA_INITS)}; got {init!r}")
        if not 0 <= self.lora_options.get("lora_dropout", 0) < 1:
            raise ConfigError(f"lora_options: lora_dropout is 0 to below 1; got {self.lora_options['lora_dropout']}")
        self._check_together()

    def _check_together(self) -> None:
        used = {name for name, value in self.lora_options.items() if value}
        if "use_osf" in used and used - {"use_osf", "target_modules"}:
            raise ConfigError("lora_options: beside use_osf there is target_modules alone; leave the others out")
        if self.changes_base and used & {"use_dora", "rank_pattern", "alpha_pattern"}:
            raise ConfigError("lora_options: pissa and olora go without use_dora, rank_pattern and alpha_pattern")
        if not 0 < self.interpolate <= 1:
            raise ConfigError(f"interpolate is above 0, at most 1; got {self.interpolate}")
        if self.interpolate < 1 and used & {"use_osf", "use_dora"}:
            raise ConfigError("interpolate: what use_osf and use_dora add cannot be scaled; leave interpolate at 1")

    @property
    def changes_base(self) -> bool:
        """Whether the adapter begins by taking a part out of the base weights."""
        return str(self.lora_options.get("init_lora_weights")).startswith(("pissa", "olora"))

    def warning(self) -> str:
        """What is likely to be wrong, empty where nothing is."""
        fastest = self.learning_rate * (1 if self.lora_options.get("use_osf") else self.lora_plus_ratio)
        if self.method == "lora" and fastest < SLOW_LORA:
            return f"an adapter hardly learns at {fastest:.1e} (learning_rate times lora_plus_ratio); raise one of them"
        return ""

    def identity(self) -> dict[str, Any]:
        """What decides the trajectory: a checkpoint is taken up only by a training that has the same."""
        return {key: value for key, value in asdict(self).items() if key not in _NO_MATTER}


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a training reads and where it writes."""

    shards_path: str
    """Manifest of the shards."""
    base_model: str
    model_path: str
    """Where the model's manifest goes."""
    model_uri: str
    """The artifact's URI: weights and checkpoints lie beside it."""
    tracking: dict[str, Any] = field(default_factory=dict)
