"""Trials that `test_gpu_on_cpu.py` makes in one process with a GPU: it reads what to try, a line each, and answers in JSON."""

import contextlib
import io
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

OUTCOME = "outcome: "
"""Begins the line that ends a trial."""
LAST_STEP = 3
"""After which a training is killed."""


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


def types(kinds: list[str]) -> dict[str, list[str]]:
    """Return layout and attention that model types are given by `benchmarks/gpu_architectures.py`."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    import gpu_architectures

    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        assert gpu_architectures.main(kinds) == 0
    lines = [line.split(" (")[0].split() for line in shown.getvalue().splitlines()]
    return {kind.rstrip(":"): words for kind, *words in lines}


def main(trial: str, folder: Path, shards: str, method: str) -> dict[str, Any]:
    """Run one trial; of `types` the method names them."""
    if trial == "sides":
        return sides()
    if trial == "types":
        return types(method.split())
    rate = {"lora": 1e-4, "sft": 3e-4}[method]  # so that half of the steps go far enough to be drawn back
    options: dict[str, Any] = {"method": method, "learning_rate": rate}
    options["memory"] = {"compiled": "no", "dtype": "bfloat16"}
    whole = train(task_in(folder / "whole", shards, **options))
    if trial == "once":
        return {"whole": whole}
    killed = train(task_in(folder / "killed", shards, **options), last_step=LAST_STEP)
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
    for line in sys.stdin:
        name, place, shards, method = json.loads(line)
        print(OUTCOME + json.dumps(main(name, Path(place), shards, method)), flush=True)
