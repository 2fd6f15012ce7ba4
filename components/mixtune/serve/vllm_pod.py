"""The pod that vLLM runs in: command, caches, probes, and the project's security defaults."""

from mixtune.serve.served_model import ServedModel
from mixtune.serve.sizing import MEMORY_SHARE, SHARED_MEMORY_GIB, ServingPlan
from mixtune.settings.serving import ServeSettings

IMAGE = "docker.io/vllm/vllm-openai:v0.33.0"
"""vLLM's own image; `image` takes another."""
USER = 10001
TMP_GIB = 8
"""Of caches: compiled kernels and graphs."""
PART_OF = {"app.kubernetes.io/part-of": "mixtune"}

Object = dict[str, object]


def pod_security() -> Object:
    """Return what Pod Security's level `restricted` asks of a pod, and a group that may write to its volumes."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Object:
    """Return the same of a container, with a root file system that nobody writes to."""
    return {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def pod_basics(plan: ServingPlan, settings: ServeSettings) -> Object:
    """Return what every pod of a served model has: its account without a token, its machine, its security."""
    return {
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": {"node.kubernetes.io/instance-type": plan.instance.name},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "securityContext": pod_security(),
    }


def resources(plan: ServingPlan) -> Object:
    """Return what the server's container asks for and may have: the same."""
    amounts = {
        "cpu": str(plan.cpus),
        "memory": f"{plan.memory_gib}Gi",
        "ephemeral-storage": f"{plan.storage_gib + TMP_GIB}Gi",
        "nvidia.com/gpu": str(plan.gpus),
    }
    return {"requests": amounts, "limits": dict(amounts)}


def environment() -> list[Object]:
    """Return variables that keep vLLM from the network and its caches on a volume."""
    values = {
        "HOME": "/tmp",
        "USER": "mixtune",
        "XDG_CACHE_HOME": "/tmp/cache",
        "VLLM_CACHE_ROOT": "/tmp/cache/vllm",
        "TRITON_CACHE_DIR": "/tmp/cache/triton",
        "TORCHINDUCTOR_CACHE_DIR": "/tmp/cache/inductor",
        **dict.fromkeys(("HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"), "1"),
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def serving_flags(model: ServedModel, plan: ServingPlan, adapter_path: str) -> list[str]:
    """Return vLLM's flags of a model, its adapter and its size."""
    flags = [
        f"--served-model-name={model.base_name}",
        f"--max-model-len={plan.max_length}",
        f"--tensor-parallel-size={plan.gpus}",
        f"--gpu-memory-utilization={MEMORY_SHARE:g}",
    ]
    if model.adapter_uri:
        flags += ["--enable-lora", f"--max-lora-rank={model.lora_rank}", "--max-loras=1"]
        flags += [f"--lora-modules={model.name}={adapter_path}"]
    return flags


def probes(port: str | int) -> Object:
    """Return probes that give a large model half an hour to load."""
    health = {"httpGet": {"path": "/health", "port": port}}
    return {
        "startupProbe": {**health, "periodSeconds": 10, "failureThreshold": 180},
        "livenessProbe": {**health, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 3},
        "readinessProbe": {**health, "periodSeconds": 10, "timeoutSeconds": 5},
    }


def scratch_volumes() -> list[Object]:
    """Return the volumes that a read-only server writes to: caches, and memory that its processes share."""
    return [
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{TMP_GIB}Gi"}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": f"{SHARED_MEMORY_GIB}Gi"}},
    ]


def scratch_mounts() -> list[Object]:
    """Return where they are."""
    return [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shared-memory", "mountPath": "/dev/shm"}]


def clients_policy(name: str, settings: ServeSettings, pods: dict[str, str], port: int) -> Object:
    """Return the policy that lets the own namespace and the named ones reach the server's port, and nobody else."""
    sources: list[Object] = [{"podSelector": {}}]
    sources += [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": other}}} for other in settings.clients
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": f"{name}-clients", "namespace": settings.namespace, "labels": dict(PART_OF)},
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": sources, "ports": [{"protocol": "TCP", "port": port}]}],
        },
    }
