"""What is made of a trained model once it is saved: drawn back towards its base, or an adapter merged into it."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixtune.train.config import TrainConfig

MERGED = "merged"
"""Folder of the merged model, within the adapter's."""


def finish(folder: Path, base: Path, config: TrainConfig) -> None:
    """Make of a saved model what is asked for: `interpolate`, then `merge`."""
    if config.interpolate < 1:
        if config.method == "sft":
            interpolate_weights(folder, base, config.interpolate)
        else:
            interpolate_adapter(folder, config.interpolate)
    if config.merge:
        merge_adapter(folder, base)


def interpolate_weights(folder: Path, base: Path, share: float) -> None:
    """Draw a saved model back towards its base: `base + share * (tuned - base)` (WiSE-FT, Wortsman et al. 2022).

    Args:
        folder: The tuned model's; its files are written anew.
        base: The base model's.
        share: Above 0 to 1.
    """
    tuned = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto")
    origin = dict(AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32).named_parameters())
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            value.copy_(origin[name].lerp(value.float(), share))
    tuned.save_pretrained(str(folder))


def interpolate_adapter(folder: Path, share: float) -> None:
    """The same for a saved LoRA adapter: its B matrices times `share`, and so all that it adds to the base."""
    file = folder / "adapter_model.safetensors"
    values = load_file(file)
    scaled = {name: value * share if "lora_B" in name else value for name, value in values.items()}
    save_file(scaled, file, {"format": "pt"})


def merge_adapter(folder: Path, base: Path) -> None:
    """Write base model plus adapter as one model in bfloat16, with tokenizer and chat template, into `merged`.

    The sum is made in float32 and rounded once.

    Args:
        folder: The adapter's.
        base: The base model's.
    """
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload().to(torch.bfloat16)
    merged.save_pretrained(str(folder / MERGED))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(folder / MERGED))
    config = folder / MERGED / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_cache": True}, indent=2) + "\n")
