"""What a reviewer would ask of the overlays: hardened pods, denied networks, resources that fit node and queue."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from mixtune import __version__, images
from mixtune.prices import read_prices
from mixtune.serve.model_config import ModelConfig
from mixtune.serve.serve_model import WRITERS
from mixtune.serve.served_model import ServedModel
from mixtune.serve.sizing import plan_serving
from mixtune.settings.serving import FORMS, ServeSettings

from .conftest import OVERLAYS, ROOT, Build, Document

DEVICES = {"p5.48xlarge": {"nvidia.com/gpu": 8, "vpc.amazonaws.com/efa": 32}}
"""GPUs and EFA devices of an instance type, as AWS documents them."""
ALLOCATABLE_MEMORY_GIB = {"p5.48xlarge": 1938410 / 1024}
ALLOCATABLE_CPU = {"p5.48xlarge": 191.45}
CLUSTER_KINDS = {
    "ClusterTrainingRuntime", "ClusterQueue", "ResourceFlavor", "Topology", "WorkloadPriorityClass", "NodePool",
    "EC2NodeClass", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "Namespace", "PersistentVolume",
}  # fmt: skip


def pod_specs(documents: list[Document]) -> Iterator[tuple[str, Document, dict[str, str]]]:
    """Name, pod specification and labels of everything that makes pods."""
    for document in documents:
        name = f"{document['kind']} {document['metadata']['name']}"
        if document["kind"] == "Deployment":
            template = document["spec"]["template"]
            yield name, template["spec"], template["metadata"]["labels"]
        elif document["kind"] == "PodTemplate":
            yield name, document["template"]["spec"], document["template"]["metadata"]["labels"]
        elif document["kind"].endswith("TrainingRuntime"):
            for job in document["spec"]["template"]["spec"]["replicatedJobs"]:
                template = job["template"]["spec"]["template"]
                yield name, template["spec"], template["metadata"]["labels"]


def of_kind(documents: list[Document], kind: str, name: str = "") -> list[Document]:
    return [item for item in documents if item["kind"] == kind and name in ("", item["metadata"]["name"])]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_fit_for_a_restricted_namespace_and_has_a_read_only_root(build: Build, overlay: str) -> None:
    specs = list(pod_specs(build(overlay)))
    assert specs
    for name, spec, _ in specs:
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec), name
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] >= 10000, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        assert all("hostPath" not in volume for volume in spec["volumes"]), name
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            for kind in ("requests", "limits"):
                assert {"cpu", "memory", "ephemeral-storage"} <= set(container["resources"][kind]), name


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_images_are_pinned_and_ours_have_the_packages_version(build: Build, overlay: str) -> None:
    for name, spec, _ in pod_specs(build(overlay)):
        for container in spec["containers"]:
            image, tag = container["image"].rsplit(":", 1)
            assert tag != "latest" and "/" not in tag, name
            if "mixtune" in image:
                assert f"{image.rsplit('/', 1)[-1]}:{tag}" == images.TRAIN.rsplit("/", 1)[-1]
                assert tag == __version__


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_namespace_with_pods_denies_all_traffic_that_nothing_allows(build: Build, overlay: str) -> None:
    documents = build(overlay)
    namespaces = {
        item["metadata"]["namespace"] for item in documents if item["kind"] in ("ServiceAccount", "Deployment")
    }
    assert len(namespaces) == 1
    for namespace in namespaces:
        denied = [
            policy["spec"]
            for policy in of_kind(documents, "NetworkPolicy")
            if policy["metadata"]["namespace"] == namespace and not policy["spec"]["podSelector"]
        ]
        assert {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} in denied


@pytest.mark.parametrize("overlay", ["eks-p5", "hyperpod-eks", "profile"])
def test_nothing_leads_out_of_the_private_network(build: Build, overlay: str) -> None:
    private = re.compile(r"^(10\.|172\.(1[6-9]|2\d|3[01])\.|192\.168\.|169\.254\.170\.23/32|fd00:ec2::23/128)")
    for policy in of_kind(build(overlay), "NetworkPolicy"):
        for rule in policy["spec"].get("egress", []):
            assert rule.get("to"), policy["metadata"]["name"]
            for peer in rule["to"]:
                assert "ipBlock" not in peer or private.match(peer["ipBlock"]["cidr"]), policy["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_training_pods_carry_the_label_that_lets_ranks_meet(build: Build, overlay: str) -> None:
    documents = build(overlay)
    (policy,) = of_kind(documents, "NetworkPolicy", "mixtune-ranks")
    selector = policy["spec"]["podSelector"]["matchLabels"]
    for name, _, labels in pod_specs(documents):
        if "Runtime" in name:
            assert selector.items() <= labels.items(), name


@pytest.mark.parametrize("overlay", ["eks-p5", "hyperpod-eks", "profile"])
def test_a_p5_job_asks_for_the_whole_node_and_fits_it(build: Build, overlay: str) -> None:
    specs = [spec for name, spec, _ in pod_specs(build(overlay)) if name.endswith("mixtune-torch-p5")]
    assert len(specs) == (2 if overlay == "hyperpod-eks" else 1)
    assert specs[0] == specs[-1]
    spec = specs[0]
    instance = spec["nodeSelector"]["node.kubernetes.io/instance-type"].removeprefix("ml.")
    requests, limits = (spec["containers"][0]["resources"][key] for key in ("requests", "limits"))
    assert {key: int(requests[key]) for key in DEVICES[instance]} == DEVICES[instance]
    assert requests == limits
    assert number(requests["memory"]) / 2**30 < ALLOCATABLE_MEMORY_GIB[instance]
    assert float(requests["cpu"]) < ALLOCATABLE_CPU[instance]
    shared = sum(
        number(item["emptyDir"]["sizeLimit"]) for item in spec["volumes"] if "medium" in item.get("emptyDir", {})
    )
    assert shared < number(requests["memory"]) / 4


def test_the_queue_covers_every_resource_and_holds_whole_nodes(build: Build) -> None:
    documents = build("eks-p5")
    (spec,) = [spec for name, spec, _ in pod_specs(documents) if name.endswith("mixtune-torch-p5")]
    (queue,) = of_kind(documents, "ClusterQueue")
    (group,) = queue["spec"]["resourceGroups"]
    requests = spec["containers"][0]["resources"]["requests"]
    assert set(requests) <= set(group["coveredResources"])
    (flavor,) = group["flavors"]
    nodes = {
        item["name"]: number(item["nominalQuota"]) / number(requests[item["name"]]) for item in flavor["resources"]
    }
    assert set(nodes.values()) == {4.0}
    (node,) = of_kind(documents, "ResourceFlavor", flavor["name"])
    assert node["spec"]["nodeLabels"].items() <= spec["nodeSelector"].items()
    (local,) = of_kind(documents, "LocalQueue")
    assert local["spec"]["clusterQueue"] == queue["metadata"]["name"]
    allowed = queue["spec"]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
    assert allowed == local["metadata"]["namespace"]


def test_the_node_pool_makes_the_nodes_that_jobs_select_and_tolerate(build: Build) -> None:
    documents = build("eks-p5")
    (spec,) = [spec for name, spec, _ in pod_specs(documents) if name.endswith("mixtune-torch-p5")]
    (pool,) = of_kind(documents, "NodePool")
    values = {item["key"]: item["values"] for item in pool["spec"]["template"]["spec"]["requirements"]}
    assert values["node.kubernetes.io/instance-type"] == [spec["nodeSelector"]["node.kubernetes.io/instance-type"]]
    tolerated = {item["key"] for item in spec["tolerations"] if item["operator"] == "Exists"}
    assert {item["key"] for item in pool["spec"]["template"]["spec"]["taints"]} <= tolerated
    (quota,) = of_kind(documents, "ResourceQuota")
    assert int(quota["spec"]["hard"]["requests.nvidia.com/gpu"]) == pool["spec"]["limits"]["nvidia.com/gpu"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_roles_name_what_they_need_and_nothing_more(build: Build, overlay: str) -> None:
    documents = build(overlay)
    for role in of_kind(documents, "Role"):
        for rule in role["rules"]:
            named = rule["apiGroups"] + rule["resources"] + rule["verbs"]
            assert not {"*", "pods/exec", "deployments", "serviceaccounts/token"} & set(named)
            if "secrets" in named:
                assert (rule["resourceNames"], rule["verbs"]) == (["mlpipeline-minio-artifact"], ["get"])
    accounts = {item["metadata"]["name"] for item in of_kind(documents, "ServiceAccount")}
    for binding in of_kind(documents, "RoleBinding"):
        for subject in binding["subjects"]:
            assert subject["name"] in accounts
            assert subject["namespace"] == binding["metadata"]["namespace"]
    for account in ("mixtune-trainer", "mixtune-server"):
        assert rights(documents, account) == set()
    assert not {right for right in rights(documents, "mixtune-data") if "trainjobs" in right}
    assert ("trainer.kubeflow.org", "trainjobs", "delete") in rights(documents, "mixtune-launcher")


LAUNCHER_CALLS = {
    ("", "configmaps", "get"): "kfp-launcher",
    ("", "secrets", "get"): "mlpipeline-minio-artifact",
    ("", "pods", "get"): "",
    ("argoproj.io", "workflowtaskresults", "create"): "",
    ("argoproj.io", "workflowtaskresults", "patch"): "",
}
"""What KFP 2.17's launcher and Argo's executor ask for in a step, with the name where it is one: seen on a real cluster."""


@pytest.mark.parametrize("account", ["mixtune-data", "mixtune-launcher"])
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_steps_account_may_do_what_kfps_launcher_does(build: Build, overlay: str, account: str) -> None:
    documents = build(overlay)
    assert set(LAUNCHER_CALLS) <= rights(documents, account)
    (role,) = of_kind(documents, "Role", "mixtune-steps")
    for (group, resource, verb), name in LAUNCHER_CALLS.items():
        rules = [
            rule
            for rule in role["rules"]
            if group in rule["apiGroups"] and resource in rule["resources"] and verb in rule["verbs"]
        ]
        assert any(name in rule.get("resourceNames", [name]) for rule in rules), (resource, name)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_steps_reach_the_store_where_argo_archives_their_logs(build: Build, overlay: str) -> None:
    (policy,) = of_kind(build(overlay), "NetworkPolicy", "mixtune-steps-to-kfp")
    peers = [peer for rule in policy["spec"]["egress"] for peer in rule["to"]]
    assert {"matchLabels": {"app": "seaweedfs"}} in [peer.get("podSelector") for peer in peers]


def rights(documents: list[Document], account: str) -> set[tuple[str, str, str]]:
    bindings = of_kind(documents, "RoleBinding")
    names = {item["roleRef"]["name"] for item in bindings if any(who["name"] == account for who in item["subjects"])}
    return {
        (group, resource, verb)
        for role in of_kind(documents, "Role")
        if role["metadata"]["name"] in names
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("overlay", ["eks-p5", "hyperpod-eks", "kind"])
def test_cluster_scoped_objects_lie_apart_from_namespaced_ones(build: Build, overlay: str) -> None:
    assert {item["kind"] for item in build(f"{overlay}/cluster")} <= CLUSTER_KINDS
    for item in build(f"{overlay}/namespace"):
        assert item["kind"] == "Namespace" or item["kind"] not in CLUSTER_KINDS
        assert item["kind"] == "Namespace" or item["metadata"]["namespace"]


def test_a_served_models_pods_are_those_that_the_policies_select(build: Build) -> None:
    documents = build("eks-p5")
    (account,) = of_kind(documents, "ServiceAccount", "mixtune-server")
    assert account["automountServiceAccountToken"] is False
    (policy,) = of_kind(documents, "NetworkPolicy", "mixtune-servers-to-aws")
    (selector,) = policy["spec"]["podSelector"]["matchExpressions"]
    config = ModelConfig(num_hidden_layers=32, hidden_size=4096, num_attention_heads=32, num_key_value_heads=8)
    model = ServedModel(
        name="desk",
        base_uri="s3://b/m",
        config=config,
        weight_bytes=9,
        download_bytes=9,
    )
    for form in FORMS:
        settings = ServeSettings(form=form)
        *_, clients = WRITERS[form](model, plan_serving(model, settings, read_prices()), settings)
        labels = clients["spec"]["podSelector"]["matchLabels"]
        assert labels.get(selector["key"]) in selector["values"] or "serving.kserve.io/inferenceservice" in labels


def test_a_tenant_needs_no_right_over_the_cluster(build: Build) -> None:
    assert not {item["kind"] for item in build("profile")} & CLUSTER_KINDS
    assert {item["metadata"]["name"] for item in of_kind(build("profile"), "TrainingRuntime")} == {
        "mixtune-torch-p5", "mixtune-torch-cpu",
    }  # fmt: skip


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kfp_keeps_artifacts_in_s3_under_the_roles_prefix(build: Build, overlay: str) -> None:
    (config,) = of_kind(build(overlay), "ConfigMap", "kfp-launcher")
    assert re.fullmatch(r"s3://[^/]+/kfp", config["data"]["defaultPipelineRoot"])
    provider = yaml.safe_load(config["data"]["providers"])["s3"]["default"]
    assert provider["credentials"]["fromEnv"] is (overlay != "kind")
    assert provider["endpoint"] == ("seaweedfs.kubeflow:9000" if overlay == "kind" else "s3.us-east-1.amazonaws.com")


def test_kfp_finds_the_tracking_server_by_its_full_name(build: Build) -> None:
    documents = build("eks-p5")
    (config,) = of_kind(documents, "ConfigMap", "kfp-launcher")
    (service,) = of_kind(documents, "Service", "mixtune-mlflow")
    endpoint = json.loads(config["data"]["plugins.mlflow"])["endpoint"]
    port = service["spec"]["ports"][0]["port"]
    name, namespace = (service["metadata"][key] for key in ("name", "namespace"))
    assert endpoint == f"http://{name}.{namespace}.svc.cluster.local:{port}"


def test_nothing_is_fetched_from_elsewhere() -> None:
    for path in ROOT.rglob("kustomization.yaml"):
        content = yaml.safe_load(path.read_text())
        for entry in content.get("resources", []) + content.get("components", []):
            assert (path.parent / entry).exists(), f"{path}: {entry}"


UNITS = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


def number(quantity: Any) -> float:
    """A Kubernetes quantity as a number."""
    match = re.fullmatch(r"([\d.]+)([A-Za-z]*)", str(quantity))
    assert match, quantity
    return float(match[1]) * UNITS[match[2]]


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("kind", {"backend": "trainjob"}),
        ("eks-p5", {"backend": "trainjob", "queue": "mixtune", "priority": "mixtune-training",
                    "validation_priority": "mixtune-validation"}),
        ("hyperpod-eks", {"backend": "pytorchjob", "queue": "hyperpod-ns-mixtune-localqueue"}),
        ("profile", {"backend": "trainjob", "runtime_kind": "TrainingRuntime"}),
    ],
)  # fmt: skip
def test_the_launcher_is_told_what_jobs_are_here(build: Build, overlay: str, expected: dict[str, str]) -> None:
    (jobs,) = of_kind(build(overlay), "ConfigMap", "mixtune-jobs")
    assert jobs["data"] == expected
