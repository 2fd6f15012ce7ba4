"""What follows on a saved model: interpolation towards its base, or an adapter merged into it."""

import json
import re
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoTokenizer

from mixtune import models, storage
from mixtune.interpolation import interpolate_adapter, interpolate_weights, load_pretrained
from mixtune.settings.train import TrainSettings


def postprocess(folder: Path, base: Path, settings: TrainSettings) -> None:
    """Apply `interpolate`, then `merge`, to the model saved in a folder."""
    if settings.interpolate < 1:
        if settings.method == "sft":
            interpolate_weights(folder, base, settings.interpolate)
        else:
            interpolate_adapter(folder, settings.interpolate)
    if settings.lora_options.merge:
        merge_adapter(folder, base)


def name_base(folder: Path, base_model: str, base: Path) -> None:
    """Let an adapter name its base, and carry tokenizer and chat template: whoever has it alone can load and serve it.

    The name is the hub's where the base came from there, or says so itself; else its folder's: a machine's own path is
    no name.
    """
    file = folder / "adapter_config.json"
    config, own = json.loads(file.read_text()), json.loads((base / "config.json").read_text())
    plain = storage.plain_uri(base_model).rstrip("/")
    name, revision = plain.rpartition("/")[2], None
    if models.is_hub_name(plain):
        name, _, revision = plain.partition("@")
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", str(own.get("_name_or_path", ""))):
        name = own["_name_or_path"]
    config |= {"base_model_name_or_path": name, "revision": revision}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    of_base = ("config.json", "generation_config.json", "README.md")
    beside = [name for name in models.TOKENIZER_FILES if name not in of_base]
    models.copy_files(base, folder, beside)


def merge_adapter(folder: Path, base: Path) -> None:
    """Write base model plus adapter as one model in bfloat16, with tokenizer and chat template, into `merged`.

    The sum is made in float32 and rounded once.
    """
    model = load_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(model, str(folder)).merge_and_unload().to(torch.bfloat16)
    out = folder / models.MERGED
    merged.save_pretrained(str(out))
    AutoTokenizer.from_pretrained(str(base)).save_pretrained(str(out))
    models.copy_files(base, out, models.PROCESSOR_FILES)
    config = out / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "use_cache": True}, indent=2) + "\n")
