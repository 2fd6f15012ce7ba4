"""vLLM without KServe: a Deployment whose first container fetches the weights and checks them, and its Service."""

from mixtune import images
from mixtune.errors import ConfigError
from mixtune.serve import vllm_pod
from mixtune.serve.served_model import ServedModel
from mixtune.serve.sizing import ServingPlan
from mixtune.serve.vllm_pod import PART_OF, Object
from mixtune.settings.serving import ServeSettings

PORT = 8000
BASE, ADAPTER = "/models/base", "/models/adapter"


def deployment(model: ServedModel, plan: ServingPlan, settings: ServeSettings) -> list[Object]:
    """Return a Deployment, its Service, its disruption budget and the policy on who may call it.

    Raises:
        ConfigError: The weights do not lie in S3, where the first container fetches from.
    """
    for uri in filter(None, (model.base_uri, model.adapter_uri)):
        if not uri.startswith("s3://"):
            raise ConfigError(f"{uri}: a deployment fetches from s3:// only; copy it there, or take form=llm")
    labels = {"app.kubernetes.io/name": model.name, "app.kubernetes.io/component": "server", **PART_OF}
    pods = {"app.kubernetes.io/name": model.name, "app.kubernetes.io/component": "server"}
    metadata = {"name": model.name, "namespace": settings.namespace, "labels": labels}
    spec: Object = {
        "replicas": settings.replicas,
        "selector": {"matchLabels": pods},
        # A second set of GPUs is not there to roll over to.
        "strategy": {"type": "Recreate"},
        "template": {"metadata": {"labels": labels}, "spec": _pod(model, plan, settings)},
    }
    service: Object = {
        "selector": pods,
        "ports": [{"name": "http", "port": PORT, "targetPort": "http", "protocol": "TCP"}],
    }
    budget: Object = {"maxUnavailable": 1, "selector": {"matchLabels": pods}}
    return [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": budget},
        vllm_pod.clients_policy(model.name, settings, pods, PORT),
    ]


def _pod(model: ServedModel, plan: ServingPlan, settings: ServeSettings) -> Object:
    registry, name = settings.registry.rstrip("/"), images.DATA.rsplit("/", 1)[-1]
    weights = {"name": "models", "mountPath": "/models"}
    fetched = [model.base_uri, BASE, *([model.adapter_uri, ADAPTER] if model.adapter_uri else [])]
    fetch: Object = {
        "name": "fetch-weights",
        "image": f"{registry}/{name}" if registry else images.DATA,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "mixtune.serve.fetch_weights", *fetched],
        "env": [{"name": "HOME", "value": "/tmp"}],
        "envFrom": [{"configMapRef": {"name": "mixtune-env", "optional": True}}],
        "resources": {
            "requests": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": "1Gi"},
            "limits": {"cpu": "2", "memory": "2Gi", "ephemeral-storage": f"{plan.storage_gib}Gi"},
        },
        "securityContext": vllm_pod.container_security(),
        "volumeMounts": [weights, {"name": "tmp", "mountPath": "/tmp"}],
    }
    server: Object = {
        "name": "server",
        "image": settings.image or vllm_pod.IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve", BASE],
        "args": [f"--port={PORT}", *vllm_pod.serving_flags(model, plan, ADAPTER)],
        "env": vllm_pod.environment(),
        "ports": [{"name": "http", "containerPort": PORT, "protocol": "TCP"}],
        **vllm_pod.probes("http"),
        "resources": vllm_pod.resources(plan),
        "securityContext": vllm_pod.container_security(),
        "volumeMounts": [{**weights, "readOnly": True}, *vllm_pod.scratch_mounts()],
    }
    disk = {"name": "models", "emptyDir": {"sizeLimit": f"{plan.storage_gib}Gi"}}
    return {
        **vllm_pod.pod_basics(plan, settings),
        "initContainers": [fetch],
        "containers": [server],
        "volumes": [disk, *vllm_pod.scratch_volumes()],
    }
