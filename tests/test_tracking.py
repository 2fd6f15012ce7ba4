from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mixtune.errors import ConfigError
from mixtune.tracking import ARTICLE_TAGS, Tracking, article_tags, task_run


@pytest.fixture
def uri(mlflow_uri: str) -> str:
    return mlflow_uri


def test_tasks_of_a_pipeline_run_share_a_parent_and_a_repeated_task_its_run(
    uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-1")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    tracking = Tracking.from_options({"uri": uri, "experiment": "e", "tags": {"team": "support"}})
    (tmp_path / "report.html").write_text("hello")
    with task_run(tracking, "mix") as mix:
        mix.log_params({"seed": 1})
        mix.parent.log_artifact(tmp_path / "report.html")
    with task_run(tracking, "train") as train:
        for step in range(3):
            train.log_metrics({"loss": 1.0 / (step + 1)}, step)
        train.parent.set_tags(article_tags({"seed": 1, "mix_ratio": 0.75}, tracking))
    with task_run(tracking, "train") as again:
        assert again.run_id == train.run_id
    client = MlflowClient(uri)
    parent = client.get_run(mix.parent_id)
    assert train.parent_id == mix.parent_id
    assert set(ARTICLE_TAGS) <= set(parent.data.tags)
    assert (parent.data.tags["mix_ratio"], parent.data.tags["team"], parent.data.tags["lora_rank"]) == (
        "0.75", "support", "none",
    )  # fmt: skip
    assert [point.value for point in client.get_metric_history(train.run_id, "loss")] == [
        1.0,
        0.5,
        pytest.approx(1 / 3),
    ]
    assert client.get_run(mix.run_id).info.status == "FINISHED"
    assert [item.path for item in client.list_artifacts(mix.parent_id)] == ["report.html"]


def test_an_injected_run_is_the_parent(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = MlflowClient(uri)
    injected = client.create_run(client.create_experiment("given")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", injected)
    with task_run(Tracking(uri=uri, experiment="other"), "train") as run:
        pass
    assert run.parent_id == injected
    assert client.get_run(run.run_id).info.experiment_id == client.get_run(injected).info.experiment_id


def test_a_task_that_fails_is_marked_failed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIXTUNE_RUN_ID", raising=False)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    with pytest.raises(ValueError, match="x"), task_run(Tracking(uri=uri), "alone") as run:
        raise ValueError("x")
    assert MlflowClient(uri).get_run(run.run_id).info.status == "FAILED"


def test_without_a_uri_nothing_is_tracked_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with task_run(Tracking.from_options({}), "train") as run:
        run.log_metrics({"loss": 1.0})
    assert "no tracking URI, train is not tracked" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="unknown key 'url'"):
        Tracking.from_options({"url": "x"})


def test_a_parent_ends_with_its_run_and_keeps_the_values_that_a_training_set(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-1")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    tracking, client = Tracking(uri=uri), MlflowClient(uri)
    with task_run(tracking, "train") as train:
        train.parent.set_tags(article_tags({"lora_rank": 16, "lr": 2e-4}, tracking))
    with task_run(tracking, "compare") as compare:
        compare.parent.set_tags(article_tags({"mix_ratio": 0.75}, tracking))
    parent = client.get_run(train.parent_id)
    assert [parent.data.tags[name] for name in ("lora_rank", "lr", "mix_ratio", "lora_lr")] == [
        "16", "0.0002", "0.75", "none",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="x"), task_run(tracking, "outcome"):
        raise ValueError("x")
    assert client.get_run(train.parent_id).info.status == "FAILED"
    with task_run(tracking, "outcome") as again:
        assert client.get_run(train.parent_id).info.status == "RUNNING", "a task that is tried again opens it"
    again.parent.end("FINISHED")
    assert client.get_run(train.parent_id).info.status == "FINISHED"


def test_sagemakers_plug_in_takes_no_part_where_the_address_is_no_arn(uri: str) -> None:
    from mlflow.tracking.request_header import registry

    with task_run(Tracking(uri=uri), "train"):
        pass
    modules = [type(item).__module__ for item in registry._request_header_provider_registry]
    assert not [module for module in modules if module.startswith("sagemaker_mlflow")]


def test_tasks_that_write_the_same_at_the_same_moment_both_succeed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-2")
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    params = {f"rule/{number}": number for number in range(40)}
    rounds = 12

    def write(together: Barrier) -> None:
        for number in range(rounds):
            with task_run(Tracking(uri=uri), f"sanitize {number}") as run:
                together.wait(timeout=60)
                run.log_params(params)
                run.set_tags({f"pool {number}": "customer"})

    together = Barrier(2)
    with ThreadPoolExecutor(2) as pool:
        for task in [pool.submit(write, together) for _ in range(2)]:
            task.result()
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("mixtune").experiment_id], "params.`rule/1` = '1'")
    assert len(runs) == rounds
    assert all(len(run.data.params) == len(params) for run in runs)


def test_a_write_that_can_never_succeed_is_not_tried_again(uri: str) -> None:
    with task_run(Tracking(uri=uri), "train") as run:
        run.log_params({"seed": 1})
        with pytest.raises(MlflowException, match="seed"):
            run.log_params({"seed": 2})


def test_an_experiment_opens_on_its_training_runs_and_a_task_that_another_logs_keeps_its_own_time(uri: str) -> None:
    client = MlflowClient(uri)
    client.create_experiment("older")
    for name in ("older", "newer"):
        with task_run(Tracking(uri=uri, experiment=name), "evaluate-base", seconds=90.0) as run:
            pass
        experiment = client.get_experiment_by_name(name)
        assert experiment is not None and experiment.tags["mlflow.experimentKind"] == "custom_model_development"
        info = client.get_run(run.run_id).info
        assert 89_000 < info.end_time - info.start_time < 120_000


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"experiment": "e" * 251}, "experiment is a name of at most 250 characters; got 251: 'eeee"),
        ({"tags": {"team?": "support"}}, r"MLflow takes no tag 'team\?'.*take 'team_'"),
        ({"tags": {"team/../x": "support"}}, "MLflow takes no tag 'team/../x'.*take 'team/__/x'"),
        ({"tags": {"t" * 251: "x"}}, "MLflow takes no tag 'ttt"),
        ({"tags": {"note": "x" * 8001}}, "note has 8,001 characters; MLflow takes 8,000"),
        ({"project": "x" * 8001}, "project has 8,001 characters"),
    ],
)
def test_what_mlflow_would_refuse_later_is_refused_at_once(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Tracking.from_options(options)


def test_names_and_values_of_any_text_are_taken(uri: str) -> None:
    tags = {"team:Süd/a b": "x" * 8000, "n" * 250: "y"}
    tracking = Tracking.from_options({"uri": uri, "experiment": "Süd / '25 `x` %" + "e" * 200, "tags": tags})
    names = ["c++ (100 %)", "..", "a//b", "/", "n/a", "x" * 300 + "1", "x" * 300 + "2", ""]
    with task_run(tracking, "compare") as run:
        run.log_metrics({f"axis/{name}": 1.0 for name in names})
        run.log_params(dict.fromkeys(names, "v" * 9000))
        run.set_tags({**{f"verdict.{name}": "v" * 9000 for name in names}, **tracking.tags})
    data = MlflowClient(uri).get_run(run.run_id).data
    assert len(data.metrics) == len(data.params) == len(names)
    assert len([name for name in data.tags if name.startswith("verdict")]) == len(names)
    assert set(tags) <= set(data.tags)
