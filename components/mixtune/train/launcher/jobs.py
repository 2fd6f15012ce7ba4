"""Training jobs as Kubernetes objects: a TrainJob of Kubeflow Trainer, or a PyTorchJob of Training Operator v1.

Pure functions of a `Job`. A TrainJob names a runtime, which holds what a node needs (EFA, memory, tolerations), and
uses only fields that Kubeflow Trainer 2.2 and 2.3 both have. A PyTorchJob has no such thing, so the same pod lies in
the namespace as a PodTemplate with the runtime's name, and is copied into the job.
"""

import copy
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mixtune.errors import ConfigError
from mixtune.kubernetes_api import Object

RUN_LABEL = "pipelines.kubeflow.org/run-id"
JOB_ANNOTATION = "mixtune/job-uri"
NODE = ["-m", "mixtune.train.launcher.node"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One training job, whatever kind of object it becomes."""

    name: str
    run_id: str
    """The pipeline run that the job belongs to, fit for a label."""
    job_uri: str
    """The instructions for the job's processes: a JSON document in S3."""
    image: str
    python: str
    """The Python of the image that has mixtune."""
    num_nodes: int
    """1 or more."""
    processes_per_node: int
    """1 or more: as many as GPUs, where there are any."""
    runtime: str
    runtime_kind: str = "ClusterTrainingRuntime"
    queue: str = ""
    """Kueue's LocalQueue; the job is suspended until it is admitted."""
    priority: str = ""
    deadline_seconds: int = 345600
    """Seconds that the job may be active."""
    env: Mapping[str, str] = field(default_factory=dict)
    """For every process; nothing secret."""
    owner: Mapping[str, str] | None = None
    """`apiVersion`, `kind`, `name` and `uid` of the workflow that the job goes away with."""


@dataclass(frozen=True, kw_only=True)
class State:
    """What a job's status comes to."""

    phase: str
    """`waiting` (suspended by its queue), `active`, `complete` or `failed`."""
    message: str = ""
    """Why, in the controller's words."""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One kind of job object: where the API serves it, how it is made and how it is read."""

    kind: str
    group: str
    version: str
    plural: str
    body: Callable[[Job, Object], Object]
    """The object of a job; the second argument is the pod template, where `needs_template`."""
    complete: str
    """Type of the condition that reports success."""
    pods: str
    """Label selector of a job's pods, with `{name}`."""
    first_pod: Mapping[str, str]
    """Labels that the pod of rank 0 has beside those."""
    needs_template: bool = False

    def state(self, body: Object) -> State:
        """Return the state of a job as the API gives it."""
        conditions = body.get("status", {}).get("conditions", [])
        holding = {item["type"]: item for item in conditions if item.get("status") == "True"}
        for name, phase in ((self.complete, "complete"), ("Failed", "failed"), ("Suspended", "waiting")):
            if name in holding:
                words = f"{holding[name].get('reason', '')}: {holding[name].get('message', '')}".strip(": ")
                return State(phase=phase, message=words)
        spec = body.get("spec", {})
        suspended = spec.get("suspend") or spec.get("runPolicy", {}).get("suspend")
        return State(phase="waiting" if suspended else "active")

    def is_first(self, pod: Object) -> bool:
        """Return whether a pod runs rank 0."""
        return bool(self.first_pod.items() <= pod["metadata"].get("labels", {}).items())


def trainjob(job: Job, template: Object) -> Object:
    """Return a TrainJob; its runtime has the pod, so `template` is not used."""
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": _metadata(job),
        "spec": {
            "suspend": bool(job.queue),
            "activeDeadlineSeconds": job.deadline_seconds,
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": job.runtime_kind, "name": job.runtime},
            "trainer": {
                "image": job.image,
                "command": [job.python, *NODE, job.job_uri],
                "numNodes": job.num_nodes,
                "numProcPerNode": job.processes_per_node,
                "env": _env(job),
            },
        },
    }


def pytorchjob(job: Job, template: Object) -> Object:
    """Return a PyTorchJob: one master and the other nodes as workers, of one pod template.

    The operator gives `PET_NNODES`, `PET_NODE_RANK` and `PET_NPROC_PER_NODE`, but the master's address as
    `MASTER_ADDR` only; Kubernetes puts it into the command.

    Raises:
        ConfigError: The template's node has another number of GPUs than the job has processes there.
    """
    pod = copy.deepcopy(template)
    container = pod["spec"]["containers"][0]
    gpus = int(container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0))
    if gpus and gpus != job.processes_per_node:
        raise ConfigError(
            f"gpus_per_node is {job.processes_per_node}, but a node of PodTemplate {job.runtime} is taken with its "
            f"{gpus} GPUs: set gpus_per_node to {gpus}, or runtime in ConfigMap mixtune-jobs"
        )
    container["name"] = "pytorch"
    container["image"] = job.image
    meeting = ["--master-addr=$(MASTER_ADDR)", "--master-port=$(MASTER_PORT)"]
    container["command"] = [job.python, *NODE, *meeting, job.job_uri]
    named = {item["name"] for item in _env(job)}
    container["env"] = [item for item in container.get("env", []) if item["name"] not in named] + _env(job)
    pod["spec"].pop("restartPolicy", None)
    replica = {"replicas": 1, "restartPolicy": "OnFailure", "template": pod}
    replicas = {"Master": replica}
    if job.num_nodes > 1:
        replicas["Worker"] = {**copy.deepcopy(replica), "replicas": job.num_nodes - 1}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": _metadata(job),
        "spec": {
            "nprocPerNode": str(job.processes_per_node),
            "runPolicy": {
                "suspend": bool(job.queue),
                "activeDeadlineSeconds": job.deadline_seconds,
                "backoffLimit": 3,
                "cleanPodPolicy": "Running",
            },
            "pytorchReplicaSpecs": replicas,
        },
    }


def _metadata(job: Job) -> Object:
    labels = {RUN_LABEL: job.run_id, "app.kubernetes.io/part-of": "mixtune"}
    if job.queue:
        labels["kueue.x-k8s.io/queue-name"] = job.queue
    if job.priority:
        labels["kueue.x-k8s.io/priority-class"] = job.priority
    metadata: Object = {"name": job.name, "labels": labels, "annotations": {JOB_ANNOTATION: job.job_uri}}
    if job.owner:
        metadata["ownerReferences"] = [dict(job.owner)]
    return metadata


def _env(job: Job) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in sorted(job.env.items())]


_TABLE = tomllib.loads(Path(__file__).with_name("backends.toml").read_text(encoding="utf-8"))
BACKENDS = {body.__name__: Backend(body=body, **_TABLE[body.__name__]) for body in (trainjob, pytorchjob)}
