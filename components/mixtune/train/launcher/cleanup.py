"""The exit task's work: no training job outlives its run, however the launcher ended."""

import os
from typing import TYPE_CHECKING

from mixtune.kubernetes_api import Clock, Forbidden, Object

if TYPE_CHECKING:
    from mixtune.train.launcher.job_api import JobApi

TRAINERS = "app.kubernetes.io/component=trainer"
"""Label of the pods of every job, set by the runtimes."""
PATIENCE_SECONDS = 10 * 60
POLL_SECONDS = 5.0


def clean_up(clock: Clock | None = None) -> None:
    """Delete every job of this run that is still there, and wait until the pods of all its jobs are gone.

    Outside a cluster there are none. A run whose service account may not list jobs has not started any: one line
    names the command to look for them.

    Raises:
        ClusterError: The API is away, or refuses to delete a job.
    """
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        print("not on a cluster: there are no jobs to clean up", flush=True)
        return
    from mixtune.train.launcher.job_api import JobApi
    from mixtune.train.launcher.jobs import BACKENDS, RUN_LABEL
    from mixtune.train.launcher.pod_context import label_value, read_pod_context

    api = JobApi(clock)
    try:
        run_id = label_value(os.environ.get("MIXTUNE_RUN_ID", "")) or read_pod_context(api).run_id
        for backend in BACKENDS.values():
            jobs = [item["metadata"]["name"] for item in api.jobs_of(backend, run_id)]
            for name in jobs:
                api.delete(backend, name)
                print(f"{backend.kind} {name}: deleted, its run has ended", flush=True)
            print(f"{backend.kind}: {len(jobs)} left over from run {run_id}", flush=True)
    except Forbidden:
        print(
            "this service account may not look for training jobs, so the run has started none; to see: kubectl get "
            f"trainjobs,pytorchjobs -l {RUN_LABEL}={os.environ.get('MIXTUNE_RUN_ID', 'RUN_ID')}",
            flush=True,
        )
        return
    _await_pods(api, run_id)


def _await_pods(api: "JobApi", run_id: str) -> None:
    """Wait until the pods of a run's jobs are gone: until then their nodes are paid for, and the next run waits."""
    begin, shown = api.clock.now(), ""
    while names := [pod["metadata"]["name"] for pod in api.pods(TRAINERS) if _run_of(pod) == run_id]:
        seconds, text = api.clock.now() - begin, f"{len(names)} pods have not ended yet: {', '.join(names[:4])}"
        if seconds > PATIENCE_SECONDS:
            print(f"after {seconds:.0f} s {text}; to see why: kubectl describe pod {names[0]}", flush=True)
            return
        if text != shown:
            print(text, flush=True)
        shown = text
        api.clock.sleep(POLL_SECONDS)
    if shown:
        print(f"all pods of the run's jobs are gone after {api.clock.now() - begin:.0f} s", flush=True)


def _run_of(pod: Object) -> str:
    """Return the run that a job's pod names in its environment."""
    for container in pod["spec"]["containers"]:
        for variable in container.get("env", []):
            if variable["name"] == "MIXTUNE_RUN_ID":
                return str(variable.get("value", ""))
    return ""
