"""The model that is trained: loaded, with an adapter or without, and its optimizer."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from mixtune.errors import TrainingError
from mixtune.settings.train import TrainSettings
from mixtune.train.distributed import ALONE, World
from mixtune.train.modeling.adapters import Adapter, add_adapter
from mixtune.train.modeling.dropout import Dropout
from mixtune.train.modeling.kernels import choose_attention, fuse
from mixtune.train.modeling.loss import PackedLoss
from mixtune.train.modeling.sharding import shard, to_float
from mixtune.training_math import operations_per_token

BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Trainable:
    """A model in training."""

    loss: PackedLoss
    """The causal language model that runs, as a loss; its layers hold the adapter, where there is one."""
    saved: Any
    """What is saved: the same, or the adapter around it."""
    folder: Path
    """The base model's."""
    method: str
    adapter: Adapter | None = None

    @property
    def causal(self) -> Any:
        """The causal language model that runs."""
        return self.loss.causal

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""
        return {name: value for name, value in self.saved.named_parameters() if value.requires_grad}

    @property
    def in_slices(self) -> bool:
        """Whether each process holds a slice of every layer (FSDP2)."""
        return isinstance(self.loss, FSDPModule)

    def add_over_processes(self, now: bool) -> None:
        """Of a model in slices: whether the next backward pass adds up gradients over processes, or keeps its own."""
        if isinstance(self.loss, FSDPModule):
            self.loss.set_requires_gradient_sync(now)

    @property
    def dropout(self) -> Dropout | None:
        """What decides which values an adapter drops; None: none are."""
        return self.adapter.dropout if self.adapter else None

    @cached_property
    def _matrices(self) -> int:
        """Values in the matrices that every token goes through; an adapter's are not counted."""
        layers = {name: module for name, module in self.causal.named_modules() if isinstance(module, torch.nn.Linear)}
        return sum(module.weight.numel() for name, module in layers.items() if ".lora_" not in name)

    def operations(self, length: int) -> float:
        """Return the arithmetic to train on a record of so many tokens."""
        config = self.causal.config.get_text_config()
        attention = config.num_hidden_layers * config.hidden_size
        return length * operations_per_token(self.method, self._matrices, attention, length)

    @property
    def even_tokens(self) -> int:
        """Length of a record at which attention costs about as much as the matrices do."""
        return 12 * int(self.causal.config.get_text_config().hidden_size)

    def clip_gradients(self, max_norm: float) -> float:
        """Clip the gradient to a norm; the norm before comes back."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters().values(), max_norm)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def check_finite(self) -> None:
        """Make sure that every trained value is a number: no later step would see what the last one did.

        Raises:
            TrainingError: One is not.
        """
        for name, value in self.parameters().items():
            if not bool(torch.isfinite(value.detach()).all()):
                raise TrainingError(f"{name} is not finite after the last step; lower the learning rate")

    def save(self, folder: Path, is_main: bool = True) -> None:
        """Write the adapter in PEFT's format, or the whole model with tokenizer and chat template; safetensors.

        Args:
            folder: Of the main process.
            is_main: Whether this process writes; where the model lies in slices, all processes hand theirs over.
        """
        if self.adapter:
            if is_main:
                self.adapter.save(folder)
            return
        whole = {}
        for name, value in self.saved.named_parameters():
            full = value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()
            if is_main:
                whole[name] = full.to("cpu", self.loss.dtype)
        if not is_main:
            return
        whole |= {name: value.cpu() for name, value in self.saved.state_dict().items() if name in _buffers(self.saved)}
        self.saved.config.use_cache = True
        self.saved.save_pretrained(str(folder), state_dict=whole)
        AutoTokenizer.from_pretrained(str(self.folder)).save_pretrained(str(folder))


def _buffers(module: torch.nn.Module) -> set[str]:
    return {name for name, _ in module.named_buffers()}


def local_rows(value: torch.Tensor, is_main: bool) -> tuple[torch.Tensor, int, bool]:
    """The rows of a tensor that this process holds, the first one's number, and whether it is the one to save them."""
    if not isinstance(value, DTensor):
        return (value if value.dim() else value.view(1)), 0, is_main
    mesh, rows = value.device_mesh, value.to_local()
    place = mesh.get_local_rank(mesh.ndim - 1)
    chunk = -(-value.shape[0] // mesh.size(mesh.ndim - 1))
    return rows, min(place * chunk, value.shape[0]), mesh.ndim == 1 or mesh.get_local_rank(0) == 0


def load_trainable(folder: Path, config: TrainSettings, world: World = ALONE) -> Trainable:
    """Load a base model and bring it to the process's device; for LoRA, put an adapter into all its linear layers.

    What is trained is float32. A base under an adapter is in the dtype of the arithmetic, unless the adapter's
    initialisation changes it: that would be rounded away.
    """
    torch.manual_seed(config.seed)
    dtype = compute_dtype(config)
    held = "auto" if config.method == "sft" else torch.float32 if config.lora_options.changes_base else dtype
    attention = choose_attention(AutoConfig.from_pretrained(str(folder)), dtype)
    given = {"attn_implementation": attention} if attention else {}
    causal = without_dropout(AutoModelForCausalLM.from_pretrained(str(folder), dtype=held, **given))
    if config.memory.fused_kernels:
        fuse(causal)
    causal.config.use_cache = False
    causal.train()
    adapter = add_adapter(causal, config, folder.name) if config.method == "lora" else None
    activations = config.memory.activations or ("recompute" if torch.cuda.is_available() else "keep")
    if activations != "keep":
        causal.activation_checkpointing_enable({"use_reentrant": False})
    saved = adapter.peft if adapter else causal
    model = Trainable(PackedLoss(causal, dtype, activations == "offload"), saved, folder, config.method, adapter)
    _place(model, config, world)
    return model


def compute_dtype(config: TrainSettings) -> torch.dtype:
    """The dtype of the arithmetic."""
    if config.memory.dtype:
        return torch.float32 if config.memory.dtype == "float32" else torch.bfloat16
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def _place(model: Trainable, config: TrainSettings, world: World) -> None:
    """In slices (FSDP2) for full SFT in several processes or in bfloat16, else whole."""
    several, rounded = world.size > 1, model.loss.dtype != torch.float32
    if several or rounded if model.method == "sft" else several and config.memory.shard_base:
        shard(model.loss, world, model.loss.dtype)
        return
    if model.method == "sft":
        to_float(model.causal)
    model.causal.to(world.device)


def without_dropout(causal: Any) -> Any:
    """A model with its own dropout switched off: its draws would depend on how a batch is cut."""
    for module in causal.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0
    return causal


def make_optimizer(model: Trainable, config: TrainSettings) -> torch.optim.AdamW:
    """AdamW; the B matrices of an adapter learn `lora_plus_ratio` times as fast (LoRA+)."""
    named = model.parameters()
    fast = {name for name in named if "lora_B" in name}
    groups = [
        {"params": [value for name, value in named.items() if name not in fast], "peak": config.learning_rate},
        {
            "params": [value for name, value in named.items() if name in fast],
            "peak": config.fast_learning_rate,
        },
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=BETAS,
        weight_decay=config.schedule.weight_decay,
        foreach=True,
    )


def rate(step: int, num_steps: int, config: TrainSettings) -> float:
    """Share of the peak learning rate at a step, 0-based: linear warm-up, then a cosine down to `min_lr_ratio`."""
    warmup = max(1, round(config.schedule.warmup_ratio * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return config.schedule.min_lr_ratio + (1 - config.schedule.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
