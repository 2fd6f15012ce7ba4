"""What the launcher asks of the Kubernetes API: jobs, their pods, logs and events, and the platform's settings."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from mixtune.errors import ClusterError
from mixtune.kubernetes_api import ApiError, Clock, KubernetesApi, Object
from mixtune.train.launcher.jobs import RUN_LABEL, Backend

PATIENCE_SECONDS = 15 * 60
"""An API server may be away this long; the job trains on meanwhile."""
SIGTERM_STATUS = 143
"""Exit status after SIGTERM."""


class JobApi:
    """The namespace of this process, as the launcher uses it."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._api = KubernetesApi(PATIENCE_SECONDS, clock=clock)
        self.clock = self._api.clock

    def own_pod(self) -> Object | None:
        """Return the pod that this process runs in; None outside the cluster."""
        return self._api.get(self._api.path("pods", os.environ.get("HOSTNAME") or socket.gethostname()))

    def config_map(self, name: str) -> dict[str, str]:
        """Return a ConfigMap's data; empty where there is no such map."""
        return dict((self._api.get(self._api.path("configmaps", name)) or {}).get("data", {}))

    def pod_template(self, name: str) -> Object:
        """Return the pod of a PodTemplate; a ClusterError where there is none of that name."""
        template = self._api.get(self._api.path("podtemplates", name))
        if template is None:
            where = f"namespace {self._api.namespace}"
            raise ClusterError(f"{where} has no PodTemplate {name}; apply kustomize/components/training-operator")
        return dict(template["template"])

    def get(self, backend: Backend, name: str) -> Object | None:
        """Return a job, or None."""
        return self._api.get(self._path(backend, name))

    def jobs_of(self, backend: Backend, run_id: str) -> list[Object]:
        """Return the jobs of a pipeline run; none where the cluster does not know that kind of job."""
        return self._api.list(self._path(backend), labelSelector=f"{RUN_LABEL}={run_id}")

    def create(self, backend: Backend, body: Object) -> bool:
        """Make a job, every field checked by the server; return False where there is one of that name already.

        Raises:
            ClusterError: The server knows no such kind, or refuses the object.
        """
        try:
            self._api.create(self._path(backend), body, fieldValidation="Strict")
        except ApiError as error:
            if error.status == 409:
                return False
            if error.status == 403:
                raise
            if error.status == 404:
                raise ClusterError(
                    f"the cluster knows no {backend.kind} ({backend.group}/{backend.version}) in "
                    f"{self._api.namespace}: install its operator, or set another backend in ConfigMap mixtune-jobs"
                ) from error
            name = body["metadata"]["name"]
            raise ClusterError(f"the cluster refused {backend.kind} {name}: {error.answer}") from error
        return True

    def delete(self, backend: Backend, name: str) -> None:
        """Delete a job; its pods get SIGTERM after it is gone.

        Under foreground deletion the object would stay until they have ended, and Kubeflow Trainer 2.3 makes a new
        JobSet for a TrainJob that is there, marked for deletion or not.
        """
        self._api.delete(self._path(backend, name), propagationPolicy="Background")

    def pods(self, selector: str) -> list[Object]:
        """Return pods by label, oldest first."""
        pods = self._api.list(self._api.path("pods"), labelSelector=selector)
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))

    def events(self) -> list[Object]:
        """Return the namespace's events."""
        return self._api.list(self._api.path("events"))

    def log(self, pod: str, **query: str | int) -> list[str]:
        """Return a pod's log, each line with its time before it; none while its container has not started."""
        try:
            return self._api.text(f"{self._api.path('pods', pod)}/log", timestamps="true", **query).splitlines()
        except ApiError as error:
            if error.status in (400, 404):
                return []
            raise
        except UnicodeDecodeError as error:
            print(f"the log of pod {pod} cannot be shown: {error}", flush=True)
            return []

    @contextmanager
    def deleted_on_sigterm(self, backend: Backend, name: str) -> Iterator[None]:
        """While the block runs, SIGTERM deletes the job and ends the process: nothing else, a pod has under a second.

        The request goes through a connection of its own: the interrupted code may hold the other's locks.
        """
        quick, path = KubernetesApi(timeout_seconds=(0.4, 0.4)), self._path(backend, name)

        def stop(number: int, frame: FrameType | None) -> None:
            try:
                quick.delete(path, propagationPolicy="Background")
                os.write(1, f"stopped: {backend.kind} {name} is being deleted\n".encode())
            except ClusterError as error:
                os.write(2, f"stopped, but {backend.kind} {name} could not be deleted: {error}\n".encode())
            finally:
                os._exit(SIGTERM_STATUS)

        previous = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _path(self, backend: Backend, name: str = "") -> str:
        return self._api.path(backend.plural, name, group=backend.group, version=backend.version)
