"""Every object that the overlays make is one that Kubernetes and Kubeflow Trainer know, field by field."""

import json
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest

from .conftest import OVERLAYS, ROOT, Build, Document

KUBERNETES_VERSIONS = ("1.33", "1.36")
TRAINER_VERSIONS = ("2.2.1", "2.3.0")
RoundTrip = Callable[[str, list[Any]], list[tuple[Any, Any]]]
CORE_GROUPS = {"v1", "apps/v1", "rbac.authorization.k8s.io/v1", "networking.k8s.io/v1", "policy/v1"}


def is_core(document: Document) -> bool:
    return document["apiVersion"] in CORE_GROUPS or document["apiVersion"].startswith("admissionregistration.k8s.io")


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_core_objects_pass_strict_validation(build: Build, overlay: str, version: str) -> None:
    core = [document for document in build(overlay) if is_core(document)]
    assert len(core) > 10
    for document in core:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_misspelt_field_is_caught(build: Build) -> None:
    deployment = next(document for document in build("eks-p5") if document["kind"] == "Deployment")
    wrong = json.loads(json.dumps(deployment).replace('"volumeMounts"', '"volumeMount"'))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.33", strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_object_is_of_a_kind_that_nobody_checks(build: Build, overlay: str) -> None:
    known = {
        "trainer.kubeflow.org/v1alpha1",
        "kueue.x-k8s.io/v1beta2",
        "karpenter.sh/v1",
        "karpenter.k8s.aws/v1",
        "monitoring.coreos.com/v1",
    }
    rest = {document["apiVersion"] for document in build(overlay) if not is_core(document)}
    assert rest <= known


@pytest.mark.parametrize("version", TRAINER_VERSIONS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_runtimes_survive_a_round_trip_through_the_trainers_models(
    build: Build, round_trip: RoundTrip, overlay: str, version: str
) -> None:
    runtimes = [document for document in build(overlay) if document["apiVersion"].startswith("trainer.")]
    assert runtimes
    for before, after in round_trip(version, runtimes):
        assert after == before


@pytest.mark.parametrize("version", TRAINER_VERSIONS)
def test_a_misspelt_field_does_not_survive_it(build: Build, round_trip: RoundTrip, version: str) -> None:
    wrong = json.loads(json.dumps(build(ROOT / "cluster")).replace('"medium"', '"mdium"'))
    for before, after in round_trip(version, wrong):
        assert after != before


def test_the_processes_per_node_are_no_longer_the_runtimes(build: Build, round_trip: RoundTrip) -> None:
    wrong = json.loads(json.dumps(build(ROOT / "cluster")).replace('"torch": {}', '"torch": {"numProcPerNode": 8}'))
    for before, after in round_trip("2.3.0", wrong):
        assert after != before
