"""One file is filled in, and its values reach every place; opt-in components build on top of any overlay."""

import shutil
from pathlib import Path

import pytest
import yaml

from .conftest import ROOT, Build, kustomize

CHANGED = {
    "ACCOUNT": "444455556666",
    "REGION": "eu-west-1",
    "S3_ENDPOINT": "s3.eu-west-1.amazonaws.com",
    "BUCKET": "acme-tuning",
    "KMS_KEY_ARN": "arn:aws:kms:eu-west-1:444455556666:key/acme",
    "REGISTRY": "registry.acme.example",
    "CLUSTER": "acme-cluster",
    "NODE_ROLE": "acme-nodes",
    "CAPACITY_RESERVATION": "cr-acme",
    "ENDPOINT_CIDR": "10.20.0.0/20",
    "API_CIDR": "10.30.0.0/20",
}
UNUSED = {"OIDC_PROVIDER", "S3_VPC_ENDPOINT", "ADMIN_ROLE", "NAMESPACE"}
"""Read by policies/ only."""


def settings(overlay: str, root: Path = ROOT) -> dict[str, str]:
    lines = (root / "overlays" / overlay / "settings" / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("overlay", ["eks-p5", "hyperpod-eks", "profile"])
def test_what_is_filled_in_reaches_every_place_and_no_example_is_left(
    build: Build, tmp_path: Path, overlay: str
) -> None:
    before = settings(overlay)
    copy = tmp_path / "kustomize"
    shutil.copytree(ROOT, copy)
    lines = [f"{key}={CHANGED.get(key, value)}" for key, value in before.items()]
    (copy / "overlays" / overlay / "settings" / "settings.env").write_text("\n".join(lines))
    text = yaml.safe_dump_all(kustomize(copy / "overlays" / overlay), width=10_000)
    for key in set(before) - UNUSED - ({"CLUSTER"} if overlay != "eks-p5" else set()):
        assert CHANGED[key] in text, key
        assert before[key] not in text, key


@pytest.mark.parametrize("overlay", ["eks-p5", "hyperpod-eks", "profile"])
def test_the_map_of_settings_is_not_applied(build: Build, overlay: str) -> None:
    assert not [item for item in build(overlay) if item["metadata"]["name"] == "settings"]


@pytest.mark.parametrize(
    "component",
    [
        "hf-token",
        "webhook",
        "pod-identity",
        "mlflow-sagemaker",
        "training-operator",
        "monitoring-dcgm",
        "kueue",
        "serving",
    ],
)
def test_a_component_of_the_namespace_builds_on_the_base(tmp_path: Path, build: Build, component: str) -> None:
    documents = build(scratch(tmp_path, "base", component))
    assert len(documents) >= len(build(ROOT / "base"))


@pytest.mark.parametrize("component", ["cluster/model-cache-fsx", "cluster/model-cache-s3"])
def test_a_model_cache_is_mounted_read_only_in_every_runtime(tmp_path: Path, build: Build, component: str) -> None:
    documents = build(scratch(tmp_path, "cluster", component))
    runtimes = [item for item in documents if item["kind"] == "ClusterTrainingRuntime"]
    assert len(runtimes) == 2
    for runtime in runtimes:
        (job,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
        spec = job["template"]["spec"]["template"]["spec"]
        claims = [item["persistentVolumeClaim"] for item in spec["volumes"] if "persistentVolumeClaim" in item]
        assert claims == [{"claimName": "mixtune-models", "readOnly": True}]
        assert {"name": "models", "mountPath": "/models", "readOnly": True} in spec["containers"][0]["volumeMounts"]


def scratch(tmp_path: Path, base: str, component: str) -> Path:
    """An overlay of a base and one component, with the settings of eks-p5."""
    copy = tmp_path / "kustomize"
    shutil.copytree(ROOT, copy)
    folder = copy / "overlays" / "scratch"
    folder.mkdir()
    parts = ["../eks-p5/settings", "../../components/settings", f"../../components/{component}"]
    (folder / "kustomization.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "kustomize.config.k8s.io/v1beta1",
                "kind": "Kustomization",
                "resources": [f"../../{base}"],
                "components": parts,
            }
        )
    )
    return folder
