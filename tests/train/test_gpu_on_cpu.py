"""By the rules of a GPU, trainings go the way of a GPU to the losses of a CPU: `benchmarks/gpu_on_cpu` is the GPU."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.model import read_architectures
from mixtune.artifacts.typed_json import write_artifact
from mixtune.train.task import TrainJobFile

from .conftest import task_in

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks/gpu_on_cpu"))

from run import environment  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="PyTorch's guard for a GPU needs a C++ compiler")
Trial = Callable[..., dict[str, Any]]


def run_on_gpu(*arguments: str, gpu: bool = True) -> str:
    """Run Python with a GPU, or without; its output."""
    env = {**environment(), "OMP_NUM_THREADS": "1"}
    if not gpu:
        del env["GPU_ON_CPU"]
    done = subprocess.run([sys.executable, *arguments], env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def trial(watched_shards: str, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    @cache
    def run(name: str, method: str = "lora", gpu: bool = True) -> dict[str, Any]:
        folder = str(tmp_path_factory.mktemp(name))
        output = run_on_gpu("tests/train/on_gpu.py", name, folder, watched_shards, method, gpu=gpu)
        assert "cannot train with" not in output  # attention over packed records is taken
        outcome: dict[str, Any] = json.loads(output.splitlines()[-1])
        return outcome

    return run


def test_the_gpu_refuses_what_cuda_refuses(trial: Trial) -> None:
    outcomes = trial("sides")
    for name in ("sum", "values", "numpy", "embedding"):
        assert outcomes[name].startswith("refused"), name
    assert {name: outcomes[name] for name in ("number", "index", "fetched")} == {
        "number": "cuda:0",
        "index": "cuda:0",
        "fetched": "cpu",
    }


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "sft"])
def test_a_training_on_a_gpu_is_gone_on_with_exactly_and_drawn_back_to_its_base(method: str, trial: Trial) -> None:
    on_gpu, on_cpu = trial("all", method), trial("once", method, gpu=False)
    assert on_gpu["whole"]["devices"] == ["cuda:0"]
    assert on_cpu["whole"]["devices"] == ["cpu"]
    assert on_gpu["whole"]["losses"] == pytest.approx(on_cpu["whole"]["losses"], rel=2e-3)
    assert len(on_gpu["killed"]["losses"]) == 7
    assert on_gpu["resumed"]["digest"] == on_gpu["whole"]["digest"]
    base, after, before = on_gpu["nll"]
    assert abs(after - base) < abs(before - base)


@pytest.mark.slow
def test_types_take_on_a_gpu_the_attention_and_the_layout_of_the_table() -> None:
    kinds = ["llama", "inkling_text"]
    lines = run_on_gpu("benchmarks/gpu_architectures.py", *kinds).splitlines()
    rows = read_architectures()
    assert [line.split(" (")[0].split() for line in lines] == [
        [f"{kind}:", rows[kind].gpu_layout, rows[kind].gpu_attention] for kind in kinds
    ]


@pytest.mark.slow
def test_two_gpus_train_the_model_of_one(trial: Trial, watched_shards: str, tmp_path: Path) -> None:
    task = task_in(tmp_path / "two", watched_shards, memory={"compiled": "no", "shard_base": True})
    write_artifact(str(tmp_path / "job.json"), TrainJobFile(task=task, gpus_per_node=2))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    output = run_on_gpu(*launch, "-m", "mixtune.train.worker", str(tmp_path / "job.json"))
    steps = [line.split() for line in output.splitlines() if line.startswith("step ")]
    losses = [float(words[words.index("loss") + 1]) for words in steps]
    assert losses == pytest.approx(trial("all", "lora")["whole"]["losses"], rel=2e-3)
