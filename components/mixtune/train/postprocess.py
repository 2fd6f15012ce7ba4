"""What is made of a trained model once it is saved: drawn back towards its base, or an adapter merged into it."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixtune.interpolation import interpolate_adapter, interpolate_weights
from mixtune.settings.train import TrainSettings

MERGED = "merged"
"""Folder of the merged model, within the adapter's."""


def finish(folder: Path, base: Path, config: TrainSettings) -> None:
    """Make of a saved model what is asked for: `interpolate`, then `merge`."""
    if config.interpolate < 1:
        if config.method == "sft":
            interpolate_weights(folder, base, config.interpolate)
        else:
            interpolate_adapter(folder, config.interpolate)
    if config.lora_options.merge:
        merge_adapter(folder, base)


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
