"""KServe's objects: LLMInferenceService, which knows adapters, and InferenceService with vLLM as its own container."""

from mixtune import storage
from mixtune.serve import vllm_pod
from mixtune.serve.served_model import ServedModel
from mixtune.serve.sizing import MEMORY_SHARE, ServingPlan
from mixtune.serve.vllm_pod import PART_OF, Object
from mixtune.settings.serving import ServeSettings

LLM_PORT, INFERENCE_PORT = 8000, 8080
DEFAULT_RANK = 16
"""vLLM's own `--max-lora-rank`, where an object does not say."""
WEIGHTS = "/mnt/models"


def llm_inference_service(model: ServedModel, plan: ServingPlan, settings: ServeSettings) -> list[Object]:
    """Return an LLMInferenceService and the policy on who may call it.

    The image, vLLM's command and the fetching of weights are the controller's; ours are the machine, the sizes, the
    security, and a root file system that nobody writes to.
    """
    flags = [f"--max-model-len={plan.max_length}", f"--gpu-memory-utilization={MEMORY_SHARE:g}"]
    container: Object = {
        "name": "main",
        **({"image": settings.image} if settings.image else {}),
        "env": [*_llm_environment(), {"name": "VLLM_ADDITIONAL_ARGS", "value": " ".join(flags)}],
        "resources": vllm_pod.resources(plan),
        "securityContext": {**vllm_pod.container_security(), "runAsNonRoot": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    served: Object = {"uri": storage.plain_uri(model.base_uri), "name": model.base_name}
    if model.adapter_uri:
        rank: Object = {"maxRank": model.lora_rank} if model.lora_rank > DEFAULT_RANK else {}
        served["lora"] = {"adapters": [{"name": model.name, "uri": storage.plain_uri(model.adapter_uri)}], **rank}
    spec: Object = {
        "model": served,
        "replicas": settings.replicas,
        "parallelism": {"tensor": plan.gpus},
        **_router(settings),
        "template": {
            **vllm_pod.pod_basics(plan, settings),
            "containers": [container],
            "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": f"{vllm_pod.TMP_GIB}Gi"}}],
        },
    }
    pods = {"app.kubernetes.io/name": model.name, "app.kubernetes.io/component": "llminferenceservice-workload"}
    return [
        _object("serving.kserve.io/v1alpha2", "LLMInferenceService", model, settings, spec),
        vllm_pod.clients_policy(model.name, settings, pods, LLM_PORT),
    ]


def inference_service(model: ServedModel, plan: ServingPlan, settings: ServeSettings) -> list[Object]:
    """Return an InferenceService without Knative and the policy on who may call it."""
    adapter_path = f"{WEIGHTS}/adapter"
    container: Object = {
        "name": "kserve-container",
        "image": settings.image or vllm_pod.IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["vllm", "serve", f"{WEIGHTS}/base"],
        "args": [f"--port={INFERENCE_PORT}", *vllm_pod.serving_flags(model, plan, adapter_path)],
        "env": vllm_pod.environment(),
        "ports": [{"name": "http1", "containerPort": INFERENCE_PORT, "protocol": "TCP"}],
        **vllm_pod.probes(INFERENCE_PORT),
        "resources": vllm_pod.resources(plan),
        "securityContext": vllm_pod.container_security(),
        "volumeMounts": vllm_pod.scratch_mounts(),
    }
    sources = [{"uri": storage.plain_uri(model.base_uri), "mountPath": f"{WEIGHTS}/base"}]
    if model.adapter_uri:
        sources.append({"uri": storage.plain_uri(model.adapter_uri), "mountPath": adapter_path})
    predictor: Object = {
        **vllm_pod.pod_basics(plan, settings),
        "minReplicas": settings.replicas,
        "maxReplicas": settings.replicas,
        "storageUris": sources,
        "containers": [container],
        "volumes": vllm_pod.scratch_volumes(),
    }
    document = _object("serving.kserve.io/v1beta1", "InferenceService", model, settings, {"predictor": predictor})
    labels = {} if settings.gateway else {"networking.kserve.io/visibility": "cluster-local"}
    document["metadata"] = {
        "name": model.name,
        "namespace": settings.namespace,
        "labels": {**PART_OF, **labels},
        "annotations": {"serving.kserve.io/deploymentMode": "Standard", "serving.kserve.io/autoscalerClass": "none"},
    }
    pods = {"serving.kserve.io/inferenceservice": model.name}
    return [document, vllm_pod.clients_policy(model.name, settings, pods, INFERENCE_PORT)]


def _object(version: str, kind: str, model: ServedModel, settings: ServeSettings, spec: Object) -> Object:
    metadata = {"name": model.name, "namespace": settings.namespace, "labels": dict(PART_OF)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def _router(settings: ServeSettings) -> Object:
    """Return the way in: the gateway's route, and a scheduler where there is something to choose from."""
    if not settings.gateway:
        return {}
    scheduler: Object = {"scheduler": {}} if settings.replicas > 1 else {}
    return {"router": {"route": {}, "gateway": {}, **scheduler}}


def _llm_environment() -> list[Object]:
    """Return the variables that the controller's template does not set itself: it has a home on a volume."""
    ours = ("USER", "HF_HUB_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK")
    return [item for item in vllm_pod.environment() if item["name"] in ours]
