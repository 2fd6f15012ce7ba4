"""An acceptance run on a real Kubeflow Pipelines: every shipped pipeline twice, watched, and with --kill disturbed.

    python benchmarks/backend.py --host http://localhost:8080 --bucket s3://mlpipeline --digests build/images.json --kill
    python benchmarks/backend.py --local FOLDER     # the same runs by KFP's local runner, without a cluster

The demo's world, cut to a few lines, is put into the bucket; the table says of each run its state, seconds, verdict,
tasks from the cache, bytes of its workflow, whether Kubeflow's details stayed live to the end, what was killed, and
what was left behind. It needs a kubeconfig of the cluster, and credentials of the bucket as the AWS SDK finds them.
"""

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mixtune import storage
from mixtune.commands.arguments import find_pipeline, read_definitions
from mixtune.commands.kubeflow_api import SubmittedRun, connect, read_run
from mixtune.commands.local.run import run_pipeline
from mixtune.commands.local.work_dir import WorkDir
from mixtune.commands.run_on_cluster import RUN_LABEL, RunOnCluster
from mixtune.commands.run_summary import find_verdict
from mixtune.commands.submit import submit_pipeline
from mixtune.commands.task_states import CACHED, RUNNING, nodes_of_workflow, task_states
from mixtune.demo.demo_data import write_world
from mixtune.errors import MixtuneError
from mixtune.kubernetes_api import KubernetesApi, Object

LINES = 60
"""Of every file of the demo's world."""
PIPELINES = (
    "prepare_data",
    "evaluate_only",
    "compare_models",
    "finetune",
    "mix_grid",
    "lora_then_sft",
    "find_mix",
    "restore",
)
TRAINERS = "app.kubernetes.io/component=trainer"


@dataclass
class Result:
    """One run's line in the table."""

    pipeline: str
    nodes: str
    number: int
    state: str = ""
    seconds: float = 0.0
    verdict: str = "-"
    cached: int = 0
    tasks: int = 0
    workflow_bytes: int = 0
    live: str = "-"
    """Whether the details knew every task's end when the run had ended."""
    killed: list[str] = field(default_factory=list)
    left: str = ""

    def row(self) -> str:
        """Return the line in Markdown."""
        kind = f"{self.nodes} nodes" if self.nodes else "process"
        values = [
            self.pipeline, kind, self.number, self.state, f"{self.seconds:.0f}", self.verdict,
            f"{self.cached} of {self.tasks}" if self.tasks else self.cached,
            f"{self.workflow_bytes / 1e6:.2f}", self.live, ", ".join(self.killed) or "-", self.left or "nothing",
        ]  # fmt: skip
        return f"| {' | '.join(map(str, values))} |"


HEAD = "| pipeline | training | run | state | s | verdict | cached | MB | details live | killed | left behind |\n" + (
    "|---" * 11 + "|"
)


def put_world(bucket: str) -> dict[str, Any]:
    """Put the demo's world and base model into the bucket; return a finetune run's arguments."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = make_world(Path(folder))
        storage.upload(Path(folder) / "world", f"{bucket}/acceptance/world")
        storage.upload(Path(arguments["base_model"]), f"{bucket}/acceptance/base_model")
        text = json.dumps({**arguments, "base_model": f"{bucket}/acceptance/base_model"})
        return dict(json.loads(text.replace(str(Path(folder) / "world"), f"{bucket}/acceptance/world")))


def make_world(folder: Path) -> dict[str, Any]:
    """Write the demo's world, cut to a few lines, and its base model; return a finetune run's arguments."""
    arguments = {**write_world(folder / "world").arguments("lora", 75.0), "benchmarks": {}, "max_steps": 2}
    for path in filter(Path.is_file, folder.rglob("*")):
        if path.suffix in (".jsonl", ".csv"):
            path.write_text("".join(path.read_text().splitlines(keepends=True)[:LINES]))
    return arguments


def arguments_of(pipeline: str, world: dict[str, Any], nodes: str) -> dict[str, Any]:
    """Return what of the world's arguments a pipeline takes."""
    known = read_definitions(find_pipeline(pipeline))
    points = {"customer_data_percents": [100.0, 50.0]}
    further = {**points, "model_uri": world["base_model"], "other_model": world["base_model"], "num_nodes": nodes}
    if pipeline == "find_mix":
        further["find_options"] = {**points, "proxy_items": 20}
    if pipeline == "restore":  # the base itself stands for a model of all weights that was trained
        further["method"] = "sft"
    small = {"data_cpu": "250m", "data_memory": "1G"}
    return {name: value for name, value in {**world, **further, **small}.items() if name in known}


def victims(api: KubernetesApi, run_id: str, namespace: str) -> Iterator[tuple[str, Object]]:
    """Yield pods of a run that may be killed, with what they are: a driver, a launcher, a node."""
    path = api.path("pods", namespace=namespace)
    for pod in api.list(path, labelSelector=f"{RUN_LABEL}={run_id}"):
        name = pod["metadata"].get("annotations", {}).get("workflows.argoproj.io/node-name", "")
        if pod.get("status", {}).get("phase") == "Running":
            yield ("driver" if "-driver" in name.rpartition(".")[2] else "launcher"), pod
    for pod in _trainers(api, run_id, namespace):
        if pod.get("status", {}).get("phase") == "Running":
            yield "node", pod


def _trainers(api: KubernetesApi, run_id: str, namespace: str) -> list[Object]:
    pods = api.list(api.path("pods", namespace=namespace), labelSelector=TRAINERS)
    return [pod for pod in pods if run_id in json.dumps(pod.get("spec", {}))]


def watch(options: argparse.Namespace, run_id: str, result: Result) -> SubmittedRun:
    """Wait until a run has ended; with `--kill`, delete one pod of each kind on the way."""
    client, cluster, begin = connect(options), RunOnCluster(run_id, options.namespace), time.monotonic()
    api = KubernetesApi() if options.kill else None
    while True:
        run = read_run(client, run_id)
        if workflow := cluster.workflow():
            result.workflow_bytes = max(result.workflow_bytes, len(json.dumps(workflow)))
            states = task_states(nodes_of_workflow(workflow), run.titles)
        else:
            states = task_states(run.nodes, run.titles)
        result.seconds = time.monotonic() - begin
        if run.ended:
            result.state, result.cached = run.state, sum(state.phase == CACHED for state in states)
            open_tasks = [state for state in task_states(run.nodes, run.titles) if state.phase == RUNNING]
            result.live = "yes" if not open_tasks and len(run.nodes) else f"no, {len(open_tasks)} still running"
            return run
        for kind, pod in victims(api, run_id, options.namespace) if api else ():
            if kind not in result.killed:
                result.killed.append(kind)
                api.delete(api.path("pods", pod["metadata"]["name"], namespace=options.namespace))  # type: ignore[union-attr]
        time.sleep(options.poll)


def run_once(options: argparse.Namespace, pipeline: str, nodes: str, number: int, world: dict[str, Any]) -> Result:
    """Submit a pipeline, watch it, and look at what it left."""
    result = Result(pipeline, nodes, number)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "arguments.json"
        path.write_text(json.dumps(arguments_of(pipeline, world, nodes)))
        values = {"pipeline": pipeline, "arguments": [], "arguments_file": str(path), "mix": "", "like": ""}
        given = {
            "experiment": "acceptance",
            "pipeline_root": f"{options.bucket}/kfp",
            "no_cache": False,
            "allow_local": False,
        }
        run_id = submit_pipeline(argparse.Namespace(**{**vars(options), **values, **given}))
    run = watch(options, run_id, result)
    if run.state == "SUCCEEDED" and pipeline != "prepare_data":
        try:
            result.verdict = find_verdict({}, run.folder(f"{options.bucket}/kfp"), run_id)
        except MixtuneError as error:
            result.verdict = str(error)
    try:
        result.left = ", ".join(
            pod["metadata"]["name"] for pod in _trainers(KubernetesApi(), run_id, options.namespace)
        )
    except MixtuneError as error:
        result.left = f"not known ({error})"
    return result


def run_locally(folder: Path, pipelines: list[str]) -> Iterator[Result]:
    """Run every pipeline twice through KFP's local runner, the second time from the first one's cache."""
    folder.mkdir(parents=True, exist_ok=True)
    world, work = make_world(folder), WorkDir((folder / "work").resolve())
    for pipeline in pipelines:
        for number in (1, 2):
            result, begin = Result(pipeline, "", number), time.monotonic()
            with open(folder / "progress.log", "a", encoding="utf-8") as log, contextlib.redirect_stdout(log):
                try:
                    outcome = run_pipeline(find_pipeline(pipeline), arguments_of(pipeline, world, ""), work)
                    cached = sum(task.cached for task in outcome.results)
                    result.state, result.verdict = "SUCCEEDED", outcome.verdict or "-"
                    result.cached, result.tasks = cached, len(outcome.results)
                except MixtuneError as error:
                    result.state = f"FAILED: {error}".splitlines()[0]
            result.seconds = time.monotonic() - begin
            yield result


def main(argv: list[str] | None = None) -> int:
    """Run everything; 1 where a run did not succeed or left something behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--local", metavar="FOLDER", help="run on this machine, in this folder, without a cluster")
    parser.add_argument("--host", default="", help="address of Kubeflow Pipelines")
    parser.add_argument("--bucket", default="", help="s3:// bucket that the cluster's steps reach")
    parser.add_argument("--namespace", default="kubeflow")
    parser.add_argument("--token-file", default="")
    parser.add_argument("--registry", default="", help="goes before the images' names")
    parser.add_argument("--digests", default="", help="JSON of image digests; without it ECR is asked")
    parser.add_argument("--service-account", default="mixtune-launcher")
    parser.add_argument("--pipelines", nargs="*", default=list(PIPELINES))
    parser.add_argument("--nodes", nargs="*", default=["", "2"], help="nodes of a training job; '': in the step")
    parser.add_argument("--poll", type=float, default=5.0)
    parser.add_argument("--kill", action="store_true", help="delete a driver, a launcher and a node of each run")
    options = parser.parse_args(argv)
    if not options.local and not (options.host and options.bucket):
        parser.error("--host and --bucket, or --local")
    failed = False
    print(HEAD, flush=True)
    for result in run_locally(Path(options.local), options.pipelines) if options.local else run_on(options):
        failed |= result.state != "SUCCEEDED" or bool(result.left)
        print(result.row(), flush=True)
    return int(failed)


def run_on(options: argparse.Namespace) -> Iterator[Result]:
    """Run every pipeline twice on a cluster, those that train in the step and in a job."""
    world = put_world(options.bucket)
    for pipeline in options.pipelines:
        trains = "num_nodes" in read_definitions(find_pipeline(pipeline))
        for nodes, number in itertools.product(options.nodes if trains else [""], (1, 2)):
            yield run_once(options, pipeline, nodes, number, world)


if __name__ == "__main__":
    sys.exit(main())
