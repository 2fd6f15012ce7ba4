"""What follows on a saved model: interpolation towards its base, or an adapter merged into it."""

import json
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from mixtune.interpolation import interpolate_adapter, interpolate_weights
from mixtune.settings.train import TrainSettings

MERGED = "merged"
"""Folder of the merged model, within the adapter's."""


def postprocess(folder: Path, base: Path, settings: TrainSettings) -> None:
    """Apply `interpolate`, then `merge`, to the model saved in a folder."""
    if settings.interpolate < 1:
        if settings.method == "sft":
            interpolate_weights(folder, base, settings.interpolate)
        else:
            interpolate_adapter(folder, settings.interpolate)
    if settings.lora_options.merge:
        merge_adapter(folder, base)


def merge_adapter(folder: Path, base: Path) -> None:
    """Write base model plus adapter as one model in bfloat16, with tokenizer and chat template, into `merged`.

    The sum is made in float32 and rounded once.
    """
    model = AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload().to(torch.bfloat16)
    merged.save_pretrained(str(folder / MERGED))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(folder / MERGED))
    config = folder / MERGED / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_cache": True}, indent=2) + "\n")
