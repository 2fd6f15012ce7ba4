"""Who starts a job: run, task, image and workflow, as the launcher's own pod has them."""

import os
import re
import sys
from dataclasses import dataclass

from mixtune import images
from mixtune.train.launcher.job_api import JobApi


@dataclass(frozen=True, kw_only=True)
class PodContext:
    """The launcher's own pod."""

    run_id: str
    """Of the pipeline run, fit for a label."""
    task: str
    image: str
    """The launcher's own: a job runs the code that launched it."""
    python: str
    """The interpreter there."""
    owner: dict[str, str] | None
    """The workflow of the run."""


def label_value(text: str) -> str:
    """Return a text as a label's value may be."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:63].strip("-_.")


def read_pod_context(api: JobApi) -> PodContext:
    """Read run, task, image and owner from the launcher's own pod; outside a cluster, from the environment."""
    pod = api.own_pod() or {"metadata": {}, "spec": {"containers": []}}
    metadata = pod["metadata"]
    run_id = os.environ.get("MIXTUNE_RUN_ID") or metadata.get("labels", {}).get("pipeline/runid", "")
    workflows = [item for item in metadata.get("ownerReferences", []) if item.get("kind") == "Workflow"]
    own_images = [item["image"] for item in pod["spec"]["containers"] if item["name"] == "main"]
    if not run_id:
        print("no run id (MIXTUNE_RUN_ID): the job is named after what it trains alone", flush=True)
    return PodContext(
        run_id=label_value(run_id) or "none",
        task=metadata.get("annotations", {}).get("pipelines.kubeflow.org/task_display_name", ""),
        image=own_images[0] if own_images else images.TRAIN,
        python=sys.executable if own_images else "python3",
        owner={key: workflows[0][key] for key in ("apiVersion", "kind", "name", "uid")} if workflows else None,
    )
