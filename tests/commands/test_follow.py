"""`submit --wait`, `follow`, `runs` and `logs`: the tasks of a run as Argo's nodes tell them, on KFP's side and the cluster's."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.cli import main
from mixtune.commands import follow
from mixtune.commands.arguments import find_pipeline
from mixtune.commands.follow import last_sentence
from mixtune.commands.task_states import duration, nodes_of_pods, nodes_of_workflow, task_states, titles_of
from mixtune.errors import ConfigError

from ..backend.argo import Workflow
from ..backend.kubeflow import Kubeflow
from ..backend.kubernetes import Kubernetes
from ..backend.simulation import Pipeline
from .test_submit import REQUIRED, finished

NO_ROOM = "Unschedulable: 0/1 nodes are available: 1 Insufficient cpu."


@pytest.fixture
def words(kubeflow: Kubeflow, tmp_path: Path) -> list[str]:
    digests = {f"mixtune-python-{part}": f"sha256:{'ab' * 32}" for part in ("data", "train", "evaluate")}
    (tmp_path / "images.json").write_text(json.dumps(digests))
    return [
        "submit", "finetune", "--host", kubeflow.url, "--registry", "r.example.com", "--namespace", "team", "--wait",
        "--digests", str(tmp_path / "images.json"), "--poll", "0.01", "--patience", "2",
    ]  # fmt: skip


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines without their times, between the run's address and the verdict."""
    return [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()[1:-1]]


EVERYTHING = [
    lambda run: run.wait("fingerprint"),
    lambda run: run.begin("fingerprint"),
    lambda run: (run.end("fingerprint"), run.take_from_cache("sanitize-general")),
    lambda run: run.wait("sanitize-customer", NO_ROOM),
    lambda run: None,
    lambda run: run.begin("sanitize-customer"),
    lambda run: (run.lose("sanitize-customer"), run.begin("sanitize-customer", attempt=1)),
    lambda run: run.end("sanitize-customer"),
]
LINES = [
    "fingerprint: running",
    "fingerprint: succeeded in 10 s",
    "sanitize-general: from the cache",
    f"sanitize-customer: waits: {NO_ROOM}",
    "sanitize-customer: running",
    "sanitize-customer: running (attempt 2)",
    "sanitize-customer: succeeded (attempt 2) in 20 s",
]


def test_the_tasks_of_the_pipeline_are_shown_once_a_change_and_nothing_of_argos(
    kubeflow: Kubeflow, words: list[str], bucket: str, cluster: Kubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(bucket, "pass")
    kubeflow.moves = list(EVERYTHING)
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp"]) == 0
    assert shown(capsys) == LINES


def test_details_alone_tell_the_same_but_for_the_reason_why_a_task_waits(
    kubeflow: Kubeflow, words: list[str], bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(bucket, "pass")
    kubeflow.moves = list(EVERYTHING)
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp"]) == 0
    assert shown(capsys) == [line for line in LINES if "waits" not in line]


@pytest.mark.parametrize("source", ["workflow", "compressed", "pods"])
def test_a_run_whose_details_stand_still_is_followed_to_its_end_on_the_cluster(
    kubeflow: Kubeflow, words: list[str], bucket: str, cluster: Kubernetes, source: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    finished(bucket, "pass")
    kubeflow.moves, kubeflow.details_until = list(EVERYTHING), 2
    cluster.compressed, cluster.forbidden = source == "compressed", {"workflows"} if source == "pods" else set()
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp"]) == 0
    cached = "sanitize-general: from the cache"
    assert shown(capsys) == [line for line in LINES if source != "pods" or line != cached], "no pod is made for it"


def test_details_that_stand_still_are_said_to_where_there_is_no_cluster(
    kubeflow: Kubeflow, words: list[str], bucket: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(follow, "STANDSTILL_SECONDS", 0.2)
    finished(bucket, "pass")
    kubeflow.moves, kubeflow.details_until = [*EVERYTHING[:2], *[lambda run: None] * 60], 2
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp"]) == 0
    lines = shown(capsys)
    assert lines[0] == "fingerprint: running" and len(lines) == 2, "said once"
    assert "Kubeflow no longer keeps the details of so large a run" in lines[1]
    assert "set KUBECONFIG" in lines[1]


TRACEBACK = """Traceback (most recent call last):
  File "/x.py", line 3, in run
mixtune.errors.DataError: s3://b/c.csv: line 7 is no record
name its columns
"""


@pytest.mark.parametrize("where", ["pod", "artifact"])
def test_a_failure_is_told_with_the_steps_own_last_sentence(
    kubeflow: Kubeflow, words: list[str], bucket: str, cluster: Kubernetes, where: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    kubeflow.ends = "FAILED"
    log = f"reading\n{TRACEBACK}" if where == "pod" else ""
    kubeflow.moves = [
        lambda run: run.begin("sanitize-customer"),
        lambda run: run.end("sanitize-customer", "Failed", "Error (exit code 1)", log),
    ]
    if where == "artifact":
        cluster.forbidden = {"pods"}
        with storage.open_write(f"{bucket}/kfp/finetune/run-1/sanitize-customer/7/executor-logs") as stream:
            stream.write(TRACEBACK.encode())
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp"]) == 1
    told = capsys.readouterr()
    assert "ended as failed: sanitize-customer: s3://b/c.csv: line 7 is no record\nname its columns" in told.err
    assert "sanitize-customer: failed after 10 s" in told.out


def test_a_driver_that_fails_is_told_with_its_own_words(
    kubeflow: Kubeflow, words: list[str], cluster: Kubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.ends = "FAILED"
    kubeflow.moves = [lambda run: run.fail_driver("evaluate-candidate", "processing OneOf: No successful task found")]
    assert main([*words, *REQUIRED]) == 1
    assert "evaluate-candidate: processing OneOf: No successful task found" in capsys.readouterr().err


def test_the_last_sentence_is_the_steps_own() -> None:
    assert last_sentence(TRACEBACK) == "s3://b/c.csv: line 7 is no record\nname its columns"
    assert last_sentence("step 1/9\nerror: step 3: loss nan\n") == "step 3: loss nan"
    launcher = 'I1128 13:00:00.1 1 launcher_v2.go:99] publish success.\ntime="2026" level=info'
    assert last_sentence(f"ValueError: no such column\n{launcher}\n") == "ValueError: no such column"
    assert last_sentence("") == ""


def test_the_log_of_a_step_is_printed_from_its_artifact_and_while_it_runs_from_its_pod(
    kubeflow: Kubeflow, words: list[str], bucket: str, cluster: Kubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.moves = [lambda run: run.begin("train"), lambda run: None, lambda run: None, lambda run: None]
    words.remove("--wait")
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp"]) == 0
    logs = ["logs", "run-1", "--host", kubeflow.url, "--namespace", "team"]
    capsys.readouterr()
    assert main(logs) == 0
    assert capsys.readouterr().out == "train: running\n"
    run = kubeflow.workflows["run-1"]
    run.logs[next(iter(run.pods()))["metadata"]["annotations"]["workflows.argoproj.io/node-id"]] = "step 1/9\n"
    assert main([*logs, "train"]) == 0
    assert capsys.readouterr().out == "step 1/9\n\n"
    with storage.open_write(f"{bucket}/kfp/finetune/run-1/train/7/executor-logs") as stream:
        stream.write(b"step 9/9\n")
    assert main([*logs, "train"]) == 0
    assert capsys.readouterr().out == "step 9/9\n\n"
    assert main([*logs, "compare"]) == 2
    assert "run run-1 has no task 'compare' that has begun; there are train" in capsys.readouterr().err


def test_the_list_of_runs_says_what_a_run_is_at(
    kubeflow: Kubeflow, words: list[str], cluster: Kubernetes, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.moves = [lambda run: None, lambda run: run.begin("train"), lambda run: None]
    words.remove("--wait")
    assert main([*words, *REQUIRED]) == 0
    kubeflow.runs["run-1"]["state"] = "RUNNING"
    kubeflow.look("run-1")
    capsys.readouterr()
    assert main(["runs", "--host", kubeflow.url, "--namespace", "team"]) == 0
    assert "running: train" in capsys.readouterr().out


def test_iterations_of_a_loop_and_tasks_of_one_name_are_told_apart(kubeflow: Kubeflow) -> None:
    spec = Pipeline.load(find_pipeline("mix_grid")).spec
    run = Workflow("run-1", spec)
    run.begin("mix-shard")
    run.begin("fingerprint")
    titles = titles_of(spec)
    assert "clean-up" in titles.values() and "points" not in titles.values(), "containers only"
    for nodes in (nodes_of_workflow(run.document()), nodes_of_pods(run.pods())):
        assert sorted(map(str, task_states(nodes, titles))) == ["fingerprint: running", "mix-shard [1]: running"]
    twice = {**titles, run.key("compare"): "mix-shard"}
    states = task_states(nodes_of_workflow(run.document()), twice)
    assert "mix-shard (mix-shard) [1]: running" in map(str, states)


@pytest.mark.parametrize(("seconds", "text"), [(4.4, "4 s"), (283, "4 min 43 s"), (7500, "2 h 5 min")])
def test_durations_are_read_at_a_glance(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_pod_that_cannot_start_says_why(kubeflow: Kubeflow) -> None:
    waiting: dict[str, Any] = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    name = "p(0).root(0).train(0).executor(0)"
    pod = {
        "metadata": {"name": "p-1", "annotations": {"workflows.argoproj.io/node-name": name}},
        "status": {"phase": "Pending", "containerStatuses": [{"name": "main", "state": waiting}]},
    }
    (state,) = task_states(nodes_of_pods([pod]), {"train": "train"})
    assert str(state) == "train: waits: ImagePullBackOff: no such image"


@pytest.mark.parametrize("poll", ["0", "-1", "nan", "inf"])
def test_some_time_lies_between_two_looks(poll: str) -> None:
    options = argparse.Namespace(poll=float(poll))
    with pytest.raises(ConfigError, match="seconds between two looks, more than 0"):
        follow.follow_run(options, "x")
