"""Training jobs of several processes against one process."""

import itertools
import random
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixtune import storage
from mixtune.artifacts.model import read_model
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.train import checkpoints
from mixtune.train.checkpoints import Checkpoints
from mixtune.train.distributed import ProcessGroup
from mixtune.train.modeling.trainable import Trainable
from mixtune.train.worker import run_job

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each starts several processes that load PyTorch
sys.path.insert(0, str(ROOT))

from benchmarks.kills import furthest, run_forked, run_with_kills, start_forked, weights_of, write_job  # noqa: E402

from ..faulty_s3 import FaultyS3  # noqa: E402
from .conftest import STEPS  # noqa: E402
from .test_packing import APART, LEAKING, base_of  # noqa: E402

Weights = dict[str, torch.Tensor]


def job_in(folder: Path, shards_path: str, place: str = "", **options: object) -> str:
    options = {"memory": {"max_tokens_per_gpu": 40}, "checkpoints": {"every_steps": 2}, **options}
    return write_job(folder, shards_path, str(BASE_MODEL), place, **options)


def train_alone(method: str, shards: str, folder: Path) -> tuple[str, Weights]:
    run_job(job_in(folder, shards, method=method))
    return method, weights_of(str(folder), folder)


@pytest.fixture(scope="module", params=["lora", "sft"])
def alone(
    request: pytest.FixtureRequest, shards_path: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Weights]:
    """A method, and the weights that it ends with in one process."""
    return train_alone(request.param, shards_path, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=["lora", "sft"])
def half_alone(
    request: pytest.FixtureRequest, half_shards: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Weights]:
    """The same after half of the steps."""
    return train_alone(request.param, half_shards, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize(("half_alone", "size"), [("lora", 2), ("lora", 4), ("sft", 2)], indirect=["half_alone"])
def test_the_trajectory_is_the_same_for_any_number_of_processes(
    size: int, half_alone: tuple[str, Weights], half_shards: str, tmp_path: Path
) -> None:
    method, expected = half_alone
    run_forked(job_in(tmp_path, half_shards, method=method), size)
    gap = furthest(weights_of(str(tmp_path), tmp_path), expected)
    assert gap < 1e-6
    assert not (tmp_path / "data" / "checkpoints").exists()


def reduce_every_micro_batch(model: Trainable, *, is_last: bool, keep_whole: bool) -> None:
    """As on a GPU: within the node at once, over nodes with the last."""
    SET_GRADIENT_SYNC(model, is_last=is_last, keep_whole=False)


SET_GRADIENT_SYNC = Trainable.set_gradient_sync


@pytest.mark.parametrize(
    ("half_alone", "size", "nodes", "options", "shards"),
    [
        ("sft", 4, 2, {}, 2),
        ("sft", 4, 2, {}, 4),
        ("lora", 2, 1, {"memory": {"max_tokens_per_gpu": 40, "shard_base": True}}, 1),
    ],
    ids=["sft-2-nodes", "sft-on-nodes-that-are-too-small", "lora-on-a-sliced-base"],
    indirect=["half_alone"],
)
def test_a_model_in_slices_ends_with_the_same_weights(
    size: int,
    nodes: int,
    options: dict[str, object],
    shards: int,
    half_alone: tuple[str, Weights],
    half_shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, expected = half_alone
    monkeypatch.setattr(Checkpoints, "delete", Checkpoints.finish)  # so that the last one can be looked at
    monkeypatch.setattr(Trainable, "set_gradient_sync", reduce_every_micro_batch)
    if shards == size:
        monkeypatch.setattr(ProcessGroup, "memory_bytes", 1e6)
    run_forked(job_in(tmp_path, half_shards, method=method, checkpoints={"every_steps": 5}, **options), size, nodes)
    assert furthest(weights_of(str(tmp_path), tmp_path), expected) < 1e-6
    saved = (tmp_path / "data" / "checkpoints").glob("step-00000005-*/weights-*")
    num_values = [sum(value.numel() for value in load_file(file).values()) for file in saved]
    all_values = sum(value.numel() for value in expected.values())
    assert sum(num_values) == all_values
    assert sorted(num_values) == [all_values // shards] * shards


def test_full_sft_in_bfloat16_watched_and_saved_is_the_same_in_two_processes(
    watched_shards: str, tmp_path: Path
) -> None:
    found = []
    memory = {"max_tokens_per_gpu": 40, "dtype": "bfloat16", "activations": "recompute"}
    for size in (1, 2):
        folder = tmp_path / str(size)
        run_forked(
            job_in(folder, watched_shards, method="sft", memory=memory, checkpoints={"every_steps": 6}),
            size,
        )
        found.append(weights_of(str(folder), folder))
    assert {value.dtype for value in found[0].values()} == {torch.bfloat16}
    assert furthest(*found) < 1e-6
    assert furthest(found[0], load_file(BASE_MODEL / "model.safetensors")) > 1e-5


@pytest.mark.parametrize("sizes", [[1], [2, 1, 4]], ids=str)
def test_a_training_that_is_killed_again_and_again_ends_with_the_same_weights(
    sizes: list[int], alone: tuple[str, Weights], shards_path: str, tmp_path: Path
) -> None:
    method, expected = alone
    job = job_in(tmp_path, shards_path, method=method, checkpoints={"every_steps": 1})
    tally = run_with_kills(job, itertools.cycle(sizes), 2, 4, random.Random(5))
    assert tally.in_saves
    gap = furthest(weights_of(str(tmp_path), tmp_path), expected)
    assert gap == 0 if sizes == [1] else gap < 1e-6
    assert not (tmp_path / "data" / "checkpoints").exists()


@pytest.mark.parametrize(("kind", "method"), [("lfm2", "sft"), ("qwen3_moe", "lora")])
def test_a_hybrid_and_a_mixture_that_are_killed_end_with_the_same_bits(
    kind: str, method: str, shards_path: str, tmp_path: Path
) -> None:
    base = base_of(kind, {**LEAKING, **APART}[kind], tmp_path / "base")
    options = {"method": method, "learning_rate": 1e-3, "checkpoints": {"every_steps": 1}}
    whole, cut = (write_job(tmp_path / name, shards_path, base, **options) for name in ("whole", "cut"))
    run_job(whole)
    tally = run_with_kills(cut, itertools.repeat(1), 2, 4, random.Random(5))
    assert tally.kills == 2 and tally.in_saves and tally.resumed_after[-1] > 0
    assert furthest(*(weights_of(str(tmp_path / name), tmp_path) for name in ("whole", "cut"))) == 0


def test_processes_see_the_same_forgetting_and_end_with_the_same_weights(half_watched: str, tmp_path: Path) -> None:
    options = {
        "method": "sft",
        "learning_rate": 3e-4,
        "checkpoints": {"every_steps": 3},
        "guards": {"max_nll_rise": 0.4},
    }
    jobs = [job_in(tmp_path / name, half_watched, **options) for name in ("one", "two")]
    run_job(jobs[0])
    run_forked(jobs[1], 2)
    one, two = (read_model(str(tmp_path / name / "model")).figures for name in ("one", "two"))
    assert one and two and one.kept_step == two.kept_step == 3
    weights = [weights_of(str(tmp_path / name), tmp_path / name) for name in ("one", "two")]
    assert furthest(*weights) < 1e-5


def test_a_validation_run_of_two_processes_measures_what_one_of_them_does(shards_path: str, tmp_path: Path) -> None:
    run_forked(job_in(tmp_path, shards_path, method="sft", validation_steps=3), 2)
    figures = read_model(str(tmp_path / "model")).figures
    assert figures and figures.first_batch_loss and figures.first_batch_loss_after
    assert figures.num_processes == 2
    assert figures.tokens_per_second_per_gpu == pytest.approx(figures.mean_tokens_per_second / 2)
    assert figures.largest_micro_batch_tokens == 40
    assert figures.first_batch_loss_after < figures.first_batch_loss


@pytest.mark.parametrize("alone", ["sft"], indirect=True)
def test_a_job_in_s3_that_is_told_to_end_goes_on_in_fewer_processes(
    shards_path: str, alone: tuple[str, Weights], bucket: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    method, expected = alone
    place = f"{bucket}/job/task"
    job = job_in(tmp_path, shards_path, place, method=method)
    processes, told = start_forked(job, 2), ""
    while "step 3/" not in told and any(process.is_alive() for process in processes):
        told += capfd.readouterr().out
        time.sleep(0.01)
    for process in processes:
        process.terminate()
    for process in processes:
        process.join(60)
    told += "".join(capfd.readouterr())
    folder = f"{place}/data/checkpoints"
    assert "told to end (SIGTERM)" in told or f"step {STEPS}/{STEPS}" in told
    if "told to end" in told:
        assert any(entry.path.endswith("checkpoint.json") for entry in storage.list_files(folder))
    run_job(job)
    assert furthest(weights_of(place, tmp_path / "fetched"), expected) < 1e-6
    assert not storage.exists(folder)


@pytest.mark.parametrize("half_alone", ["sft"], indirect=True)
def test_a_checkpoint_that_one_of_two_processes_cannot_write_costs_that_one_alone(
    half_shards: str,
    half_alone: tuple[str, Weights],
    bucket: str,
    faulty_s3: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    method, expected = half_alone
    monkeypatch.setattr(checkpoints, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(Checkpoints, "delete", Checkpoints.finish)
    second = "00001-of-00002.safetensors"
    faulty_s3.fault = lambda method, path: "SlowDown" if "/step-00000002-" in path and second in path else ""
    job = job_in(tmp_path, half_shards, f"{bucket}/job/task", method=method, checkpoints={"every_steps": 2})
    run_forked(job, 2)
    printed = capfd.readouterr().out
    assert printed.count("the training goes on") == 1 and "step-00000002" in printed and faulty_s3.faults
    assert furthest(weights_of(f"{bucket}/job/task", tmp_path / "fetched"), expected) < 1e-6
    left = [entry.path for entry in storage.list_files(f"{bucket}/job/task/data/checkpoints")]
    assert not [path for path in left if path.startswith("step-00000002-")]
    assert len([path for path in left if path.endswith("checkpoint.json")]) == 1


def test_a_job_that_is_done_is_not_trained_again(
    shards_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_in(tmp_path, shards_path)
    first = run_job(job)
    assert "step 12/12" in capsys.readouterr().out
    left = tmp_path / "data" / "checkpoints" / "step-00000011-killed"  # while it was cleaned up
    left.mkdir(parents=True)
    assert run_job(job) == first
    assert not left.exists()
    assert "step" not in capsys.readouterr().out
