"""The launcher: exactly one job for a training, whoever started it; followed to its end, and never left behind.

A job's name is made of the run, the task and what is trained, so that a task that is run again takes up the job that
runs, replaces the one that failed, and waits for the one that is being deleted. It goes away by four ways: at its end
the launcher deletes it; SIGTERM deletes it; it is owned by the run's workflow; the exit task deletes what has the run's
id. A restarted job goes on from its newest whole checkpoint, with however many nodes it has then.
"""

import hashlib
import json
import os
from dataclasses import asdict, replace

from mixtune import storage
from mixtune.artifacts.model import TrainedModel, read_model
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.errors import ClusterError, ConfigError, TrainingError
from mixtune.kubernetes_api import Clock, Object
from mixtune.settings.job import CONFIG_MAP, JobSettings, NodeSettings
from mixtune.train.launcher.follower import Follower
from mixtune.train.launcher.job_api import JobApi
from mixtune.train.launcher.jobs import BACKENDS, JOB_ANNOTATION, Backend, Job, State
from mixtune.train.launcher.pod_context import PodContext, read_pod_context
from mixtune.train.task import TrainJobFile, TrainTask

POLL_SECONDS = 5.0
WAITING_POLL_SECONDS = 15.0
"""While a queue holds the job back."""
ENV_NAMES = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE")
"""What the processes of a job get of the launcher's environment; credentials are the runtime's business."""


def run_job(task: TrainTask, nodes: NodeSettings, clock: Clock | None = None) -> TrainedModel:
    """Train as a job of the cluster, and copy the model's manifest to its place.

    Raises:
        ConfigError: Artifacts are not in S3, or the platform's settings allow no job.
        TrainingError: The job failed; the text has every pod's reason.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    api = JobApi(clock)
    job_settings = JobSettings.from_config_map(api.config_map(CONFIG_MAP))
    backend = BACKENDS[job_settings.backend_of(nodes)]
    job = plan_job(task, nodes, job_settings, read_pod_context(api), api.clock.now())
    template = api.pod_template(job.runtime) if backend.needs_template else {}
    with api.deleted_on_sigterm(backend, job.name):
        job = take_up(api, backend, job, job_file(task, nodes.gpus), template)
        follow(api, backend, job, job_settings)
        manifest = read_model(read_artifact(TrainJobFile, job.job_uri).task.outputs.model_path)
        write_artifact(task.outputs.model_path, manifest)
        api.delete(backend, job.name)
    return TrainedModel("" if task.validation_steps else storage.fingerprint(manifest.data_uri))


def plan_job(task: TrainTask, nodes: NodeSettings, job_settings: JobSettings, context: PodContext, now: float) -> Job:
    """Decide the job of a training that starts `now`, in seconds since the epoch, without a look at the cluster.

    Raises:
        ConfigError: Artifacts that a pod elsewhere cannot reach, or a capacity block at its end.
    """
    for name, uri in (("model", task.outputs.model_uri), ("shards", task.inputs.shards_uri)):
        if not storage.is_s3(uri):
            raise ConfigError(f"a job on {nodes.count} nodes reads and writes S3; the {name} artifact is at {uri!r}")
    trained = [asdict(task.settings), task.validation_steps, asdict(replace(task.inputs, shards_path=""))]
    key = json.dumps([context.run_id, context.task, trained], sort_keys=True)
    env = {name: os.environ[name] for name in ENV_NAMES if os.environ.get(name)}
    return Job(
        name=f"train-{hashlib.sha256(key.encode()).hexdigest()[:16]}",
        run_id=context.run_id,
        job_uri=storage.data_uri(task.outputs.model_uri, "job") + "/job.json",
        image=context.image,
        python=context.python,
        num_nodes=nodes.count,
        processes_per_node=nodes.gpus or 1,
        runtime=job_settings.runtime_of(nodes),
        runtime_kind=job_settings.runtime_kind,
        queue=job_settings.queue,
        priority=job_settings.validation_priority if task.validation_steps else job_settings.priority,
        deadline_seconds=job_settings.seconds_for(now),
        env={**env, "MIXTUNE_RUN_ID": context.run_id},
        owner=context.owner,
    )


def job_file(task: TrainTask, gpus_per_node: int = 0) -> TrainJobFile:
    """Return what the job's processes read: every place is a URI, and the manifest lies beside the model."""
    model_path = storage.data_uri(task.outputs.model_uri, "job") + "/model.json"
    moved = replace(
        task,
        inputs=replace(task.inputs, shards_path=task.inputs.shards_uri),
        outputs=replace(task.outputs, model_path=model_path),
    )
    return TrainJobFile(task=moved, storage=storage.configured_options(), gpus_per_node=gpus_per_node)


def take_up(api: JobApi, backend: Backend, job: Job, file: TrainJobFile, template: Object) -> Job:
    """See to it that there is exactly one job of that name: the one that is there, or a new one.

    A job that replaces a failed one keeps its place, and so its checkpoints.
    """
    title, waits = f"{backend.kind} {job.name}", False
    while True:
        body = api.get(backend, job.name)
        if body is None and not api.pods(backend.pods.format(name=job.name)):
            if not storage.exists(job.job_uri):
                write_artifact(job.job_uri, file)
            if api.create(backend, backend.body(job, template)):
                print(f"{title}: made, {job.num_nodes} nodes x {job.processes_per_node}", flush=True)
                return job
            continue
        if body is None or body["metadata"].get("deletionTimestamp"):
            if not waits:
                print(f"{title}: being deleted; waiting until its pods are gone", flush=True)
            waits = True
            api.clock.sleep(POLL_SECONDS)
            continue
        job = replace(job, job_uri=body["metadata"].get("annotations", {}).get(JOB_ANNOTATION, job.job_uri))
        state = backend.state(body)
        if state.phase == "failed":
            print(f"{title}: had failed ({state.message}); replaced by a new one", flush=True)
            api.delete(backend, job.name)
        else:
            print(f"{title}: is there already ({state.phase}); taken up", flush=True)
            return job


def follow(api: JobApi, backend: Backend, job: Job, job_settings: JobSettings) -> None:
    """Follow a job to its end, showing what it does; a job that failed or cannot start is deleted.

    Raises:
        TrainingError: It failed, cannot start, or its capacity block ends.
        ClusterError: Somebody deleted it.
    """
    follower = Follower(api=api, backend=backend, name=job.name, start=api.clock.now())
    while True:
        body = api.get(backend, job.name)
        if body is None or body["metadata"].get("deletionTimestamp"):
            raise ClusterError(
                f"{backend.kind} {job.name} was deleted by somebody else {follower.position}; run the task again to "
                "go on from the newest checkpoint"
            )
        state = backend.state(body)
        follower.show(state)
        if state.phase == "complete":
            return
        if trouble := _trouble(follower, state, job_settings):
            api.delete(backend, job.name)
            raise TrainingError(
                "\n".join([f"{backend.kind} {job.name} {follower.position}: {trouble}", *follower.failures[-8:]])
            )
        api.clock.sleep(WAITING_POLL_SECONDS if state.phase == "waiting" else POLL_SECONDS)


def _trouble(follower: Follower, state: State, job_settings: JobSettings) -> str:
    """Return why a job has to end now; empty where it goes on."""
    if state.phase == "failed":
        return state.message or "failed"
    if reason := follower.stuck():
        return str(reason)
    if follower.api.clock.now() >= job_settings.last_second():
        return f"the capacity block ends at {job_settings.capacity_block_end}: run the task again on the next one"
    return ""
