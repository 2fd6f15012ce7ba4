"""Whether a cluster has what a training job needs: the API, a runtime, a queue, a service account, and the rights."""

from collections.abc import Generator

from mixtune.kubernetes_api import Forbidden, KubernetesApi
from mixtune.preflight.findings import Findings
from mixtune.settings.job import CONFIG_MAP, JobSettings, NodeSettings

SERVICE_ACCOUNT = "mixtune-trainer"
TRAINER = "trainer.kubeflow.org"
KUEUE = "kueue.x-k8s.io"
JOBS = {
    "trainjob": (TRAINER, "trainjobs", "the TrainJob CRDs are missing; install Kubeflow Trainer 2.2 or later"),
    "pytorchjob": ("kubeflow.org", "pytorchjobs", "the PyTorchJob CRD is missing; install Training Operator v1"),
}
"""API group and resource of each kind of training job, and what to do where the cluster does not know it."""


def check_cluster(namespace: str, nodes: NodeSettings) -> Findings:
    """Look at the cluster with the rights of this process: its service account in a pod, else the kubeconfig's user.

    The namespace (empty: the pod's) is where the run's tasks are, whose ConfigMap `mixtune-jobs` names runtime and
    queue.

    Raises:
        ClusterError: No cluster is configured, or its API does not answer.
        ConfigError: The ConfigMap is wrong.
    """
    api = KubernetesApi()
    namespace = namespace or api.namespace
    settings = yield from _job_settings(api, namespace)
    group, jobs, way_out = JOBS[settings.backend_of(nodes)]
    runtime, queue = settings.runtime_of(nodes), settings.queue
    places = f"runtime {runtime}, {f'queue {queue}' if queue else 'no queue'}"
    yield "pass", f"namespace {namespace}: {jobs}, {places}, service account and rights are there"
    if api.get(f"/apis/{group}") is None:
        yield "fail", f"no {group} API: {way_out}"
    else:
        path = _runtime_path(api, settings, nodes, namespace)
        yield from _check_there(api, path, f"runtime {runtime}", "kubectl apply -k kustomize/overlays/...")
    yield from _check_queue(api, queue, namespace)
    yield from _check_there(
        api,
        api.path("serviceaccounts", SERVICE_ACCOUNT, namespace=namespace),
        f"service account {SERVICE_ACCOUNT} in {namespace}",
        "kubectl apply -k kustomize/overlays/...",
    )
    rights = [*((verb, jobs, group) for verb in ("create", "get", "delete")), ("list", "pods", "")]
    rights.append(("get", "pods/log", ""))
    lacking = [f"{verb} {resource}" for verb, resource, of in rights if not api.may(verb, resource, of, namespace)]
    if lacking:
        yield "fail", f"no right in {namespace} to {', '.join(lacking)}; run as mixtune-launcher, or bind its role"


def _job_settings(api: KubernetesApi, namespace: str) -> Generator[tuple[str, str], None, JobSettings]:
    """Return what the launcher will read."""
    try:
        config_map = api.get(api.path("configmaps", CONFIG_MAP, namespace=namespace)) or {}
    except Forbidden:
        yield "warn", f"ConfigMap {CONFIG_MAP} in {namespace}: no right to look at it, its defaults are taken"
        config_map = {}
    return JobSettings.from_config_map(config_map.get("data") or {})


def _check_queue(api: KubernetesApi, queue: str, namespace: str) -> Findings:
    kueue = api.get(f"/apis/{KUEUE}") if queue else None
    if kueue is None:
        missing = f"{KUEUE} API" if queue else f"queue in ConfigMap {CONFIG_MAP}"
        yield "warn", f"no {missing}: jobs do not queue; two teams can each hold half of what both need"
        return
    version = kueue["preferredVersion"]["version"]
    path = api.path("localqueues", queue, group=KUEUE, version=version, namespace=namespace)
    yield from _check_there(api, path, f"queue {queue} in {namespace}", "add kustomize/components/kueue")


def _runtime_path(api: KubernetesApi, settings: JobSettings, nodes: NodeSettings, namespace: str) -> str:
    runtime = settings.runtime_of(nodes)
    if settings.backend_of(nodes) == "pytorchjob":
        return api.path("podtemplates", runtime, namespace=namespace)
    if settings.runtime_kind == "TrainingRuntime":
        return api.path("trainingruntimes", runtime, group=TRAINER, version="v1alpha1", namespace=namespace)
    return f"/apis/{TRAINER}/v1alpha1/clustertrainingruntimes/{runtime}"


def _check_there(api: KubernetesApi, path: str, what: str, way_out: str) -> Findings:
    try:
        if api.get(path) is None:
            yield "fail", f"no {what}; {way_out}"
    except Forbidden:
        yield "warn", f"{what}: no right to look whether it is there"
