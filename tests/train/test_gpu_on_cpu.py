"""By the rules of a GPU, trainings go the way of a GPU to the losses of a CPU: `benchmarks/gpu_on_cpu` is the GPU."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.model import read_architectures
from mixtune.artifacts.typed_json import write_artifact
from mixtune.train.task import TrainJobFile

from . import on_gpu
from .conftest import task_in

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks/gpu_on_cpu"))

from run import environment  # noqa: E402

pytestmark = pytest.mark.skipif(not shutil.which("g++"), reason="PyTorch's guard for a GPU needs a C++ compiler")
Trial = Callable[..., dict[str, Any]]


def start_on_gpu(*arguments: str) -> "subprocess.Popen[str]":
    """Start Python with a GPU; it prints errors among its output."""
    command, pipe = [sys.executable, *arguments], subprocess.PIPE
    env = {**environment(), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=env, cwd=ROOT, text=True, stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def gpu() -> Iterator["subprocess.Popen[str]"]:
    """A process with a GPU for all trials: one for each would load PyTorch and transformers again."""
    with start_on_gpu("tests/train/on_gpu.py") as process:
        yield process


@pytest.fixture(scope="module")
def trial(gpu: "subprocess.Popen[str]", half_watched: str, tmp_path_factory: pytest.TempPathFactory) -> Trial:
    @cache
    def run(name: str, method: str = "lora") -> dict[str, Any]:
        assert gpu.stdin and gpu.stdout
        print(json.dumps([name, str(tmp_path_factory.mktemp(name)), half_watched, method]), file=gpu.stdin, flush=True)
        lines = []
        for line in gpu.stdout:
            if line.startswith(on_gpu.OUTCOME):
                outcome: dict[str, Any] = json.loads(line.removeprefix(on_gpu.OUTCOME))
                return outcome
            assert "cannot train with" not in line  # attention over packed records is taken
            lines.append(line)
        pytest.fail("".join(lines)[-4000:])

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
def test_a_training_on_a_gpu_is_gone_on_with_exactly_and_drawn_back_to_its_base(
    method: str, trial: Trial, half_watched: str, tmp_path: Path
) -> None:
    of_gpu, of_cpu = trial("all", method), on_gpu.main("once", tmp_path, half_watched, method)
    assert of_gpu["whole"]["devices"] == ["cuda:0"]
    assert of_cpu["whole"]["devices"] == ["cpu"]
    assert of_gpu["whole"]["losses"] == pytest.approx(of_cpu["whole"]["losses"], rel=2e-3)
    assert len(of_gpu["killed"]["losses"]) == on_gpu.LAST_STEP < len(of_gpu["whole"]["losses"])
    assert of_gpu["resumed"]["digest"] == of_gpu["whole"]["digest"]
    base, after, before = of_gpu["nll"]
    assert abs(after - base) < abs(before - base)


@pytest.mark.slow
def test_types_take_on_a_gpu_the_attention_and_the_layout_of_the_table(trial: Trial) -> None:
    rows = read_architectures()
    kinds = {kind: [rows[kind].gpu_layout, rows[kind].gpu_attention] for kind in ("llama", "inkling_text")}
    assert trial("types", " ".join(kinds)) == kinds


@pytest.mark.slow
def test_two_gpus_train_the_model_of_one(trial: Trial, half_watched: str, tmp_path: Path) -> None:
    task = task_in(tmp_path / "two", half_watched, memory={"compiled": "no", "shard_base": True})
    write_artifact(str(tmp_path / "job.json"), TrainJobFile(task=task, gpus_per_node=2))
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = start_on_gpu(*launch, "-m", "mixtune.train.worker", str(tmp_path / "job.json"))
    output, _ = process.communicate()
    assert process.returncode == 0, output[-4000:]
    steps = [line.split() for line in output.splitlines() if line.startswith("step ")]
    losses = [float(words[words.index("loss") + 1]) for words in steps]
    assert losses == pytest.approx(trial("all", "lora")["whole"]["losses"], rel=2e-3)
