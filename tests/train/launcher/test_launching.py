"""The launcher against a cluster that behaves as clusters do."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.artifacts.model import read_model
from mixtune.artifacts.typed_json import read_artifact
from mixtune.errors import ClusterError, ConfigError, TrainingError
from mixtune.kubernetes_api import Clock
from mixtune.settings.job import NodeSettings
from mixtune.train.launcher.cleanup import clean_up
from mixtune.train.launcher.launch import run_job
from mixtune.train.task import TrainJobFile, TrainTask

from .api import FakeCluster
from .conftest import IMAGE, WORKFLOW, first_labels, write_model

Training = tuple[TrainTask, NodeSettings]


def launch(cluster: FakeCluster, training: Training) -> str:
    return run_job(*training, clock=Clock(cluster.clock.now, cluster.clock.sleep)).uri


def start(cluster: FakeCluster, kind: str, *lines: str) -> str:
    """Pods of four nodes start and rank 0 talks."""
    name = str(cluster.job()["metadata"]["name"])
    for rank in range(4):
        cluster.pod(f"{name}-node-{rank}", first_labels(name, kind, rank))
    cluster.say(f"{name}-node-0", *lines)
    return name


def finish(cluster: FakeCluster, kind: str, task: TrainTask) -> None:
    write_model(task)
    cluster.condition("Succeeded" if kind == "pytorchjob" else "Complete", "Done", "")


def test_a_job_is_made_followed_and_deleted(
    cluster: FakeCluster, training: Training, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.clock.at(2, lambda: start(cluster, kind, "step 1/300 loss 2.5000 grad_norm 1", "step 2/300 loss 2.4000"))
    cluster.clock.at(20, lambda: finish(cluster, kind, training[0]))
    uri = launch(cluster, training)
    plain = storage.check_fingerprint(uri)
    assert plain == storage.data_uri(training[0].outputs.model_uri, "model")
    assert read_model(training[0].outputs.model_path).data_uri == plain
    (body,) = cluster.created
    assert body["metadata"]["ownerReferences"] == [WORKFLOW]
    assert body["metadata"]["labels"]["pipelines.kubeflow.org/run-id"] == "run-1"
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("step ")] == [
        "step 1/300 loss 2.5000 grad_norm 1", "step 2/300 loss 2.4000",
    ]  # fmt: skip
    assert any("pods: 4 running on node-of-" in line for line in shown)
    assert not [key for key in cluster.objects if "jobs" in key[0]], "nothing is left"


def test_what_the_job_runs_is_told_in_one_document(cluster: FakeCluster, training: Training, kind: str) -> None:
    cluster.clock.at(2, lambda: finish(cluster, kind, training[0]))
    launch(cluster, training)
    (body,) = cluster.created
    if kind == "pytorchjob":
        replicas = body["spec"]["pytorchReplicaSpecs"]
        assert {name: item["replicas"] for name, item in replicas.items()} == {"Master": 1, "Worker": 3}
        assert body["spec"]["nprocPerNode"] == "8"
        (container,) = replicas["Worker"]["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
    else:
        container = body["spec"]["trainer"]
        assert (container["numNodes"], container["numProcPerNode"]) == (4, 8)
        assert body["spec"]["runtimeRef"]["name"] == "mixtune-torch-p5"
    assert container["image"] == IMAGE
    assert container["command"][:3] == [sys.executable, "-m", "mixtune.train.launcher.node"], (
        "the Python that has mixtune"
    )
    assert {"name": "MIXTUNE_RUN_ID", "value": "run-1"} in container["env"]
    written = read_artifact(TrainJobFile, container["command"][-1]).task
    task = training[0]
    assert written.settings == task.settings
    assert (written.inputs.shards_path, written.outputs.model_uri) == (task.inputs.shards_uri, task.outputs.model_uri)
    assert storage.is_s3(written.outputs.model_path)


def test_a_task_that_runs_again_takes_up_the_job_that_runs(
    cluster: FakeCluster, training: Training, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.clock.at(2, lambda: start(cluster, kind, "step 1/9 loss 2.0"))

    def launcher_dies() -> None:
        raise KeyboardInterrupt

    cluster.clock.at(12, launcher_dies)
    with pytest.raises(KeyboardInterrupt):
        launch(cluster, training)
    cluster.clock.at(12, lambda: finish(cluster, kind, training[0]))
    task, nodes = training
    elsewhere = replace(task.outputs, model_uri=task.outputs.model_uri.replace("/1/model", "/2/model"))
    uri = launch(cluster, (replace(task, outputs=elsewhere), nodes))
    assert uri.startswith(storage.data_uri(task.outputs.model_uri, "model"))
    assert len(cluster.created) == 1
    assert "is there already (active); taken up" in capsys.readouterr().out


def test_a_failed_job_is_replaced_in_its_place_and_one_being_deleted_is_waited_for(
    cluster: FakeCluster, training: Training, kind: str
) -> None:
    def launcher_dies() -> None:
        cluster.condition("Failed", "Bad", "")
        raise KeyboardInterrupt

    cluster.clock.at(2, lambda: start(cluster, kind, "step 1/9 loss 2.0"))
    cluster.clock.at(12, launcher_dies)
    with pytest.raises(KeyboardInterrupt):
        launch(cluster, training)
    cluster.ending_seconds = 100.0
    cluster.clock.at(200, lambda: finish(cluster, kind, training[0]))
    began = cluster.clock.now()
    made_at: list[float] = []
    cluster.on_create = lambda body: made_at.append(cluster.clock.now() - began)
    launch(cluster, training)
    assert len(made_at) == 1 and made_at[0] >= 100, "after the last pod of the one before"
    assert len(cluster.created) == 2
    assert cluster.created[0] == cluster.created[1]
    assert cluster.clock.now() - began >= 200


def test_an_hour_in_the_queue_is_waited_for_and_its_events_are_shown(
    cluster: FakeCluster, training: Training, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.objects["configmaps", "mixtune-jobs"]["data"] |= {"queue": "gpus", "priority": "mixtune-training"}

    def queue(body: dict[str, Any]) -> None:
        cluster.event(f"trainjob-{body['metadata']['name']}-1", "Pending", "insufficient quota for nvidia.com/gpu")

    def admit() -> None:
        spec = cluster.job()["spec"]
        (spec["runPolicy"] if kind == "pytorchjob" else spec)["suspend"] = False
        start(cluster, kind, "step 1/9 loss 2.0")

    cluster.on_create = queue
    cluster.clock.at(3600, admit)
    cluster.clock.at(3700, lambda: finish(cluster, kind, training[0]))
    launch(cluster, training)
    labels = cluster.created[0]["metadata"]["labels"]
    assert labels["kueue.x-k8s.io/queue-name"] == "gpus"
    assert labels["kueue.x-k8s.io/priority-class"] == "mixtune-training"
    out = capsys.readouterr().out
    assert out.count("insufficient quota for nvidia.com/gpu") == 1
    assert "waiting for its queue for 50 minutes" in out


JOBS = {"trainjobs": "trainer.kubeflow.org/v1alpha1", "pytorchjobs": "kubeflow.org/v1"}
OOM = {"containerStatuses": [{"name": "node", "state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]}
DONE = {"name": "init-pytorch", "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}
EXIT = {"containerStatuses": [{"name": "node", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}
LOST = {"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager"}]}


@pytest.mark.parametrize(
    ("status", "log", "words"),
    [
        (OOM, "...", "out of memory.*raise memory in the runtime"),
        ({**OOM, "initContainerStatuses": [DONE]}, "...", "out of memory.*raise memory in the runtime"),
        (EXIT, "torch.OutOfMemoryError: CUDA out of memory.", "out of GPU memory; lower max_tokens_per_gpu"),
        (EXIT, "NCCL error: unhandled system error", "NCCL failed between the nodes"),
        (EXIT, "error: step 3: loss nan", "step 3: loss nan"),
        ({"reason": "Evicted", "message": "low on memory"}, "", "evicted: low on memory"),
        (LOST, "", "its node was lost.*newest checkpoint"),
    ],
)
def test_a_failure_is_told_with_the_pods_tail_and_its_reason(
    cluster: FakeCluster, training: Training, kind: str, capsys: pytest.CaptureFixture[str],
    status: dict[str, Any], log: str, words: str,
) -> None:  # fmt: skip
    def fail() -> None:
        name = start(cluster, kind, "step 7/9 loss 2.0")
        cluster.pod(f"{name}-node-2", first_labels(name, kind, 2), "Failed", **status)
        cluster.say(f"{name}-node-2", "the last words", log)
        cluster.condition("Failed", "TrainJobFailed", "jobset failed")

    cluster.clock.at(2, fail)
    with pytest.raises(TrainingError, match="(?s)after step 7 of 9.*node-2: " + words):
        launch(cluster, training)
    assert "  | the last words" in capsys.readouterr().out
    assert not [key for key in cluster.objects if "jobs" in key[0]]


def test_an_image_that_cannot_be_pulled_is_not_waited_for_for_ever(
    cluster: FakeCluster, training: Training, kind: str
) -> None:
    def pull() -> None:
        name = cluster.job()["metadata"]["name"]
        waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
        status = {"containerStatuses": [{"name": "node", "image": "x", "state": waiting}]}
        cluster.pod(f"{name}-node-0", first_labels(name, kind), "Pending", **status)

    cluster.clock.at(2, pull)
    with pytest.raises(TrainingError, match=r"the image cannot be pulled.*no such image"):
        launch(cluster, training)


def test_an_api_server_that_is_away_for_minutes_loses_and_doubles_no_line(
    cluster: FakeCluster, training: Training, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.clock.at(2, lambda: start(cluster, kind, "step 1/9 loss 2.0"))
    cluster.clock.at(10, lambda: setattr(cluster, "away", True))
    for step in range(2, 6):
        cluster.clock.at(10 + 40 * step, lambda step=step: cluster.say(pod_0(cluster), f"step {step}/9 loss 1.0"))
    cluster.clock.at(300, lambda: setattr(cluster, "away", False))
    cluster.clock.at(
        310, lambda: cluster.answers.extend([(503, {}), (429, {"Retry-After": "7"}), (401, {}), (500, {})])
    )
    cluster.clock.at(600, lambda: finish(cluster, kind, training[0]))
    launch(cluster, training)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("step ")]
    assert [line.split("/")[0] for line in lines] == [f"step {step}" for step in range(1, 6)]
    assert not cluster.answers
    assert len(cluster.created) == 1


def pod_0(cluster: FakeCluster) -> str:
    return f"{cluster.job()['metadata']['name']}-node-0"


def test_an_api_server_that_stays_away_leaves_the_job_to_the_next_try(
    cluster: FakeCluster, training: Training, kind: str
) -> None:
    cluster.clock.at(10, lambda: setattr(cluster, "away", True))
    with pytest.raises(ClusterError, match=r"has not answered .* for 15 minutes.*run the task again"):
        launch(cluster, training)
    assert cluster.job()


def test_a_job_that_somebody_deletes_is_told(cluster: FakeCluster, training: Training, kind: str) -> None:
    plural = next(iter(cluster.checks))
    cluster.clock.at(2, lambda: start(cluster, kind, "step 3/9 loss 2.0"))
    cluster.clock.at(20, lambda: cluster.remove(plural, cluster.job()["metadata"]["name"]))
    with pytest.raises(ClusterError, match="deleted by somebody else after step 3 of 9"):
        launch(cluster, training)


def test_a_missing_right_is_named_with_the_account_that_has_it(
    cluster: FakeCluster, training: Training, kind: str
) -> None:
    cluster.forbidden = set(cluster.checks)
    with pytest.raises(ClusterError, match=r"not allowed in namespace team: HTTP 403.*mixtune-launcher"):
        launch(cluster, training)


@pytest.mark.slow
def test_a_job_ends_with_its_capacity_block(cluster: FakeCluster, training: Training, kind: str) -> None:
    data = cluster.objects["configmaps", "mixtune-jobs"]["data"]
    data["capacity_block_end"] = "2027-01-15T11:30:00Z"  # the clock begins at 2027-01-15 08:00
    cluster.clock.at(2, lambda: start(cluster, kind, "step 3/9 loss 2.0"))
    began = cluster.clock.now()
    with pytest.raises(TrainingError, match="the capacity block ends at 2027-01-15T11:30:00Z"):
        launch(cluster, training)
    spec = cluster.created[0]["spec"]
    seconds = (spec["runPolicy"] if kind == "pytorchjob" else spec)["activeDeadlineSeconds"]
    assert seconds == 3.5 * 3600 - 45 * 60 == cluster.clock.now() - began
    with pytest.raises(ConfigError, match="less than 15 minutes are left"):
        launch(cluster, training)


CHILD = """
import sys
from mixtune.settings.job import NodeSettings
from mixtune.settings.train import TrainSettings
from mixtune.train.launcher.launch import run_job
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask
inputs = TrainInputs(shards_path="x", shards_uri=sys.argv[1] + "/s", base_model="m")
outputs = TrainOutputs(model_path=sys.argv[2] + "/model", model_uri=sys.argv[1] + "/a/model")
task = TrainTask(settings=TrainSettings(method="lora"), inputs=inputs, outputs=outputs)
run_job(task, NodeSettings(num_nodes="4", gpus_per_node="8"))
"""


def test_sigterm_deletes_the_job_in_less_than_a_fifth_of_a_second(
    cluster: FakeCluster, kind: str, bucket: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", CHILD, bucket, str(tmp_path)]
    child = subprocess.Popen(command, env=os.environ, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    while ": active" not in child.stdout.readline():
        assert child.poll() is None
    time.sleep(0.3)
    told = time.monotonic()
    child.send_signal(signal.SIGTERM)
    while not any(request.startswith("DELETE") for request in list(cluster.requests)):
        assert time.monotonic() - told < 5
        time.sleep(0.002)
    took = time.monotonic() - told
    assert child.wait(timeout=10) == 143
    assert took < 0.2
    assert not [key for key in cluster.objects if "jobs" in key[0]]


def clean(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the exit task as a pod of the run does."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-1")
    clean_up(Clock(cluster.clock.now, cluster.clock.sleep))


def test_the_exit_task_deletes_the_jobs_of_its_run_only(
    cluster: FakeCluster, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean_up()
    assert "not on a cluster" in capsys.readouterr().out
    plural = next(iter(cluster.checks))
    for name, run in (("train-a", "run-1"), ("train-b", "run-2")):
        cluster.put(plural, name, metadata={"labels": {"pipelines.kubeflow.org/run-id": run}})
    clean(cluster, monkeypatch)
    assert [name for key, name in cluster.objects if key == plural] == ["train-b"]


def test_a_run_that_may_not_look_for_jobs_has_started_none_and_its_exit_task_says_how_to_look(
    cluster: FakeCluster, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.forbidden = {"trainjobs", "pytorchjobs"}
    cluster.checks |= dict.fromkeys(cluster.forbidden, lambda body: [])
    clean(cluster, monkeypatch)
    assert capsys.readouterr().out.splitlines() == [
        "this service account may not look for training jobs, so the run has started none; to see: kubectl get "
        "trainjobs,pytorchjobs -l pipelines.kubeflow.org/run-id=run-1"
    ]


def test_the_exit_task_waits_until_the_jobs_pods_are_gone_and_none_is_made_anew(
    cluster: FakeCluster, training: Training, kind: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def stop() -> None:
        raise KeyboardInterrupt

    cluster.clock.at(2, lambda: start(cluster, kind, "step 1/9 loss 2.0"))
    cluster.clock.at(12, stop)
    with pytest.raises(KeyboardInterrupt):
        launch(cluster, training)
    cluster.ending_seconds = 100.0
    cluster.pod("train-other-node-0", first_labels("train-other", kind))
    cluster.objects["pods", "train-other-node-0"]["spec"]["containers"][0]["env"] = []
    capsys.readouterr()
    clean(cluster, monkeypatch)
    told = capsys.readouterr().out.splitlines()
    assert sum("4 pods have not ended yet" in line for line in told) == 1
    assert told[-1] == "all pods of the run's jobs are gone after 100 s"
    assert [name for key, name in cluster.objects if key == "pods"] == ["launcher-0", "train-other-node-0"]


def test_a_job_that_was_stopped_does_not_come_back(
    cluster: FakeCluster, training: Training, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    pod = cluster.pod

    def count(name: str, labels: dict[str, str], phase: str = "Running", **status: Any) -> None:
        made.append(name)
        pod(name, labels, phase, **status)

    monkeypatch.setattr(cluster, "pod", count)
    cluster.ending_seconds = 120.0
    cluster.clock.at(2, lambda: start(cluster, kind, "step 1/9 loss 2.0"))
    cluster.clock.at(12, lambda: cluster.condition("Failed", "Bad", ""))
    with pytest.raises(TrainingError):
        launch(cluster, training)
    cluster.clock.sleep(600)
    assert len(made) == 4, "one for each node"
    plural, name = next(iter(cluster.checks)), "train-x"
    cluster.put(plural, name)
    cluster.answer("DELETE", f"/apis/{JOBS[plural]}/namespaces/team/{plural}/{name}?propagationPolicy=Foreground", None)
    cluster.clock.sleep(600)
    assert made[4:] == ["train-x-again-1", "train-x-again-2"], "what foreground deletion does under Trainer 2.3"


def test_a_field_that_the_operator_does_not_know_is_refused(
    cluster: FakeCluster, training: Training, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mixtune.train.launcher import launch as launch_module

    backend = launch_module.BACKENDS["pytorchjob" if kind == "pytorchjob" else "trainjob"]

    def wrong(job: Any, template: Any) -> dict[str, Any]:
        body = backend.body(job, template)
        return {**body, "spec": {**body["spec"], "podTemplateOverrides": []}}

    changed = {**launch_module.BACKENDS, "trainjob": launch_module.replace(backend, body=wrong)}
    monkeypatch.setattr(
        launch_module, "BACKENDS", {**changed, "pytorchjob": launch_module.replace(backend, body=wrong)}
    )
    with pytest.raises(ClusterError, match=r"refused .*podTemplateOverrides"):
        launch(cluster, training)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"launcher": "ray"}, "launcher is empty or one of process"),
        ({"launcher": "process", "num_nodes": "4"}, "leave it empty"),
        ({"launcher": "trainjob"}, "needs num_nodes"),
        ({"num_nodes": "four"}, "a whole number as text"),
    ],
)
def test_what_cannot_be_launched_is_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        NodeSettings(**options)


def test_a_laptop_never_imports_kubernetes_and_a_launcher_never_pytorch() -> None:
    here = "import mixtune.settings.job, mixtune.train.launcher.cleanup"
    there = "import mixtune.train.launcher.launch"
    for code, unwanted in ((here, "kubernetes"), (there, "torch")):
        told = f"import sys; {code}; sys.exit('{unwanted}' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", told]).returncode == 0, unwanted
