"""The Indexed Job that makes sanitize's parts: valid, hardened like every pod, and told what the component is told."""

import json
from typing import Any

import kubernetes_validate
import pytest

from mixtune import images
from mixtune.sanitize.run import read_parameters

from .conftest import ROOT, Build, Document
from .test_schemas import KUBERNETES_VERSIONS


@pytest.fixture
def documents(build: Build) -> list[Document]:
    return build(ROOT / "jobs" / "sanitize")


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_its_objects_pass_strict_validation(documents: list[Document], version: str) -> None:
    assert {document["kind"] for document in documents} == {"Job", "ConfigMap", "NetworkPolicy"}
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)


def test_its_pods_are_hardened_and_share_the_work(documents: list[Document]) -> None:
    (job,) = [document["spec"] for document in documents if document["kind"] == "Job"]
    pod: dict[str, Any] = job["template"]["spec"]
    (container,) = pod["containers"]
    assert job["completionMode"] == "Indexed"
    assert {"name": "JOB_COMPLETIONS", "value": str(job["completions"])} in container["env"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["image"].rsplit("/", 1)[-1] == images.DATA.rsplit("/", 1)[-1]


def test_its_parameters_are_those_of_the_component(documents: list[Document]) -> None:
    (config,) = [document["data"] for document in documents if document["kind"] == "ConfigMap"]
    options = json.loads(config["sanitize.json"])
    assert options.pop("storage") == {"region": "REGION"}
    assert read_parameters(options)[1].work_uri.startswith("s3://")
