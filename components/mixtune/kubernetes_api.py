"""The Kubernetes API: one client for preflight and the launcher; objects are plain dictionaries, as the API has them.

The `kubernetes` package is imported when a client is made, so that importing this module costs nothing.
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixtune.errors import ClusterError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAGE_ITEMS = 500
MAY_LAUNCH = "start the run with a service account that may, such as mixtune-launcher (kustomize/base/roles.yaml)"

Object = dict[str, Any]
Query = Mapping[str, str | int]


class ApiError(ClusterError):
    """An answer of the API that waiting does not change."""

    def __init__(self, message: str, status: int, answer: str) -> None:
        super().__init__(message)
        self.status, self.answer = status, answer


class Forbidden(ApiError):
    """This process has not the right."""


@dataclass(frozen=True)
class Clock:
    """Time, so that an hour in a queue can be lived through in a test."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


def pod_namespace() -> str:
    """Return the namespace of the pod that this process runs in; empty outside a cluster."""
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.is_file() else ""


class KubernetesApi:
    """Calls with the rights of this process: its service account in a pod, else the kubeconfig's user.

    Answers that pass (5xx, 429, an expired token, no connection) are waited out.

    Args:
        patience_seconds: How long they are waited out; 0: not at all.
        timeout_seconds: To connect, and to be answered.
        clock: By which it waits.

    Raises:
        ClusterError: No cluster is configured.
    """

    def __init__(
        self, patience_seconds: float = 0.0, timeout_seconds: tuple[float, float] = (5, 60), clock: Clock | None = None
    ) -> None:
        self.clock = clock or Clock()
        self._patience, self._timeout = patience_seconds, timeout_seconds
        self._client, self.namespace = _connect()

    def path(self, plural: str, name: str = "", *, group: str = "", version: str = "v1", namespace: str = "") -> str:
        """Return the path of a namespaced resource, or of one object of it."""
        api = f"/apis/{group}/{version}" if group else f"/api/{version}"
        path = f"{api}/namespaces/{namespace or self.namespace}/{plural}"
        return f"{path}/{name}" if name else path

    def get(self, path: str, **query: str | int) -> Object | None:
        """Return the object at a path, or None where there is none.

        Raises:
            Forbidden: No right to look.
            ClusterError: The API refuses, or does not answer.
        """
        try:
            return dict(self._call("GET", path, query=query))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, path: str, **query: str | int) -> list[Object]:
        """Return all objects of a resource, page by page; none where the cluster does not know the resource."""
        items: list[Object] = []
        while True:
            page = self.get(path, limit=PAGE_ITEMS, **query) or {}
            items += page.get("items", [])
            token = page.get("metadata", {}).get("continue")
            if not token:
                return items
            query["continue"] = token

    def text(self, path: str, **query: str | int) -> str:
        """Return what a path answers as text, such as a log."""
        return str(self._call("GET", path, answer="str", query=query))

    def create(self, path: str, body: Object, **query: str | int) -> Object:
        """Make an object; an ApiError where the API refuses it."""
        return dict(self._call("POST", path, body, query=query))

    def delete(self, path: str, **query: str | int) -> None:
        """Delete an object, if it is there."""
        try:
            self._call("DELETE", path, query=query)
        except ApiError as error:
            if error.status != 404:
                raise

    def may(self, verb: str, resource: str, group: str = "", namespace: str = "") -> bool:
        """Return whether this process may do something, by a SelfSubjectAccessReview."""
        name, _, subresource = resource.partition("/")
        attributes = {"namespace": namespace or self.namespace, "verb": verb, "group": group, "resource": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**attributes, "subresource": subresource}},
        }
        answer = self.create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer.get("status", {}).get("allowed"))

    def _call(
        self, method: str, path: str, body: Object | None = None, *, answer: str = "object", query: Query | None = None
    ) -> Any:
        """Call the API, again and again until it answers or patience ends."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        start, wait = self.clock.now(), 1.0
        while True:
            try:
                return self._send(method, path, body, answer, query or {})
            except ApiException as error:
                seconds = (error.headers or {}).get("Retry-After", "")
                trouble, wait = _describe(error), max(wait, min(60.0, float(seconds)) if seconds.isdigit() else 0.0)
                if error.status == 403:
                    message = f"not allowed in namespace {self.namespace}: {trouble}; {MAY_LAUNCH}"
                    raise Forbidden(message, 403, trouble) from error
                if error.status not in (401, 429) and error.status < 500:
                    raise ApiError(f"Kubernetes refused {method} {path}: {trouble}", error.status, trouble) from error
            except (HTTPError, OSError) as error:
                trouble = _describe(error)
            if not self._patience:
                raise ClusterError(f"the Kubernetes API does not answer {method} {path} ({trouble}); check KUBECONFIG")
            if self.clock.now() - start > self._patience:
                raise ClusterError(
                    f"the Kubernetes API has not answered {method} {path} for {self._patience / 60:.0f} minutes "
                    f"({trouble}); a job that runs goes on: run the task again to take it up"
                )
            print(f"Kubernetes API: {trouble}; again in {wait:.0f} s", flush=True)
            self.clock.sleep(wait)
            wait = min(30.0, wait * 2)
            self._client, _ = _connect()  # a token may have been renewed

    def _send(self, method: str, path: str, body: Object | None, answer: str, query: Query) -> object:
        return self._client.call_api(
            path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json, */*", "Content-Type": "application/json"},
            body=body,
            response_type=answer,
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=self._timeout,
        )


def _connect() -> tuple["ApiClient", str]:
    """Return the official client and the namespace that this process is in."""
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
        namespace = pod_namespace()
    except config.ConfigException:
        file = os.environ.get("KUBECONFIG")
        try:
            config.load_kube_config(file, client_configuration=settings)
            _, context = config.list_kube_config_contexts(file)
        except config.ConfigException as error:
            raise ClusterError(
                f"no cluster is configured ({file or '~/.kube/config'}); set KUBECONFIG, or leave num_nodes empty"
            ) from error
        namespace = str(context["context"].get("namespace") or "default")
    settings.retries = False
    return client.ApiClient(settings), namespace


def _describe(error: Exception) -> str:
    """Return an error of the API or of the network as one line."""
    if status := getattr(error, "status", 0):
        body = str(getattr(error, "body", "") or getattr(error, "reason", "") or "").strip().replace("\n", " ")
        return f"HTTP {status}: {body[:600]}"
    return f"{type(error).__name__}: {str(error)[:200]}"
