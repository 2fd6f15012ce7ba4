"""`mixtune submit` and its kin, with the real KFP client, against a server that answers as KFP's API does."""

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixtune import storage
from mixtune.cli import main

TASKS = ("fingerprint", "train-lora", "compare")
REQUIRED = [
    "customer_uri=s3://b/c.csv",
    'general_pools=[{"category": "chat", "uri": "s3://b/g", "weight": 100}]',
    "base_model=s3://b/m",
]


class Kubeflow(http.server.ThreadingHTTPServer):
    """Experiments and runs of Kubeflow Pipelines, v2beta1; a run moves on by one task at each look."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.bodies: list[dict[str, Any]] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.looks = 0
        self.token = ""
        self.ends = "SUCCEEDED"
        self.expires_at_look = -1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def look(self, run_id: str) -> dict[str, Any]:
        run, self.looks = self.runs[run_id], self.looks + 1
        done = min(self.looks, len(TASKS))
        ended = self.looks >= len(TASKS)
        states = ["SUCCEEDED"] * (done - 1) + [self.ends if ended else "RUNNING"]
        tasks: list[dict[str, Any]] = [
            {"task_id": name, "display_name": name, "state": state} for name, state in zip(TASKS, states, strict=False)
        ]
        if ended and self.ends == "FAILED":
            tasks[-1]["error"] = {"code": 1, "message": "GPU out of memory"}
        return {**run, "state": self.ends if ended else "RUNNING", "run_details": {"task_details": tasks}}


class Answers(http.server.BaseHTTPRequestHandler):
    server: Kubeflow

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if self.refused():
            return
        if path.endswith("/healthz"):
            self.answer(200, {"multi_user": False})
        elif path.endswith("/experiments"):
            self.answer(200, {"experiments": [{"experiment_id": "e1", "display_name": "mixtune", "namespace": "team"}]})
        elif path.endswith("/runs"):
            self.answer(200, {"runs": list(self.server.runs.values())})
        elif (run_id := path.rsplit("/", 1)[-1]) in self.server.runs:
            self.answer(200, self.server.look(run_id))
        else:
            self.answer(404, {"message": f"{path} not found"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refused():
            return
        self.server.bodies.append(body)
        if body["runtime_config"]["parameters"].get("seed") == 13:
            self.answer(400, {"message": "parameter seed: 13 is not allowed here"})
            return
        run_id = f"run-{len(self.server.runs) + 1}"
        self.server.runs[run_id] = {**body, "run_id": run_id, "state": "PENDING", "created_at": "2026-11-25T10:00:00Z"}
        self.answer(200, self.server.runs[run_id])

    def refused(self) -> bool:
        """A token was given, and it is not the one that counts now."""
        if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
            self.answer(401, {"message": "Unauthenticated"})
            return True
        if self.server.looks == self.server.expires_at_look and self.server.token:
            self.server.token = "new"
        return False

    def answer(self, status: int, value: dict[str, Any]) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp keeps a context file there
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server = Kubeflow()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def words(kubeflow: Kubeflow, tmp_path: Path) -> list[str]:
    listed = {f"mixtune-python-{part}": f"sha256:{'ab' * 32}" for part in ("data", "train", "evaluate")}
    (tmp_path / "images.json").write_text(json.dumps(listed))
    return [
        "submit", "finetune", "--host", kubeflow.url, "--registry", "r.example.com/team", "--namespace", "team",
        "--digests", str(tmp_path / "images.json"), "--poll", "0.01", "--patience", "2",
    ]  # fmt: skip


def finished(bucket: str, verdict: str, run_id: str = "run-1") -> None:
    storage.write_json(f"{bucket}/kfp/finetune/{run_id}/compare/7/comparison", {"verdict": verdict, "axes": []})


def test_what_is_sent_is_the_compiled_pipeline_its_arguments_and_nothing_else(
    kubeflow: Kubeflow, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--pipeline-root", "s3://b/kfp", "--service-account", "mixtune-launcher"]
    assert main([*words, *REQUIRED, "customer_data_percent=75", "seed=7", *options]) == 0
    (body,) = kubeflow.bodies
    assert body["runtime_config"] == {
        "parameters": {
            "customer_uri": "s3://b/c.csv",
            "general_pools": [{"category": "chat", "uri": "s3://b/g", "weight": 100}],
            "base_model": "s3://b/m",
            "customer_data_percent": 75.0,
            "seed": 7,
        },
        "pipeline_root": "s3://b/kfp",
    }
    assert body["experiment_id"] == "e1"
    assert body["service_account"] == "mixtune-launcher"
    assert body["display_name"].startswith("finetune ")
    assert set(body) == {"runtime_config", "experiment_id", "service_account", "display_name", "pipeline_spec"}
    shipped = Path(__file__).parents[1] / "pipelines" / "finetune.yaml"
    expected = shipped.read_text()
    for part in ("data", "train", "evaluate"):
        name = f"mixtune-python-{part}:0.1.0"
        expected = expected.replace(name, f"r.example.com/team/{name}@sha256:{'ab' * 32}")
    spec = body["pipeline_spec"]
    assert [spec["pipeline_spec"], spec["platform_spec"]] == list(yaml.safe_load_all(expected))
    assert f"run: {kubeflow.url}/#/runs/details/run-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (["sed=1"], 2, "finetune has no parameter 'sed'; did you mean 'seed'?"),
        (["max_steps=many"], 2, "max_steps is a whole number; got 'many'"),
        (["gpus_per_node=8", "--like", "run-9"], 1, "run run-9: not there (404); `mixtune runs --host ...` lists"),
        (["seed=13"], 1, "the submission: Kubeflow Pipelines refused it (400): parameter seed: 13 is not allowed here"),
        (["--token-file", "nowhere"], 2, "--token-file nowhere: cannot be read"),
    ],
)
def test_a_wrong_submission_is_refused_in_words(
    words: list[str], wrong: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *REQUIRED, *wrong]) == code
    assert said in capsys.readouterr().err


def test_a_wrong_parameter_never_reaches_the_server(kubeflow: Kubeflow, words: list[str]) -> None:
    assert main([*words, *REQUIRED, "customer_epochs=two"]) == 2
    assert kubeflow.bodies == []


def test_a_server_that_is_not_there_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[words.index("--host") + 1] = "http://127.0.0.1:9"
    assert main([*words, *REQUIRED]) == 1
    assert "Kubeflow Pipelines does not answer (MaxRetryError); check --host" in capsys.readouterr().err


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 3), ("inconclusive", 4)])
def test_waiting_shows_every_task_and_ends_with_the_verdicts_code(
    words: list[str], bucket: str, verdict: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(bucket, verdict)
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp", "--wait"]) == code
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        "fingerprint: running", "fingerprint: succeeded", "train-lora: running",
        "train-lora: succeeded", "compare: succeeded", verdict,
    ]  # fmt: skip


def test_a_run_that_failed_ends_with_one_and_says_which_task_and_why(
    kubeflow: Kubeflow, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.ends = "FAILED"
    assert main([*words, *REQUIRED, "--wait"]) == 1
    assert "run run-1 ended as failed: compare: GPU out of memory" in capsys.readouterr().err


def test_a_run_that_was_terminated_does_not_keep_one_waiting(
    kubeflow: Kubeflow, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.ends = "CANCELED"
    assert main([*words, *REQUIRED, "--wait"]) == 1
    assert "run run-1 ended as canceled" in capsys.readouterr().err


def test_a_verdict_that_cannot_be_read_is_no_pass(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, *REQUIRED, "--wait"]) == 1
    assert "its verdict cannot be read" in capsys.readouterr().err


def test_the_verdict_comes_from_mlflow_where_runs_are_tracked(
    kubeflow: Kubeflow,
    words: list[str],
    mlflow_uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlflow import MlflowClient

    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    client = MlflowClient(tracking_uri=mlflow_uri)
    tags = {"pipeline_run_id": "run-1", "verdict": "fail", "cost_usd": "275.20"}
    client.create_run(client.create_experiment("mixtune"), tags=tags)
    assert main([*words, *REQUIRED, "customer_data_percent=75", "--wait"]) == 3
    capsys.readouterr()
    assert main(["runs", "--host", kubeflow.url]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.split() == ["run-1", "2026-11-25", "10:00", "75", "%", "fail", "$275.20"]


def test_an_expired_token_is_renewed_from_its_file_while_waiting(
    kubeflow: Kubeflow, words: list[str], bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(bucket, "pass")
    file = tmp_path / "token"
    file.write_text("old\n")
    kubeflow.token, kubeflow.expires_at_look = "old", 1
    words += ["--token-file", str(file), "--pipeline-root", f"{bucket}/kfp", "--wait"]
    assert main([*words, *REQUIRED]) == 1
    said = capsys.readouterr().err
    assert "the token is not accepted, or no longer (401); log in again" in said
    assert f"the run goes on, follow it with: mixtune follow run-1 --host {kubeflow.url}" in said
    file.write_text("new\n")
    follow = ["follow", "run-1", "--host", kubeflow.url, "--token-file", str(file), "--poll", "0.01"]
    assert main(follow) == 0


def test_an_earlier_run_is_run_again_with_one_thing_changed(kubeflow: Kubeflow, words: list[str]) -> None:
    assert main([*words, *REQUIRED, "seed=7", "customer_data_percent=75"]) == 0
    first = kubeflow.bodies[0]["runtime_config"]["parameters"]
    kubeflow.runs["run-1"]["runtime_config"]["parameters"]["seed"] = 7.0  # as KFP gives numbers back
    assert main([*words, "--like", "run-1", "customer_data_percent=50"]) == 0
    assert kubeflow.bodies[1]["runtime_config"]["parameters"] == {**first, "customer_data_percent": 50.0}
    assert isinstance(kubeflow.bodies[1]["runtime_config"]["parameters"]["seed"], int)
