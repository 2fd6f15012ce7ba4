"""The model that is trained: loaded, with an adapter or without, and its optimizer."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from peft import PeftModel
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer, PreTrainedModel

from mixtune import models
from mixtune.artifacts.model import Reach
from mixtune.errors import TrainingError
from mixtune.inference.text_parts import count_model, find_used_modules
from mixtune.settings.train import MemorySettings, TrainSettings
from mixtune.train.distributed import SINGLE_PROCESS, ProcessGroup
from mixtune.train.modeling.activations import set_activations
from mixtune.train.modeling.adapters import Adapter, add_adapter, load_adapter
from mixtune.train.modeling.attention import attention_names, load_with_attention
from mixtune.train.modeling.dropout import Dropout
from mixtune.train.modeling.kernels import activate_flash, fuse
from mixtune.train.modeling.loss import PackedLoss
from mixtune.train.modeling.reach import adapter_reach, weights_reach
from mixtune.train.modeling.sharding import shard, to_float32
from mixtune.train.modeling.speed import skip_casts
from mixtune.training_math import CROSSOVER, ModelSizes, operations_per_token

BETAS = (0.9, 0.95)
NOISE = re.compile(r"drop|^(input_|moe_)?jitter")
"""In names of rates of a model's layers. PhiMoE's `router_jitter_noise` is no rate: it says how near experts tie."""


@dataclass(frozen=True)
class Trainable:
    """A model in training."""

    loss: PackedLoss
    """The causal language model that runs, as a loss; its layers hold the adapter, where there is one."""
    saved: PreTrainedModel | PeftModel
    """What is saved: the same, or the adapter around it."""
    folder: Path
    """The base model's."""
    method: str
    adapter: Adapter | None = None

    @property
    def causal(self) -> PreTrainedModel:
        """The causal language model that runs."""
        return self.loss.causal

    @property
    def dropout(self) -> Dropout | None:
        """What decides which values an adapter drops; None: none are."""
        return self.adapter.dropout if self.adapter else None

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a shard of every layer (FSDP2)."""
        return isinstance(self.loss, FSDPModule)

    @cached_property
    def reach(self) -> Reach:
        """Which part of the base model's weights is trained."""
        return adapter_reach(self.adapter.peft) if self.adapter else weights_reach(self.causal)

    @property
    def crossover_length(self) -> int:
        """Length of a record at which attention costs about as much as the matrices do."""
        return CROSSOVER * int(self.causal.config.get_text_config().hidden_size)

    @cached_property
    def _sizes(self) -> ModelSizes:
        return count_model(self.causal)

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """Return the trained parameters by name."""
        return {name: value for name, value in self.saved.named_parameters() if value.requires_grad}

    def set_gradient_sync(self, *, is_last: bool, keep_whole: bool) -> None:
        """Say of a sharded model what the next backward pass does with gradients.

        After the last of a step all processes have the sum, nodes included. Until then every process keeps its own
        whole, or they are sharded within the node at once.
        """
        if isinstance(self.loss, FSDPModule):
            self.loss.set_requires_gradient_sync(is_last or not keep_whole)
            self.loss.set_requires_all_reduce(is_last)

    def operations(self, length: int) -> float:
        """Return the arithmetic to train on a record of so many tokens."""
        return length * operations_per_token(self.method, self._sizes.active, self._sizes.attention, length)

    def clip_gradients(self, max_norm: float) -> float:
        """Clip the gradient to a norm, and return the norm before."""
        norm = torch.nn.utils.clip_grad_norm_(self.parameters().values(), max_norm)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def check_finite(self) -> None:
        """Check that every trained value is a number: no later step would see what the last one did.

        Raises:
            TrainingError: One is not.
        """
        for name, value in self.parameters().items():
            if not bool(torch.isfinite(value.detach()).all()):
                raise TrainingError(f"{name} is not finite after the last step; lower the learning rate")

    def save(self, folder: Path, is_main: bool = True) -> None:
        """Write the adapter in PEFT's format, or the whole model with tokenizer and chat template; safetensors.

        The main process writes; where the model is sharded, all processes hand their shards over.
        """
        if self.adapter:
            if is_main:
                self.adapter.save(folder)
            return
        state = {}
        for name, value in self.saved.named_parameters():
            full = value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()
            if is_main:
                state[name] = full.to("cpu", self.loss.dtype if value.requires_grad else full.dtype)
        if not is_main:
            return
        buffers = {name for name, _ in self.saved.named_buffers()}
        state |= {name: value.cpu() for name, value in self.saved.state_dict().items() if name in buffers}
        self.saved.config.use_cache = True
        self.saved.save_pretrained(str(folder), state_dict=state)
        self.saved.config.dtype = self.loss.dtype  # of the file: it would say that of weights in training
        self.saved.config.save_pretrained(str(folder))
        AutoTokenizer.from_pretrained(str(self.folder)).save_pretrained(str(folder))
        models.copy_files(self.folder, folder, models.PROCESSOR_FILES)


def local_rows(value: torch.Tensor, is_main: bool) -> tuple[torch.Tensor, int, bool]:
    """Return the rows of a tensor that this process holds, the first one's number, and whether it is to save them."""
    if not isinstance(value, DTensor):
        return (value if value.dim() else value.view(1)), 0, is_main
    mesh = value.device_mesh
    place = mesh.get_local_rank(mesh.ndim - 1)
    chunk = -(-value.shape[0] // mesh.size(mesh.ndim - 1))
    is_owner = mesh.ndim == 1 or mesh.get_local_rank(0) == 0
    return value.to_local(), min(place * chunk, value.shape[0]), is_owner


def load_trainable(
    folder: Path, settings: TrainSettings, group: ProcessGroup = SINGLE_PROCESS, start: Path | None = None
) -> Trainable:
    """Load a base model and bring it to the process's device; for LoRA, put an adapter into all its linear layers.

    `start` is a trained model that is trained further: an adapter's folder or that of all weights.
    """
    torch.manual_seed(settings.seed)
    dtype = compute_dtype(settings.memory)
    activate_flash()
    weights = start if start and settings.method == "sft" else folder
    causal = without_noise(load_with_attention(weights, _stored_dtype(settings, dtype), attention_names(dtype)))
    if settings.method == "sft":
        freeze_unused(causal)
        learn_padding(causal)
    if settings.memory.fused_kernels:
        fuse(causal)
    causal.config.use_cache = False
    causal.train()
    if settings.lora_options.decomposes and not _needs_sharding(settings, group, dtype):
        # Decompositions of every matrix take hours on a CPU, and seconds on a GPU.
        torch.nn.Module.to(causal, group.device)
    adapter = _adapter(causal, settings, folder.name, start)
    if adapter:
        skip_casts(causal)
    on_gpu = torch.cuda.is_available() and causal.supports_gradient_checkpointing
    activations = settings.memory.activations or ("recompute" if on_gpu else "keep")
    set_activations(causal, activations)
    loss = PackedLoss(causal, dtype, activations == "offload")
    model = Trainable(loss, adapter.peft if adapter else causal, folder, settings.method, adapter)
    if _needs_sharding(settings, group, dtype):
        shard(model.loss, group, dtype, trains_all=settings.method == "sft")
        return model
    if settings.method == "sft":
        to_float32(causal)
    loss.to(group.device)
    return model


def _adapter(causal: PreTrainedModel, settings: TrainSettings, base_name: str, start: Path | None) -> Adapter | None:
    if settings.method == "sft":
        return None
    return load_adapter(causal, start, settings, base_name) if start else add_adapter(causal, settings, base_name)


def compute_dtype(settings: MemorySettings) -> torch.dtype:
    """Return the dtype of the arithmetic."""
    if settings.dtype:
        return torch.float32 if settings.dtype == "float32" else torch.bfloat16
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32


def _stored_dtype(settings: TrainSettings, dtype: torch.dtype) -> torch.dtype | str:
    """Return the dtype that base weights are loaded in; trained ones become float32 when they are placed.

    A base under an adapter is in the dtype of the arithmetic, unless the adapter's initialisation changes it: that
    would be rounded away.
    """
    if settings.method == "sft":
        return "auto"
    return torch.float32 if settings.lora_options.changes_base else dtype


def _needs_sharding(settings: TrainSettings, group: ProcessGroup, dtype: torch.dtype) -> bool:
    """Return whether weights are sharded (FSDP2), which also casts float32 weights to bfloat16 layer by layer."""
    if settings.method == "sft":
        return group.size > 1 or dtype != torch.float32
    return group.size > 1 and settings.memory.shard_base


def freeze_unused(causal: PreTrainedModel) -> None:
    """Freeze what no token passes through, such as the vision tower of a model that is trained on text.

    It would get no gradient, so neither moments nor a place in checkpoints.
    """
    used = {id(value) for part in find_used_modules(causal) for value in part.parameters(recurse=False)}
    for value in causal.parameters():
        value.requires_grad_(id(value) in used)


def learn_padding(causal: PreTrainedModel) -> None:
    """Let the embedding learn the token that the configuration calls padding: in chats it is often the turn's end.

    PyTorch would give its row no gradient. Padding itself gets none either way: no position sees it.
    """
    embedding = causal.get_input_embeddings()
    if isinstance(embedding, torch.nn.Embedding):
        embedding.padding_idx = None


def without_noise(causal: PreTrainedModel) -> PreTrainedModel:
    """Switch off a model's own dropout and its routers' noise, and return the model.

    What they draw would depend on how a batch is cut, and would be another after a training went on. Falcon and BLT
    read theirs from their configuration at each pass, which is saved as it is: they keep it.
    """
    for module in causal.modules():
        rates = [name for name, value in vars(module).items() if isinstance(value, float) and NOISE.search(name)]
        for name in [*rates, "p"] if isinstance(module, torch.nn.Dropout) else rates:
            setattr(module, name, 0.0)
    return causal


def make_optimizer(model: Trainable, settings: TrainSettings) -> torch.optim.AdamW:
    """Return AdamW; the B matrices of an adapter learn `lora_plus_ratio` times as fast (LoRA+)."""
    fast = {name: value for name, value in model.parameters().items() if "lora_B" in name}
    others = [value for name, value in model.parameters().items() if name not in fast]
    groups = [
        {"params": others, "peak_lr": settings.learning_rate},
        {"params": list(fast.values()), "peak_lr": settings.fast_learning_rate},
    ]
    on_gpu = all(value.device.type == "cuda" for value in model.parameters().values())
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=BETAS,
        weight_decay=settings.schedule.weight_decay,
        **({"fused": True} if on_gpu else {"foreach": True}),
    )
