"""Checkpoints: what a killed training goes on from, exactly.

A checkpoint is a folder `step-<steps done>` of safetensors files: trained weights and AdamW's moments. It is written
under another name and renamed when it is whole, so that whatever is there under its name can be trusted. The order of
the data needs no state: step `s` is step `s` of the shards.
"""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mixtune.train.model import Trainable

KEPT = 2
"""Newest checkpoints that stay."""


def save_checkpoint(folder: Path, steps_done: int, model: Trainable, optimizer: torch.optim.Optimizer) -> None:
    """Write a checkpoint, then delete the older ones."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary, target = folder / f".step-{steps_done:08d}", folder / f"step-{steps_done:08d}"
    for path in (temporary, target):
        shutil.rmtree(path, ignore_errors=True)
    temporary.mkdir()
    names = model.parameters()
    weights = {name: value.detach().contiguous().clone() for name, value in names.items()}
    save_file(weights, temporary / "weights.safetensors")
    moments = {
        f"{name}/{key}": value.reshape(-1).contiguous() if value.dim() == 0 else value.contiguous()
        for name, parameter in names.items()
        for key, value in optimizer.state[parameter].items()
    }
    save_file(moments, temporary / "optimizer.safetensors")
    temporary.rename(target)
    for old in checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)


def load_checkpoint(folder: Path, model: Trainable, optimizer: torch.optim.Optimizer) -> int:
    """Take up the newest checkpoint; the number of steps done comes back, 0 where there is none."""
    found = checkpoints(folder)
    if not found:
        return 0
    weights, moments = load_file(found[-1] / "weights.safetensors"), load_file(found[-1] / "optimizer.safetensors")
    with torch.no_grad():
        for name, parameter in model.parameters().items():
            parameter.copy_(weights[name])
            state = {key: moments[f"{name}/{key}"] for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {**state, "step": moments[f"{name}/step"].reshape(())}
    return int(found[-1].name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*") if path.is_dir())
