"""Whether a cluster has what a training job needs: the API, a runtime, a queue, a service account, and the rights."""

import json
import os
from collections.abc import Iterator
from typing import Any

from mixtune.errors import ClusterError

SERVICE_ACCOUNT = "mixtune-trainer"
QUEUE = "mixtune"
TRAINER = "trainer.kubeflow.org"
KUEUE = "kueue.x-k8s.io"
RIGHTS = (
    ("create", TRAINER, "trainjobs"),
    ("get", TRAINER, "trainjobs"),
    ("delete", TRAINER, "trainjobs"),
    ("list", "", "pods"),
    ("get", "", "pods/log"),
)
"""What the launcher does: verb, API group, resource."""


def check_cluster(namespace: str, runtime: str) -> Iterator[tuple[str, str]]:
    """Look at the cluster with the rights of this process: its service account in a pod, else the kubeconfig's user.

    Args:
        namespace: Where the run's tasks are; empty: the pod's own.
        runtime: Name of the ClusterTrainingRuntime.

    Raises:
        ClusterError: No cluster is configured, or its API does not answer.
    """
    api = _Api()
    namespace = namespace or api.namespace
    yield (
        "pass",
        f"namespace {namespace}: trainer, runtime {runtime}, queue {QUEUE}, service account and rights are there",
    )
    versions = api.get(f"/apis/{TRAINER}")
    if versions is None:
        yield "fail", f"no {TRAINER} API: the TrainJob CRDs are missing; install Kubeflow Trainer 2.2 or later"
    else:
        yield from _found(
            api,
            f"/apis/{TRAINER}/v1alpha1/clustertrainingruntimes/{runtime}",
            f"runtime {runtime}",
            "kubectl apply -k kustomize/overlays/.../cluster",
        )
    if api.get(f"/apis/{KUEUE}") is None:
        yield "warn", f"no {KUEUE} API: jobs do not queue; two teams can each hold half of what both need"
    else:
        version = _preferred(api.get(f"/apis/{KUEUE}"))
        yield from _found(
            api,
            f"/apis/{KUEUE}/{version}/namespaces/{namespace}/localqueues/{QUEUE}",
            f"queue {QUEUE} in {namespace}",
            "add kustomize/components/kueue",
        )
    yield from _found(
        api,
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{SERVICE_ACCOUNT}",
        f"service account {SERVICE_ACCOUNT} in {namespace}",
        "kubectl apply -k kustomize/overlays/...",
    )
    missing = [
        f"{verb} {resource}" for verb, group, resource in RIGHTS if not api.may(namespace, verb, group, resource)
    ]
    if missing:
        yield "fail", f"no right in {namespace} to {', '.join(missing)}; run as mixtune-launcher, or bind its role"


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
