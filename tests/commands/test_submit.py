"""`mixtune submit`, with the real KFP client, against a server that answers as KFP's API does."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from mixtune import storage
from mixtune.cli import main
from mixtune.commands.arguments import find_pipeline

REQUIRED = [
    "customer_uri=s3://b/c.csv",
    'general_pools=[{"category": "chat", "uri": "s3://b/g", "weight": 100}]',
    "base_model=s3://b/m",
]


@pytest.fixture
def words(kubeflow: Any, tmp_path: Path) -> list[str]:
    listed = {f"mixtune-python-{part}": f"sha256:{'ab' * 32}" for part in ("data", "train", "evaluate")}
    (tmp_path / "images.json").write_text(json.dumps(listed))
    return [
        "submit", "finetune", "--host", kubeflow.url, "--registry", "r.example.com/team", "--namespace", "team",
        "--digests", str(tmp_path / "images.json"), "--poll", "0.01", "--patience", "2",
    ]  # fmt: skip


def finished(bucket: str, verdict: str, run_id: str = "run-1") -> None:
    storage.write_json(f"{bucket}/kfp/finetune/{run_id}/compare/7/comparison", {"verdict": verdict, "axes": []})


def test_what_is_sent_is_the_compiled_pipeline_its_arguments_and_nothing_else(
    kubeflow: Any, words: list[str], capsys: pytest.CaptureFixture[str]
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
    expected = find_pipeline("finetune").read_text()
    for part in ("data", "train", "evaluate"):
        name = f"mixtune-python-{part}:0.1.0"
        expected = expected.replace(name, f"r.example.com/team/{name}@sha256:{'ab' * 32}")
    spec = body["pipeline_spec"]
    assert [spec["pipeline_spec"], spec["platform_spec"]] == list(yaml.load_all(expected, yaml.CSafeLoader))
    assert f"run: {kubeflow.url}/#/runs/details/run-1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "code", "said"),
    [
        (["sed=1"], 2, "finetune has no parameter 'sed'; did you mean 'seed'?"),
        (["max_steps=many"], 2, "max_steps is a whole number; got 'many'"),
        (["gpus_per_node=8", "--like", "run-9"], 1, "run run-9: not there (404); `mixtune runs --host ...` lists"),
        (["seed=13"], 1, "the submission: Kubeflow Pipelines refused it (400): parameter seed: 13 is not allowed here"),
        (
            ["mix_options.chat_template_uri=/t.jinja"],
            2,
            "cannot read paths of this machine: mix_options.chat_template_",
        ),
        (["test_uri=t.csv"], 2, "test_uri 't.csv'; upload them"),
        (['benchmarks={"mmlu": {"max_drop": 0.01}}'], 2, "benchmarks.mmlu has no uri, so nothing would be measured"),
        (["--digests", "nowhere"], 2, "--digests nowhere: cannot be read as a JSON object"),
        (["--token-file", "nowhere"], 2, "--token-file nowhere: cannot be read"),
    ],
)
def test_a_wrong_submission_is_refused_in_words(
    words: list[str], wrong: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, *REQUIRED, *wrong]) == code
    assert said in capsys.readouterr().err


def test_a_wrong_parameter_never_reaches_the_server(kubeflow: Any, words: list[str]) -> None:
    assert main([*words, *REQUIRED, "customer_epochs=two"]) == 2
    assert kubeflow.bodies == []


def test_an_image_without_a_digest_is_named_before_the_server_is_asked(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images.json").write_text("{}")
    words[words.index("--host") + 1] = "http://127.0.0.1:9"
    assert main([*words, *REQUIRED]) == 2
    assert "no digest of mixtune-python-" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_named(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words[words.index("--host") + 1] = "http://127.0.0.1:9"
    assert main([*words, *REQUIRED]) == 1
    assert (
        "Kubeflow Pipelines does not answer ([Errno 111] Connection refused); check --host" in capsys.readouterr().err
    )


@pytest.mark.parametrize(("verdict", "code"), [("pass", 0), ("fail", 3), ("inconclusive", 4)])
def test_waiting_shows_every_task_and_ends_with_the_verdicts_code(
    words: list[str], bucket: str, verdict: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(bucket, verdict)
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp", "--wait"]) == code
    lines = [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        "fingerprint: running", "fingerprint: succeeded in 10 s", "train: running",
        "train: succeeded in 10 s", "compare: running", "compare: succeeded in 10 s", verdict,
    ]  # fmt: skip


def test_a_run_that_failed_ends_with_one_and_says_which_task_and_why(
    kubeflow: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.ends = "FAILED"
    assert main([*words, *REQUIRED, "--wait"]) == 1
    said = capsys.readouterr()
    assert "run run-1 ended as failed: compare: Error (exit code 1)" in said.err
    assert "webhook: none" in said.out  # a run that fails never reaches the task that tells it


def test_of_a_run_that_failed_the_webhook_hears_its_state_and_page(
    kubeflow: Any, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []
    monkeypatch.setattr("mixtune.commands.follow.send", told.append)
    kubeflow.ends = "FAILED"
    assert main([*words, *REQUIRED, "--wait"]) == 1
    page = f"{kubeflow.url}/#/runs/details/run-1"
    assert [(item["text"], item["verdict"], item["links"]) for item in told] == [
        ("finetune run-1: failed", "failed", {"run": page})
    ]


def test_a_run_that_was_terminated_does_not_keep_one_waiting(
    kubeflow: Any, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    kubeflow.ends = "CANCELED"
    assert main([*words, *REQUIRED, "--wait"]) == 1
    assert "run run-1 ended as canceled" in capsys.readouterr().err


def test_a_verdict_that_cannot_be_read_is_no_pass(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, *REQUIRED, "--wait"]) == 1
    assert "its verdict cannot be read" in capsys.readouterr().err


def test_the_verdict_comes_from_mlflow_where_runs_are_tracked(
    kubeflow: Any,
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
    assert line.split() == ["run-1", "2026-11-25", "10:00", "-", "-", "75", "%", "-", "fail", "-", "$275.20"]


def test_an_expired_token_is_renewed_from_its_file_while_waiting(
    kubeflow: Any, words: list[str], bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
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


@pytest.mark.parametrize("namespace", ["team", "kubeflow"])  # with the default one, the client asks for its health
def test_a_run_is_followed_on_where_kubeflow_was_silent_for_as_many_looks_as_allowed(
    namespace: str, kubeflow: Any, words: list[str], bucket: str
) -> None:
    finished(bucket, "pass")
    kubeflow.deaf_at_look, kubeflow.deaf_for = 1, 8  # the client asks four times a look
    words[words.index("team")] = namespace
    assert main([*words, *REQUIRED, "--pipeline-root", f"{bucket}/kfp", "--wait"]) == 0
    assert not kubeflow.deaf_for


def test_a_run_that_is_not_there_is_told_of_at_the_first_look(
    kubeflow: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["follow", "run-9", "--host", kubeflow.url, "--namespace", "team"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("mixtune: run run-9: not there (404)")
    assert "the run goes on" not in said


def test_a_health_check_that_is_refused_names_the_host_and_no_path(
    kubeflow: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeflow.token = "another"
    monkeypatch.setattr("kfp.client.client.time.sleep", lambda seconds: None)
    assert main(["runs", "--host", kubeflow.url]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"mixtune: {kubeflow.url}: Kubeflow Pipelines does not answer (Failed getting healthz")
    assert said.endswith("check --host and --token-file")


def test_an_earlier_run_is_run_again_with_one_thing_changed(kubeflow: Any, words: list[str]) -> None:
    assert main([*words, *REQUIRED, "seed=7", "customer_data_percent=75"]) == 0
    first = kubeflow.bodies[0]["runtime_config"]["parameters"]
    kubeflow.runs["run-1"]["runtime_config"]["parameters"]["seed"] = 7.0  # as KFP gives numbers back
    assert main([*words, "--like", "run-1", "customer_data_percent=50"]) == 0
    assert kubeflow.bodies[1]["runtime_config"]["parameters"] == {**first, "customer_data_percent": 50.0}
    assert isinstance(kubeflow.bodies[1]["runtime_config"]["parameters"]["seed"], int)


def test_a_pipeline_of_ones_own_that_may_be_served_old_results_is_warned_of(
    kubeflow: Any, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = find_pipeline("finetune").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("preflight.fingerprint", "preflight.other"))
    command = [words[0], str(own), *words[2:], *REQUIRED]
    assert main(command) == 0
    assert "warning: own has no task `fingerprint`: KFP's cache does not see new bytes" in capsys.readouterr().err
    assert main([*command, "--no-cache"]) == 0
    assert main([*words, *REQUIRED]) == 0
    assert "fingerprint" not in capsys.readouterr().err
