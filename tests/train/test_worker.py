"""Training jobs of several processes, forked or started by torchrun, against one process."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixtune import storage
from mixtune.demo.world import BASE_MODEL
from mixtune.train.worker import run_job

Weights = dict[str, torch.Tensor]


def write_job(folder: Path, shards_path: str, place: str = "", **options: object) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    place = place or str(folder)
    config = {"method": "lora", "learning_rate": 1e-5, "checkpoint_steps": 2, "max_tokens_per_gpu": 40, **options}
    places = {
        "shards_path": shards_path,
        "base_model": str(BASE_MODEL),
        "model_path": storage.join(place, "model"),
        "model_uri": storage.join(place, "model"),
    }
    job = folder / "job.json"
    job.write_text(json.dumps({"config": config, "places": places, "storage": {}}))
    return str(job)


def weights_of(uri: str, folder: Path) -> Weights:
    manifest = storage.read_manifest(storage.join(uri, "model"), "model")
    (name,) = [item["path"] for item in manifest["files"] if item["path"].endswith("model.safetensors")]
    return load_file(storage.fetch(manifest["data_uri"], folder) / name)


def furthest(one: Weights, other: Weights) -> float:
    assert set(one) == set(other)
    return max(float((one[key] - other[key]).abs().max()) for key in one)


def _process(job: str, rank: int, size: int, port: int) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run_job(job)


def run_forked(job: str, size: int) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_process, args=(job, rank, size, port)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * size


@pytest.fixture(scope="module", params=["lora", "sft"])
def alone(
    request: pytest.FixtureRequest, shards_path: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Weights]:
    folder = tmp_path_factory.mktemp("alone")
    run_job(write_job(folder, shards_path, method=request.param))
    return request.param, weights_of(str(folder), folder)


@pytest.mark.parametrize("size", [2, 4])
def test_the_trajectory_is_the_same_for_any_number_of_processes(
    size: int, alone: tuple[str, Weights], shards_path: str, tmp_path: Path
) -> None:
    method, expected = alone
    run_forked(write_job(tmp_path, shards_path, method=method), size)
    gap = furthest(weights_of(str(tmp_path), tmp_path), expected)
    assert gap < 1e-6
    assert not (tmp_path / "data" / "checkpoints").exists()


def start(job: str, processes: int) -> "subprocess.Popen[bytes]":
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PET_NNODES": "1", "PET_NPROC_PER_NODE": str(processes), "PET_MASTER_PORT": str(port)}
    command = [sys.executable, "-m", "torch.distributed.run", "-m", "mixtune.train.worker", job]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def test_a_job_in_s3_that_is_told_to_end_goes_on_in_fewer_processes(
    shards_path: str, alone: tuple[str, Weights], bucket: str, tmp_path: Path
) -> None:
    method, expected = alone
    place = f"{bucket}/job/task"
    job = write_job(tmp_path, shards_path, place, method=method)
    process = start(job, 2)
    assert process.stdout
    for line in process.stdout:
        if line.startswith(b"step 3/"):
            break
    process.send_signal(signal.SIGTERM)
    told = process.stdout.read()
    process.wait(60)
    checkpoints = f"{place}/data/checkpoints"
    assert b"told to end (SIGTERM)" in told or b"step 12/12" in told
    if b"told to end" in told:
        assert any(entry.path.endswith("checkpoint.json") for entry in storage.list_files(checkpoints))
    run_job(job)
    assert furthest(weights_of(place, tmp_path / "fetched"), expected) < 1e-6
    assert not storage.exists(checkpoints)


def test_a_job_that_is_done_is_not_trained_again(
    shards_path: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = write_job(tmp_path, shards_path)
    first = run_job(job)
    assert "step 12/12" in capsys.readouterr().out
    assert run_job(job) == first
    assert "step" not in capsys.readouterr().out
