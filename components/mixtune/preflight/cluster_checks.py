"""Whether a cluster has what a training job needs: the API, a runtime, a queue, a service account, and the rights."""

import json
import os
from collections.abc import Iterator
from typing import Any

from mixtune.errors import ClusterError

SERVICE_ACCOUNT = "mixtune-trainer"
TRAINER = "trainer.kubeflow.org"
KUEUE = "kueue.x-k8s.io"
JOBS = {
    "trainjob": (TRAINER, "trainjobs", "the TrainJob CRDs are missing; install Kubeflow Trainer 2.2 or later"),
    "pytorchjob": ("kubeflow.org", "pytorchjobs", "the PyTorchJob CRD is missing; install Training Operator v1"),
}
"""API group and resource of each kind of training job, and what to do where the cluster does not know it."""
DEFAULTS = {"backend": "trainjob", "runtime_kind": "ClusterTrainingRuntime", "queue": "mixtune"}
"""What is looked for where the namespace has no ConfigMap `mixtune-jobs`."""


def check_cluster(namespace: str, runtime: str) -> Iterator[tuple[str, str]]:
    """Look at the cluster with the rights of this process: its service account in a pod, else the kubeconfig's user.

    The ConfigMap `mixtune-jobs` says which kind of job, of runtime and which queue there must be.

    Args:
        namespace: Where the run's tasks are; empty: the pod's own.
        runtime: Name of the runtime, or of the PodTemplate of a PyTorchJob.

    Raises:
        ClusterError: No cluster is configured, or its API does not answer.
    """
    api = _Api()
    namespace = namespace or api.namespace
    settings = _job_settings(api, namespace)
    group, jobs, way_out = JOBS[settings["backend"]]
    queue = settings["queue"]
    yield (
        "pass",
        f"namespace {namespace}: {jobs}, runtime {runtime}, {f'queue {queue}' if queue else 'no queue'}, "
        "service account and rights are there",
    )
    if api.get(f"/apis/{group}") is None:
        yield "fail", f"no {group} API: {way_out}"
    else:
        path = _runtime_path(settings, namespace) + f"/{runtime}"
        yield from _found(api, path, f"runtime {runtime}", "kubectl apply -k kustomize/overlays/...")
    kueue = api.get(f"/apis/{KUEUE}") if queue else None
    if kueue is None:
        missing = f"{KUEUE} API" if queue else "queue in ConfigMap mixtune-jobs"
        yield "warn", f"no {missing}: jobs do not queue; two teams can each hold half of what both need"
    else:
        path = f"/apis/{KUEUE}/{_preferred(kueue)}/namespaces/{namespace}/localqueues/{queue}"
        yield from _found(api, path, f"queue {queue} in {namespace}", "add kustomize/components/kueue")
    yield from _found(
        api,
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{SERVICE_ACCOUNT}",
        f"service account {SERVICE_ACCOUNT} in {namespace}",
        "kubectl apply -k kustomize/overlays/...",
    )
    rights = [*((verb, group, jobs) for verb in ("create", "get", "delete")), ("list", "", "pods")]
    rights.append(("get", "", "pods/log"))
    lacking = [f"{verb} {resource}" for verb, of, resource in rights if not api.may(namespace, verb, of, resource)]
    if lacking:
        yield "fail", f"no right in {namespace} to {', '.join(lacking)}; run as mixtune-launcher, or bind its role"


def _job_settings(api: "_Api", namespace: str) -> dict[str, str]:
    """What the launcher will read: kind of job, kind of runtime, queue."""
    try:
        found = api.get(f"/api/v1/namespaces/{namespace}/configmaps/mixtune-jobs")
    except PermissionError:
        found = None
    if found is None:
        return DEFAULTS
    return {**DEFAULTS, "queue": "", **{key: value for key, value in (found.get("data") or {}).items() if value}}


def _runtime_path(settings: dict[str, str], namespace: str) -> str:
    if settings["backend"] == "pytorchjob":
        return f"/api/v1/namespaces/{namespace}/podtemplates"
    if settings["runtime_kind"] == "TrainingRuntime":
        return f"/apis/{TRAINER}/v1alpha1/namespaces/{namespace}/trainingruntimes"
    return f"/apis/{TRAINER}/v1alpha1/clustertrainingruntimes"


def _found(api: "_Api", path: str, what: str, way_out: str) -> Iterator[tuple[str, str]]:
    try:
        if api.get(path) is None:
            yield "fail", f"no {what}; {way_out}"
    except PermissionError:
        yield "warn", f"{what}: no right to look whether it is there"


def _preferred(group: Any) -> str:
    return str(group["preferredVersion"]["version"])


class _Api:
    """The few calls, over the official client."""

    def __init__(self) -> None:
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException

        try:
            config.load_incluster_config()
            with open("/var/run/secrets/kubernetes.io/serviceaccount/namespace") as stream:
                self.namespace = stream.read().strip()
        except (ConfigException, OSError):
            try:
                config.load_kube_config()
                _, context = config.list_kube_config_contexts()
            except ConfigException as error:
                file = os.environ.get("KUBECONFIG", "~/.kube/config")
                raise ClusterError(
                    f"no cluster is configured ({file}); set KUBECONFIG, or leave num_nodes empty"
                ) from error
            self.namespace = str(context["context"].get("namespace") or "default")
        self._client = client.ApiClient()

    def get(self, path: str) -> Any:
        """The object at a path; None: not there.

        Raises:
            PermissionError: No right to look.
            ClusterError: The API does not answer.
        """
        return self._call(path, "GET")

    def may(self, namespace: str, verb: str, group: str, resource: str) -> bool:
        """Whether this process may do something, by a SelfSubjectAccessReview."""
        name, _, sub = resource.partition("/")
        asked = {"namespace": namespace, "verb": verb, "group": group, "resource": name, "subresource": sub}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        answer = self._call("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "POST", review)
        return bool(answer and answer.get("status", {}).get("allowed"))

    def _call(self, path: str, method: str, body: Any = None) -> Any:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        try:
            answer = self._client.call_api(
                path, method, body=body, auth_settings=["BearerToken"], _preload_content=False, _request_timeout=20,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
            )  # fmt: skip
            return json.loads(answer[0].data)
        except ApiException as error:
            if error.status == 404:
                return None
            if error.status == 403:
                raise PermissionError(path) from error
            raise ClusterError(f"Kubernetes refused {method} {path} ({error.status} {error.reason})") from error
        except HTTPError as error:
            raise ClusterError(
                f"the Kubernetes API does not answer ({type(error).__name__}); check KUBECONFIG"
            ) from error
