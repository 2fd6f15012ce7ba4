"""The dial: a tuned model, drawn back towards its base without training."""

import shutil
from pathlib import Path
from typing import Any

from mixtune import models
from mixtune.errors import ConfigError, ModelError

KEPT, SCALED = ("lora_A", "lora_embedding_A"), ("lora_B", "lora_embedding_B")
"""An adapter's two factors; the second one's size is the adapter's strength."""


def check_strengths(strengths: list[Any]) -> list[float]:
    """Strengths in their order, each once.

    Raises:
        ConfigError: One is no number between 0 (the base) and 1 (as trained).
    """
    for one in strengths:
        if isinstance(one, bool) or not isinstance(one, int | float) or not 0 < one < 1:
            raise ConfigError(f"dial: a strength lies between 0 (the base) and 1 (as trained), got {one!r}")
    return sorted({float(one) for one in strengths})


def turn_down(tuned: Path, base: Path, strength: float, out: Path) -> Path:
    """Write a tuned model at a lower strength into a folder of its own; the folder comes back.

    Args:
        tuned: Folder of an adapter or of a whole model.
        base: The base model's.
        strength: Between 0 (the base) and 1 (as trained).
        out: Is made; a model merged from the adapter is left out.

    Raises:
        ConfigError: A strength out of range.
        ModelError: An adapter that cannot be scaled.
    """
    check_strengths([strength])
    shutil.copytree(tuned, out, ignore=shutil.ignore_patterns("merged"))
    if models.is_adapter(out):
        interpolate_adapter(out, strength)
    else:
        interpolate_weights(out, base, strength)
    return out


def interpolate_weights(folder: Path, base: Path, share: float) -> None:
    """Draw a saved model back towards its base: `base + share * (tuned - base)` (WiSE-FT, Wortsman et al. 2022).

    Args:
        folder: The tuned model's; its files are written anew.
        base: The base model's.
        share: Above 0 to 1.
    """
    import torch
    from transformers import AutoModelForCausalLM

    tuned = AutoModelForCausalLM.from_pretrained(str(folder), dtype="auto")
    origin = dict(AutoModelForCausalLM.from_pretrained(str(base), dtype=torch.float32).named_parameters())
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            value.copy_(origin[name].lerp(value.float(), share))
    tuned.save_pretrained(str(folder))


def interpolate_adapter(folder: Path, share: float) -> None:
    """The same for a saved LoRA adapter: its B matrices times `share`, and so all that it adds to the base.

    Args:
        folder: The adapter's; its file is written anew.
        share: Above 0 to 1.

    Raises:
        ModelError: It holds more than LoRA's two factors (DoRA, whole modules), which this does not scale.
    """
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"{folder}: no adapter_model.safetensors in it; save the adapter with safetensors")
    values = load_file(file)
    if other := [name for name in values if not any(factor in name for factor in (*KEPT, *SCALED))]:
        raise ModelError(f"{folder}: only LoRA's two factors can be scaled; the adapter has {other[0]} too")
    scaled = {name: value * share if any(b in name for b in SCALED) else value for name, value in values.items()}
    save_file(scaled, file, {"format": "pt"})
