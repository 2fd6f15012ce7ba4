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
from typing import Any

from mixtune import storage
from mixtune.errors import ClusterError, ConfigError, TrainingError
from mixtune.kubernetes_api import Clock, Object
from mixtune.settings.job import CONFIG_MAP, JobSettings, NodeSettings
from mixtune.settings.train import TrainSettings
from mixtune.train.config import Places
from mixtune.train.launcher.follower import Follower
from mixtune.train.launcher.job_api import JobApi
from mixtune.train.launcher.jobs import BACKENDS, JOB_ANNOTATION, Backend, Job
from mixtune.train.launcher.pod_context import Origin, read_origin

POLL_SECONDS = 5.0
WAITING_POLL_SECONDS = 15.0
"""While a queue holds the job back."""
HANDED_ON = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE")
"""What the processes of a job get of the launcher's environment; credentials are the runtime's business."""


def run_job(config: TrainSettings, places: Places, nodes: NodeSettings, clock: Clock | None = None) -> str:
    """Train as a job of the cluster; the manifest is copied to its place, the model's fingerprinted URI comes back.

    Raises:
        ConfigError: Artifacts are not in S3, or the platform's settings allow no job.
        TrainingError: The job failed; the text has every pod's reason.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    cluster = JobApi(clock)
    job_settings = JobSettings.from_config_map(cluster.config_map(CONFIG_MAP))
    backend = BACKENDS[job_settings.backend_of(nodes)]
    job = plan_job(config, places, nodes, job_settings, read_origin(cluster), cluster.clock.now())
    document = job_document(config, places)
    template = cluster.pod_template(job.runtime) if backend.needs_template else {}
    with cluster.deleted_on_sigterm(backend, job.name):
        job = take_up(cluster, backend, job, document, template)
        follow(cluster, backend, job, job_settings)
        manifest = storage.read_json(storage.read_json(job.job_uri)["places"]["model_path"])
        storage.write_json(places.model_path, manifest)
        cluster.delete(backend, job.name)
    return "" if config.validation_steps else storage.fingerprint(manifest["data_uri"])


def plan_job(
    config: TrainSettings, places: Places, nodes: NodeSettings, job_settings: JobSettings, origin: Origin, now: float
) -> Job:
    """Decide the job of a training; nothing is asked of the cluster.

    Raises:
        ConfigError: Artifacts that a pod elsewhere cannot reach, or a capacity block at its end.
    """
    for name, uri in (("model", places.model_uri), ("shards", places.shards_uri)):
        if not storage.is_s3(uri):
            raise ConfigError(f"a job on {nodes.count} nodes reads and writes S3; the {name} artifact is at {uri!r}")
    told = {"config": asdict(config), "base_model": places.base_model, "shards": places.shards_uri}
    key = json.dumps([origin.run_id, origin.task, told], sort_keys=True)
    passed = {name: os.environ[name] for name in HANDED_ON if os.environ.get(name)}
    return Job(
        name=f"train-{hashlib.sha256(key.encode()).hexdigest()[:16]}",
        run_id=origin.run_id,
        job_uri=storage.data_uri(places.model_uri, "job") + "/job.json",
        image=origin.image,
        num_nodes=nodes.count,
        processes_per_node=nodes.gpus or 1,
        runtime=job_settings.runtime_of(nodes),
        runtime_kind=job_settings.runtime_kind,
        queue=job_settings.queue,
        priority=job_settings.validation_priority if config.validation_steps else job_settings.priority,
        deadline_seconds=job_settings.seconds_for(now),
        env={**passed, "MIXTUNE_RUN_ID": origin.run_id},
        owner=origin.owner,
    )


def job_document(config: TrainSettings, places: Places) -> dict[str, Any]:
    """What `mixtune.train.worker` is told: every place is a URI, and the manifest lies beside the model."""
    there = replace(
        places,
        shards_path=places.shards_uri,
        model_path=storage.data_uri(places.model_uri, "job") + "/model.json",
    )
    names = {"kms_key_id": "MIXTUNE_KMS_KEY_ID", "endpoint_url": "AWS_ENDPOINT_URL_S3", "region": "AWS_REGION"}
    options = {key: os.environ[name] for key, name in names.items() if os.environ.get(name)}
    return {"config": asdict(config), "places": asdict(there), "storage": options}


def take_up(cluster: JobApi, backend: Backend, job: Job, document: dict[str, Any], template: Object) -> Job:
    """See to it that there is exactly one job of that name: the one that is there, or a new one.

    A job that replaces a failed one keeps its place, and so its checkpoints.
    """
    body_of = backend.body
    waited = False
    while True:
        found = cluster.get(backend, job.name)
        if found is None:
            if not storage.exists(job.job_uri):
                storage.write_json(job.job_uri, document)
            if cluster.create(backend, body_of(job, template)):
                print(f"{backend.kind} {job.name}: made, {job.num_nodes} nodes x {job.processes_per_node}", flush=True)
                return job
            continue
        job = replace(job, job_uri=found["metadata"].get("annotations", {}).get(JOB_ANNOTATION, job.job_uri))
        state = backend.state(found)
        if found["metadata"].get("deletionTimestamp"):
            if not waited:
                print(f"{backend.kind} {job.name}: being deleted; waiting until its pods are gone", flush=True)
            waited = True
            cluster.clock.sleep(POLL_SECONDS)
        elif state.phase == "failed":
            print(f"{backend.kind} {job.name}: had failed ({state.message}); replaced by a new one", flush=True)
            cluster.delete(backend, job.name)
        else:
            print(f"{backend.kind} {job.name}: is there already ({state.phase}); taken up", flush=True)
            return job


def follow(cluster: JobApi, backend: Backend, job: Job, job_settings: JobSettings) -> None:
    """Follow a job to its end, showing what it does; a job that failed or cannot start is deleted.

    Raises:
        TrainingError: It failed, cannot start, or its capacity block ends.
        ClusterError: Somebody deleted it.
    """
    follower = Follower(cluster=cluster, backend=backend, name=job.name, began=cluster.clock.now())
    while True:
        found = cluster.get(backend, job.name)
        if found is None or found["metadata"].get("deletionTimestamp"):
            raise ClusterError(
                f"{backend.kind} {job.name} was deleted by somebody else {_position(follower)}; run the task again to "
                "go on from the newest checkpoint"
            )
        state = backend.state(found)
        follower.look(state)
        if state.phase == "complete":
            return
        trouble = state.message or "failed" if state.phase == "failed" else ""
        if not trouble and (stuck := follower.stuck()):
            trouble = str(stuck)
        if not trouble and cluster.clock.now() >= job_settings.last_second():
            trouble = (
                f"the capacity block ends at {job_settings.capacity_block_end}: run the task again on the next one"
            )
        if trouble:
            cluster.delete(backend, job.name)
            raise TrainingError(
                "\n".join([f"{backend.kind} {job.name} {_position(follower)}: {trouble}", *follower.failures[-8:]])
            )
        cluster.clock.sleep(WAITING_POLL_SECONDS if state.phase == "waiting" else POLL_SECONDS)


def _position(follower: Follower) -> str:
    done, steps = follower.step
    return f"after step {done} of {steps}" if steps else "before its first step"
