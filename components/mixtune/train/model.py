"""The model that is trained: loaded, with an adapter or without, and its optimizer."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixtune.train.config import TrainConfig

BETAS = (0.9, 0.95)


@dataclass(frozen=True)
class Trainable:
    """A model in training."""

    causal: Any
    """The causal language model that runs; its layers hold the adapter, where there is one."""
    saved: Any
    """What is saved: the same, or the adapter around it."""
    folder: Path
    """The base model's."""
    method: str

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name."""
        return {name: value for name, value in self.saved.named_parameters() if value.requires_grad}

    def save(self, folder: Path) -> None:
        """Write the adapter in PEFT's format, or the whole model with tokenizer and chat template; safetensors."""
        self.saved.save_pretrained(str(folder))
        if self.method == "sft":
            AutoTokenizer.from_pretrained(str(self.folder)).save_pretrained(str(folder))
        else:
            (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty model card


def load_trainable(folder: Path, config: TrainConfig) -> Trainable:
    """Load a base model in float32; for LoRA, put an adapter into all its linear layers."""
    torch.manual_seed(config.seed)
    causal = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    causal.config.use_cache = False
    causal.train()
    if config.method == "sft":
        return Trainable(causal, causal, folder, config.method)
    lora = LoraConfig(
        r=config.lora_rank, lora_alpha=config.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = get_peft_model(causal, lora)
    for settings in adapted.peft_config.values():
        settings.base_model_name_or_path = folder.name  # not this machine's path
    return Trainable(causal, adapted, folder, config.method)


def make_optimizer(model: Trainable, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; the B matrices of an adapter learn `lora_plus_ratio` times as fast (LoRA+)."""
    named = model.parameters()
    fast = {name for name in named if "lora_B" in name}
    groups = [
        {"params": [value for name, value in named.items() if name not in fast], "peak": config.learning_rate},
        {
            "params": [value for name, value in named.items() if name in fast],
            "peak": config.learning_rate * config.lora_plus_ratio,
        },
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.learning_rate,
        betas=BETAS,
        weight_decay=config.weight_decay,
        foreach=True,
    )


def rate(step: int, num_steps: int, config: TrainConfig) -> float:
    """Share of the peak learning rate at a step, 0-based: linear warm-up, then a cosine down to `min_lr_ratio`."""
    warmup = max(1, round(config.warmup_ratio * num_steps))
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, num_steps - warmup)
    return config.min_lr_ratio + (1 - config.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
