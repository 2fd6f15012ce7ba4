"""What the launcher makes and asks for, held against the operators' own models and against the roles of kustomize/."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixtune.errors import ConfigError, TrainingError
from mixtune.kubernetes_api import Clock
from mixtune.settings.job import NodeSettings
from mixtune.train.launcher.cleanup import clean_up
from mixtune.train.launcher.jobs import BACKENDS, Job
from mixtune.train.launcher.launch import run_job
from mixtune.train.task import TrainTask

from . import schemas
from .api import FakeCluster
from .conftest import WORKFLOW, first_labels

KUSTOMIZE = Path(__file__).parents[3] / "kustomize"
FULL = Job(
    name="train-x",
    run_id="run-1",
    job_uri="s3://bucket/job.json",
    image="registry.example/mixtune-python-train:0.1.0",
    python="/opt/mixtune/bin/python3",
    num_nodes=4,
    processes_per_node=8,
    runtime="mixtune-torch-p5",
    queue="mixtune",
    priority="mixtune-training",
    env={"MLFLOW_TRACKING_URI": "http://mlflow:5000"},
    owner=WORKFLOW,
)
RoundTrip = Callable[[str, list[Any]], list[tuple[Any, Any]]]


@pytest.mark.parametrize("version", ["2.2.1", "2.3.0"])
def test_a_trainjob_survives_a_round_trip_through_the_trainers_models(round_trip: RoundTrip, version: str) -> None:
    body = BACKENDS["trainjob"].body(FULL, {})
    older = {**body, "spec": {**body["spec"], "podTemplateOverrides": [{"targetJobs": [{"name": "node"}]}]}}
    (same, lost) = round_trip(version, [body, older])
    assert same[1] == same[0]
    assert lost[1] == same[0], "Trainer 2.1's field is the only one that goes"


def test_a_pytorchjob_with_another_number_of_processes_than_gpus_is_refused() -> None:
    container = {"name": "node", "resources": {"limits": {"nvidia.com/gpu": 8}}}
    template = {"spec": {"containers": [container]}}
    assert BACKENDS["pytorchjob"].body(FULL, template)["spec"]["nprocPerNode"] == "8"
    with pytest.raises(ConfigError, match=r"gpus_per_node is 4, but a node .* with its 8 GPUs: set gpus_per_node to 8"):
        BACKENDS["pytorchjob"].body(replace(FULL, processes_per_node=4), template)


def asked(request: str) -> tuple[str, str, str]:
    """API group, resource and verb of a request, as a role names them."""
    method, url = request.split(" ")
    found = re.match(r"^/api(?:s/([^/]+))?/[^/]+/namespaces/team/([^/?]+)(/[^/?]+)?(/log)?", url)
    assert found, url
    verb = {"GET": "get" if found[3] else "list", "POST": "create", "DELETE": "delete"}[method]
    return found[1] or "", found[2] + (found[4] or ""), verb


def granted(role: str) -> set[tuple[str, str, str]]:
    """The rights of a role of the base; no overlay changes it."""
    documents = yaml.safe_load_all((KUSTOMIZE / "base/roles.yaml").read_text())
    (found,) = [item for item in documents if item["kind"] == "Role" and item["metadata"]["name"] == role]
    return {
        (group, resource, verb)
        for rule in found["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


LOOKED_AT = {
    ("", "serviceaccounts", "get"),
    ("kueue.x-k8s.io", "localqueues", "get"),
    ("trainer.kubeflow.org", "trainingruntimes", "get"),
}
"""What preflight looks at beside."""


@pytest.mark.parametrize("kind", ["2.3.0"], indirect=True)
def test_the_launchers_role_grants_what_it_asks_for_and_nothing_that_it_never_does(
    cluster: FakeCluster, training: tuple[TrainTask, NodeSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.checks["pytorchjobs"] = schemas.pytorchjob_errors

    def fail() -> None:
        name = cluster.job()["metadata"]["name"]
        for labels in (first_labels(name, "trainjob"), first_labels(name, "pytorchjob")):
            cluster.pod(f"{name}-node-0", labels, "Failed")
        cluster.condition("Failed", "Bad", "")

    task, nodes = training
    for backend in BACKENDS:
        cluster.clock.at(40, fail)
        with pytest.raises(TrainingError):
            run_job(task, replace(nodes, launcher=backend), Clock(cluster.clock.now, cluster.clock.sleep))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    clean_up()
    calls = {asked(request) for request in cluster.requests}
    launcher, steps = granted("mixtune-launcher"), granted("mixtune-steps")
    assert launcher - LOOKED_AT == calls - steps
    assert calls <= launcher | steps
