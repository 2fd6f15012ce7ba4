"""Trainings that `test_gpu_on_cpu.py` runs in a process with a GPU; prints what came of them as JSON, last."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mixtune.artifacts.model import read_model  # noqa: E402
from mixtune.settings.train import RestoreSettings  # noqa: E402
from mixtune.train.metrics import StepMetrics  # noqa: E402
from mixtune.train.run import run_training  # noqa: E402
from mixtune.train.task import TrainTask  # noqa: E402
from mixtune.train.trainer import Trainer  # noqa: E402
from tests.train.conftest import task_in  # noqa: E402


class Killed(Exception):
    """Where a training ends before its end."""


def train(task: TrainTask, last_step: int = 0) -> dict[str, Any]:
    """Train, on a GPU where there is one; return what the steps said and the model's fingerprint."""
    losses: list[float] = []
    devices: set[str] = set()

    def watch(trainer: Trainer, metrics: StepMetrics) -> None:
        losses.append(metrics.loss)
        devices.update(str(value.device) for value in trainer.model.loss.state_dict().values())
        if metrics.step == last_step:
            raise Killed

    try:
        model = run_training(task, watch)
    except Killed:
        return {"losses": losses, "devices": sorted(devices)}
    uri, _, digest = str(model.uri).partition("#")
    return {"losses": losses, "devices": sorted(devices), "uri": uri, "digest": digest}


def sides() -> dict[str, str]:
    """Return what comes of mixing tensors of both sides."""
    here, there = torch.ones(3), torch.ones(3, device="cuda")
    trials: dict[str, Callable[[], Any]] = {
        "sum": lambda: there + here,
        "number": lambda: there + torch.tensor(1.0),
        "index": lambda: there[torch.tensor([0, 2])],
        "values": lambda: there.index_put((torch.tensor([0]),), here[:1]),
        "numpy": lambda: there.numpy(),
        "embedding": lambda: torch.nn.functional.embedding(torch.tensor([1]), torch.ones(3, 2, device="cuda")),
        "fetched": lambda: there.cpu() + here,
    }
    outcomes = {}
    for name, trial in trials.items():
        try:
            outcomes[name] = str(trial().device)
        except (RuntimeError, TypeError) as error:
            outcomes[name] = f"refused: {error}"
    return outcomes


def main(trial: str, folder: Path, shards: str, method: str) -> dict[str, Any]:
    """Run one trial."""
    options: dict[str, Any] = {"method": method, "memory": {"compiled": "no", "dtype": "bfloat16"}}
    if trial == "sides":
        return sides()
    whole = train(task_in(folder / "whole", shards, **options))
    if trial == "once":
        return {"whole": whole}
    killed = train(task_in(folder / "killed", shards, **options), last_step=7)
    resumed = train(task_in(folder / "killed", shards, **options))
    task = task_in(folder / "restored", shards, **options)
    own = replace(task.settings, restore=RestoreSettings(max_new_tokens=6))
    restored = train(replace(task, settings=own, inputs=replace(task.inputs, start_model=whole["uri"])))
    restoration = read_model(str(folder / "restored/model")).restoration
    assert restoration
    if method == "sft":
        AutoModelForCausalLM.from_pretrained(whole["uri"])
    return {
        "whole": whole,
        "killed": killed,
        "resumed": resumed,
        "restored": restored,
        "nll": [restoration.base_nll, restoration.nll_after, restoration.nll_before],
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4])))
