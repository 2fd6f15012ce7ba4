"""The exit task's work: no training job outlives its run, however the launcher ended."""

import os


def clean_up() -> None:
    """Delete every job of this run that is still there; outside a cluster there are none.

    Raises:
        ClusterError: The API is away, or the service account may not delete jobs.
    """
    if not os.environ.get("KUBERNETES_SERVICE_HOST"):
        print("not on a cluster: there are no jobs to clean up", flush=True)
        return
    from mixtune.train.launcher.job_api import JobApi
    from mixtune.train.launcher.jobs import BACKENDS
    from mixtune.train.launcher.pod_context import read_pod_context

    api = JobApi()
    run_id = read_pod_context(api).run_id
    for backend in BACKENDS.values():
        names = [body["metadata"]["name"] for body in api.jobs_of(backend, run_id)]
        for name in names:
            api.delete(backend, name)
            print(f"{backend.kind} {name}: deleted, its run has ended", flush=True)
        print(f"{backend.kind}: {len(names)} left over from run {run_id}", flush=True)
