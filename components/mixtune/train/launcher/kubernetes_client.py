"""The Kubernetes API as the launcher needs it: patient with an API server that is away, plain dictionaries out.

Errors that pass (5xx, 429, an expired token, no connection) are waited out for `PATIENCE_SECONDS`; the others are told
with what can be done about them.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from mixtune.errors import ClusterError
from mixtune.train.launcher.jobs import RUN_LABEL, Backend, Object

PATIENCE_SECONDS = 15 * 60
"""An API server may be away so long; the job trains on meanwhile."""
TIMEOUT_SECONDS = (5, 60)
"""To connect, and to be answered."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
TERMINATED = 143
"""Exit status after SIGTERM."""


@dataclass(frozen=True)
class Clock:
    """Time, so that an hour in a queue can be lived through in a test."""

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


class Cluster:
    """One namespace of the cluster that this process may talk to."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        self.namespace = _namespace()
        self._api = _api_client()

    def own_pod(self) -> Object | None:
        """The pod that this process runs in; None outside the cluster."""
        return self._find(f"{self._core}/pods/{os.environ.get('HOSTNAME') or socket.gethostname()}")

    def config_map(self, name: str) -> dict[str, str]:
        """A ConfigMap's data; empty where there is no such map."""
        return dict((self._find(f"{self._core}/configmaps/{name}") or {}).get("data", {}))

    def pod_template(self, name: str) -> Object:
        """The pod of a PodTemplate.

        Raises:
            ClusterError: There is none of that name.
        """
        found = self._find(f"{self._core}/podtemplates/{name}")
        if found is None:
            raise ClusterError(
                f"namespace {self.namespace} has no PodTemplate {name}; apply kustomize/components/training-operator"
            )
        return dict(found["template"])

    def get(self, backend: Backend, name: str) -> Object | None:
        """A job, or None."""
        return self._find(self._path(backend, name))

    def jobs_of(self, backend: Backend, run_id: str) -> list[Object]:
        """The jobs of a pipeline run; none where the cluster does not know that kind of job."""
        found = self._find(self._path(backend), labelSelector=f"{RUN_LABEL}={run_id}")
        return list((found or {}).get("items", []))

    def create(self, backend: Backend, body: Object) -> bool:
        """Make a job, every field checked by the server; False where there is one of that name already.

        Raises:
            ClusterError: The server knows no such kind, or refuses the object.
        """
        try:
            self._call("POST", self._path(backend), body, fieldValidation="Strict")
        except ApiException as error:
            if error.status == 409:
                return False
            if error.status == 404:
                raise ClusterError(
                    f"the cluster knows no {backend.kind} ({backend.group}/{backend.version}) in {self.namespace}: "
                    "install its operator, or set another backend in ConfigMap mixtune-jobs"
                ) from error
            name = body["metadata"]["name"]
            raise ClusterError(f"the cluster refused {backend.kind} {name}: {said(error)}") from error
        return True

    def delete(self, backend: Backend, name: str) -> None:
        """Delete a job; its name stays taken until its pods are gone, so that no second one can start beside it."""
        try:
            self._call("DELETE", self._path(backend, name), propagationPolicy="Foreground")
        except ApiException as error:
            if error.status != 404:
                raise

    def pods(self, selector: str) -> list[Object]:
        """Pods by label, oldest first."""
        found = self._call("GET", f"{self._core}/pods", labelSelector=selector)
        return sorted(found["items"], key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def events(self) -> list[Object]:
        """The namespace's events."""
        return list(self._call("GET", f"{self._core}/events")["items"])

    def log(self, pod: str, **query: Any) -> list[str]:
        """A pod's log, each line with its time before it; none while its container has not started."""
        try:
            text = self._call("GET", f"{self._core}/pods/{pod}/log", answer="str", timestamps="true", **query)
        except ApiException as error:
            if error.status in (400, 404):
                return []
            raise
        except UnicodeDecodeError as error:
            print(f"the log of pod {pod} cannot be shown: {error}", flush=True)
            return []
        return str(text).splitlines()

    @contextmanager
    def deleted_on_sigterm(self, backend: Backend, name: str) -> Iterator[None]:
        """While the block runs, SIGTERM deletes the job and ends the process: nothing else, a pod has under a second.

        The request goes through a connection of its own: the interrupted code may hold the other's locks.
        """
        api, path = _api_client(), self._path(backend, name)

        def stop(number: int, frame: FrameType | None) -> None:
            try:
                _request(api, "DELETE", path, (0.4, 0.4), propagationPolicy="Foreground")
                os.write(1, f"stopped: {backend.kind} {name} is being deleted\n".encode())
            except (ApiException, urllib3.exceptions.HTTPError) as error:
                os.write(2, f"stopped, but {backend.kind} {name} could not be deleted: {said(error)}\n".encode())
            finally:
                os._exit(TERMINATED)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    @property
    def _core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    def _path(self, backend: Backend, name: str = "") -> str:
        path = f"/apis/{backend.group}/{backend.version}/namespaces/{self.namespace}/{backend.plural}"
        return f"{path}/{name}" if name else path

    def _find(self, path: str, **query: Any) -> Object | None:
        try:
            return dict(self._call("GET", path, **query))
        except ApiException as error:
            if error.status == 404:
                return None
            raise

    def _call(self, method: str, path: str, body: Object | None = None, answer: str = "object", **query: Any) -> Any:
        """Call the API until it answers."""
        began, wait = self.clock.now(), 1.0
        while True:
            try:
                return _request(self._api, method, path, TIMEOUT_SECONDS, body, answer, **query)
            except ApiException as error:
                if error.status == 403:
                    raise ClusterError(_forbidden(error, self.namespace)) from error
                if error.status not in (401, 429) and error.status < 500:
                    raise
                trouble, wait = said(error), max(wait, _retry_after(error))
            except (urllib3.exceptions.HTTPError, OSError) as error:
                trouble = said(error)
            if self.clock.now() - began > PATIENCE_SECONDS:
                raise ClusterError(
                    f"the Kubernetes API has not answered {method} {path} for {PATIENCE_SECONDS // 60} minutes "
                    f"({trouble}); a job that runs goes on: run the task again to take it up"
                )
            print(f"Kubernetes API: {trouble}; again in {wait:.0f} s", flush=True)
            self.clock.sleep(wait)
            wait = min(30.0, wait * 2)
            self._api = _api_client()  # a token may have been renewed


def _request(
    api: client.ApiClient, method: str, path: str, timeout: tuple[float, float], body: Object | None = None,
    answer: str = "object", **query: Any,
) -> Any:  # fmt: skip
    """One request; answers are plain JSON, so that no field of theirs has to be known here."""
    return api.call_api(
        path,
        method,
        query_params=list(query.items()),
        header_params={"Accept": "application/json, */*", "Content-Type": "application/json"},
        body=body,
        response_type=answer,
        auth_settings=["BearerToken"],
        _return_http_data_only=True,
        _request_timeout=timeout,
    )


def said(error: Exception) -> str:
    """An error of the API or of the network in one line."""
    if isinstance(error, ApiException):
        body = str(error.body or error.reason or "").strip().replace("\n", " ")
        return f"HTTP {error.status}: {body[:600]}"
    return f"{type(error).__name__}: {str(error)[:200]}"


def _api_client() -> client.ApiClient:
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        try:
            config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=settings)
        except config.ConfigException as error:
            raise ClusterError(f"no Kubernetes cluster to talk to: {error}; leave num_nodes empty") from error
    settings.retries = False
    return client.ApiClient(settings)


def _namespace() -> str:
    if NAMESPACE_FILE.exists():
        return NAMESPACE_FILE.read_text().strip()
    try:
        _, active = config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
    except config.ConfigException as error:
        raise ClusterError(f"no Kubernetes cluster to talk to: {error}; leave num_nodes empty") from error
    return str(active["context"].get("namespace", "default"))


def _retry_after(error: ApiException) -> float:
    value = (error.headers or {}).get("Retry-After", "")
    return min(60.0, float(value)) if value.isdigit() else 0.0


def _forbidden(error: ApiException, namespace: str) -> str:
    return (
        f"not allowed in namespace {namespace}: {said(error)}; start the run with a service account that may, such as "
        "mixtune-launcher (kustomize/base/roles.yaml)"
    )
