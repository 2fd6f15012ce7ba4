"""Fixtures: a cluster that can be anything's back-end, and a training that wants nodes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.artifacts.model import ModelManifest
from mixtune.artifacts.typed_json import write_artifact
from mixtune.settings.job import NodeSettings
from mixtune.settings.train import TrainSettings
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

from . import schemas
from .api import TRAINER, FakeCluster, Server, SimulatedClock

WORKFLOW = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "finetune-x", "uid": "uid-of-workflow"}
IMAGE = "registry.example/mixtune-python-train@sha256:" + "a" * 64


@pytest.fixture(scope="session")
def trainjob_schemas(trainer_api: Callable[[str], Path]) -> dict[str, Any]:
    return {version: schemas.trainjob_schema(version, trainer_api(version)) for version in ("2.2.1", "2.3.0")}


@pytest.fixture(params=["2.2.1", "2.3.0", "pytorchjob"])
def kind(request: pytest.FixtureRequest) -> str:
    """A back-end: a version of Kubeflow Trainer, or Training Operator v1."""
    return str(request.param)


@pytest.fixture
def cluster(
    kind: str, trainjob_schemas: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[FakeCluster]:
    """A cluster with the launcher's pod and the platform's settings in it."""
    if kind == "pytorchjob":
        checks = {"pytorchjobs": schemas.pytorchjob_errors}
    else:
        checks = {"trainjobs": lambda body: schemas.errors(trainjob_schemas[kind], body)}
    state = FakeCluster(SimulatedClock(), checks)
    state.put(
        "pods",
        "launcher-0",
        metadata={
            "labels": {"pipeline/runid": "run-1", "workflows.argoproj.io/workflow": "finetune-x"},
            "ownerReferences": [{**WORKFLOW, "controller": True, "blockOwnerDeletion": True}],
        },
        spec={"containers": [{"name": "main", "image": IMAGE}, {"name": "wait", "image": "argoexec:v4"}]},
    )
    state.put("configmaps", "mixtune-jobs", data={"queue": "", "backend": "pytorchjob" if kind == "pytorchjob" else ""})
    state.put(
        "podtemplates",
        "mixtune-torch-p5",
        template={"spec": {"restartPolicy": "Never", "containers": [{"name": "node", "image": "old"}]}},
    )
    server = Server(state, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    monkeypatch.setenv("HOSTNAME", "launcher-0")
    monkeypatch.delenv("MIXTUNE_RUN_ID", raising=False)
    yield state
    server.close()


@pytest.fixture
def training(bucket: str, tmp_path: Path) -> tuple[TrainTask, NodeSettings]:
    """Four nodes of eight GPUs."""
    task = TrainTask(
        settings=TrainSettings(method="lora"),
        inputs=TrainInputs(
            shards_path=str(tmp_path / "shards"),
            shards_uri=f"{bucket}/kfp/finetune/run-1/mix-shard/1/shards",
            base_model="org/model@abc",
        ),
        outputs=TrainOutputs(
            model_path=str(tmp_path / "out" / "model"),
            model_uri=f"{bucket}/kfp/finetune/run-1/train-lora/1/model",
        ),
    )
    return task, NodeSettings(num_nodes="4", gpus_per_node="8")


def first_labels(name: str, kind: str, rank: int = 0) -> dict[str, str]:
    """Labels of a job's pod, as its operator and our runtime set them."""
    return {**TRAINER, **_operators_labels(name, kind, rank)}


def _operators_labels(name: str, kind: str, rank: int) -> dict[str, str]:
    if kind == "pytorchjob":
        return {
            "training.kubeflow.org/job-name": name,
            "training.kubeflow.org/replica-type": "worker" if rank else "master",
        }
    return {
        "jobset.sigs.k8s.io/jobset-name": name,
        "jobset.sigs.k8s.io/replicatedjob-name": "node",
        "batch.kubernetes.io/job-completion-index": str(rank),
    }


def write_model(task: TrainTask) -> None:
    """What the job's rank 0 leaves behind."""
    target = storage.data_uri(task.outputs.model_uri, "model")
    with storage.open_write(f"{target}/adapter.safetensors") as stream:
        stream.write(b"weights")
    manifest = ModelManifest(data_uri=target, files=(stream.entry("adapter.safetensors"),))
    write_artifact(storage.data_uri(task.outputs.model_uri, "job") + "/model.json", manifest)
