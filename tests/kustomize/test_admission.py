"""The admission policies, their expressions evaluated as the API server would."""

from typing import Any

import cel
import pytest

from mixtune.train.launcher.jobs import Job, trainjob

from .conftest import Build

JOB: dict[str, Any] = {
    "metadata": {"labels": {"kueue.x-k8s.io/queue-name": "mixtune"}},
    "spec": {"runtimeRef": {"name": "mixtune-torch-p5"}, "trainer": {"numProcPerNode": 8}},
}


def verdicts(build: Build, policy: str, value: dict[str, Any]) -> list[bool]:
    (found,) = [
        item
        for item in build("eks-p5")
        if item["kind"] == "ValidatingAdmissionPolicy" and item["metadata"]["name"] == policy
    ]
    variables = {
        item["name"]: cel.evaluate(item["expression"], {"object": value}) for item in found["spec"].get("variables", [])
    }
    context = {"object": value, "variables": variables}
    return [bool(cel.evaluate(item["expression"], context)) for item in found["spec"]["validations"]]


def test_a_training_job_needs_a_queue_and_one_of_our_runtimes(build: Build) -> None:
    assert verdicts(build, "mixtune-training-jobs", JOB) == [True, True, True]
    assert verdicts(build, "mixtune-training-jobs", {**JOB, "metadata": {}}) == [False, True, True]
    other = {**JOB, "spec": {"runtimeRef": {"name": "torch-distributed"}}}
    assert verdicts(build, "mixtune-training-jobs", other) == [True, False, True]


@pytest.mark.parametrize(("runtime", "processes", "allowed"), [("p5", 8, True), ("p5", 4, False), ("cpu", 4, True)])
def test_a_job_runs_as_many_processes_as_its_node_has_gpus(
    build: Build, runtime: str, processes: int, allowed: bool
) -> None:
    job = Job(
        name="train-x", run_id="run", job_uri="s3://b/job.json", image="i", python="python3", num_nodes=4, processes_per_node=processes,
        runtime=f"mixtune-torch-{runtime}", queue="mixtune",
    )  # fmt: skip
    assert verdicts(build, "mixtune-training-jobs", trainjob(job, {})) == [True, True, allowed]


@pytest.mark.parametrize(
    ("image", "allowed"),
    [
        ("registry.example:5000/mixtune-python-train:0.1.0", True),
        ("registry.example/mixtune-python-train@sha256:" + "a" * 64, True),
        ("registry.example:5000/mixtune-python-train", False),
        ("registry.example/mixtune-python-train:latest", False),
        ("mixtune-python-train", False),
    ],
)
def test_an_image_needs_a_digest_or_a_tag_that_is_not_latest(build: Build, image: str, allowed: bool) -> None:
    good = {"image": "argoproj/argoexec:v4.0.8"}
    assert verdicts(build, "mixtune-images", {"spec": {"containers": [good, {"image": image}]}}) == [allowed]
    init = {"spec": {"containers": [good], "initContainers": [{"image": image}]}}
    assert verdicts(build, "mixtune-images", init) == [allowed]
