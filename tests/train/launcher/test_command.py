"""The command of our own job objects, run to its end: two nodes, everything in S3, one node lost on the way."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.distributed.run import config_from_args, parse_args

from mixtune import storage
from mixtune.artifacts import shards
from mixtune.artifacts.shards import ShardFile, ShardsManifest
from mixtune.artifacts.typed_json import write_artifact
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.kubernetes_api import Clock
from mixtune.models import tokenizer_digest
from mixtune.settings.job import NodeSettings
from mixtune.settings.train import CheckpointSettings, MemorySettings, TrainSettings
from mixtune.train.launcher.jobs import BACKENDS, Job
from mixtune.train.launcher.launch import run_job
from mixtune.train.launcher.node import torchrun_arguments
from mixtune.train.run import run_training
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

from .api import FakeCluster
from .operator import Operator, nodes_of

RUNTIME = Path(__file__).parents[3] / "kustomize/cluster/runtime-cpu/runtime.yaml"
STEPS, BATCH = 8, 4


def write_shards(folder: str) -> str:
    """Shards of two pools; their manifest's URI."""
    draw = np.random.default_rng(0)
    with storage.open_write(f"{folder}/data/shards/s.arrow") as stream, pa.ipc.new_file(stream, shards.SCHEMA) as file:
        for _ in range(STEPS):
            lengths = draw.integers(4, 30, BATCH).tolist()
            columns = [
                [number % 2 for number in range(BATCH)],
                [bytes([number] * 16) for number in range(BATCH)],
                [draw.integers(5, 500, length).astype(np.int32).tolist() for length in lengths],
                [(np.arange(length) >= length // 2).astype(np.uint8).tolist() for length in lengths],
                [1.0] * BATCH,
            ]
            file.write_batch(pa.record_batch(columns, schema=shards.SCHEMA))
    manifest = ShardsManifest(
        data_uri=f"{folder}/data/shards",
        files=(stream.entry("s.arrow"),),
        num_steps=STEPS,
        pools=("customer", "chat"),
        shards=(ShardFile(file="s.arrow", first_step=0, num_steps=STEPS),),
        tokenizer_digest=tokenizer_digest(BASE_MODEL),
    )
    write_artifact(f"{folder}/shards", manifest)
    return f"{folder}/shards"


def weights(uri: str, folder: Path) -> dict[str, torch.Tensor]:
    (file,) = storage.fetch(storage.check_fingerprint(uri), folder).glob("*.safetensors")
    return load_file(file)


@pytest.fixture
def template() -> dict[str, Any]:
    """The pod of our runtime without GPUs."""
    (job,) = yaml.safe_load(RUNTIME.read_text())["spec"]["template"]["spec"]["replicatedJobs"]
    return dict(job["template"]["spec"]["template"])


@pytest.fixture
def operator(cluster: FakeCluster, kind: str, template: dict[str, Any], tmp_path: Path) -> Iterator[Operator]:
    cluster.put("podtemplates", "mixtune-torch-cpu", template=template)
    running = Operator(cluster, kind, template, tmp_path)
    yield running
    running.stop()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["2.3.0"], indirect=True)
def test_a_job_that_loses_a_node_goes_on_from_s3_and_ends_where_one_process_does(
    cluster: FakeCluster, operator: Operator, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.upload(BASE_MODEL, f"{bucket}/models/base")
    nodes = NodeSettings(num_nodes="2")
    folder = f"{bucket}/kfp/finetune/run-1/train-lora/1"
    task = TrainTask(
        settings=TrainSettings(
            method="lora", checkpoints=CheckpointSettings(every_steps=2), memory=MemorySettings(max_tokens_per_gpu=40)
        ),
        inputs=TrainInputs(
            shards_path="/the/launcher/has/not/read/them",
            shards_uri=write_shards(f"{bucket}/kfp/finetune/run-1/mix-shard/1"),
            base_model=storage.fingerprint(f"{bucket}/models/base"),
        ),
        outputs=TrainOutputs(model_path=str(tmp_path / "out" / "model"), model_uri=f"{folder}/model"),
    )

    def lose_a_node(line: str) -> None:
        if line.startswith("step 5/"):
            operator.on_line = lambda line: None
            operator.lose(1)

    operator.on_line = lose_a_node
    model = run_job(task, nodes, Clock(cluster.clock.now, operator.sleep))

    told = capsys.readouterr().out
    assert operator.starts == 2
    assert len(cluster.created) == 1
    assert f"going on after step 4 of {STEPS}" in told
    assert told.count("step 4/") == 1 and f"step {STEPS}/{STEPS} loss" in told
    alone = replace(
        task,
        inputs=replace(task.inputs, shards_path=task.inputs.shards_uri, base_model=str(BASE_MODEL)),
        outputs=TrainOutputs(model_path=str(tmp_path / "alone"), model_uri=str(tmp_path / "alone")),
    )
    expected = weights(run_training(alone).uri, tmp_path)
    found = weights(model.uri, tmp_path / "fetched")
    assert set(found) == set(expected)
    assert max(float((found[key] - expected[key]).abs().max()) for key in expected) < 5e-5
    left = {entry.path.split("/")[0] for entry in storage.list_files(f"{folder}/data")}
    assert left == {"job", "model"}, "no checkpoint stays"


@pytest.mark.parametrize("backend", BACKENDS)
def test_torchrun_reads_the_same_meeting_out_of_both_kinds_of_job(
    backend: str, template: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(
        name="train-x",
        run_id="run-1",
        job_uri="s3://b/job.json",
        image="i",
        python="python3",
        num_nodes=4,
        processes_per_node=8,
        runtime="r",
    )
    nodes = nodes_of(BACKENDS[backend].body(job, template), template, 29500)
    assert len(nodes) == 4
    for rank, (command, environment) in enumerate(nodes):
        with monkeypatch.context() as patch:
            for key, value in environment.items():
                patch.setenv(key, value)
            read, _, words = config_from_args(parse_args(torchrun_arguments(command[3:])))
        assert (read.min_nodes, read.max_nodes, read.nproc_per_node) == (4, 4, 8)
        assert read.rdzv_endpoint == "127.0.0.1:29500"
        assert read.rdzv_configs["rank"] == rank
        assert words[-3:] == ["-m", "mixtune.train.worker", "s3://b/job.json"]
