"""What MLflow shows of a training: while it runs, and of where it came from."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from mixtune.artifacts.pools import MixedPools
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.train import metrics

from .test_checkpoints import interrupted

Train = Callable[..., str]


def test_a_training_that_was_cut_and_went_on_shows_one_curve_and_its_lineage(
    train: Train, watched_shards: str, mlflow_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-1")
    shards = read_artifact(ShardsManifest, watched_shards)
    shards = replace(shards, mix_ratio=0.5, inputs={"customer": MixedPools(digest="abc")})
    write_artifact(str(tmp_path / "shards"), shards)
    options = {"tracking": mlflow_uri, "checkpoints": {"every_steps": 4}}
    interrupted(train, tmp_path, 5, shards=str(tmp_path / "shards"), **options)
    model = train(tmp_path, str(tmp_path / "shards"), **options)
    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("mixtune")
    (run,) = [run for run in client.search_runs([experiment.experiment_id]) if run.info.run_name == "train 50 %"]

    def steps(name: str) -> list[int]:
        return [item.step for item in client.get_metric_history(run.info.run_id, name)]

    assert sorted(set(steps("loss/customer")) | set(steps("loss/chat"))) == list(range(1, 13))
    curve = {(item.step, item.value) for item in client.get_metric_history(run.info.run_id, "loss")}
    assert sorted(step for step, _ in curve) == list(range(1, 13))
    assert set(steps("general_nll")) == {0, 4, 8, 12}
    named = {f"seconds/{phase}" for phase in ("data", "forward", "backward", "step")}
    named |= {"tokens", "loss_tokens", "learning_rate", "grad_norm", "tokens_per_second_per_gpu", "tflops_per_gpu"}
    assert named | {"memory_bytes", "kl_to_base"} <= set(run.data.metrics)
    tags = run.data.tags
    assert (tags["attempts"], tags["model_uri"], tags["customer_pools"]) == ("[0, 4]", model, "abc")
    assert tags["shards"] == shards.digest
    assert [item.path for item in client.list_artifacts(run.info.run_id)] == ["mix_receipt.json"]


class Slow:
    """A run that notes when it is told what."""

    def __init__(self) -> None:
        self.told: list[list[int]] = []

    def log_steps(self, steps: dict[int, dict[str, float]]) -> None:
        self.told.append(list(steps))


def test_slow_steps_are_told_and_printed_before_there_are_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter(range(0, 10_000, 8))
    monkeypatch.setattr(metrics.time, "monotonic", lambda: float(next(now)))
    named: dict[str, Any] = dict.fromkeys(
        ("loss", "grad_norm", "learning_rate", "memory_bytes", "operations", "peak_operations"), 1.0
    )
    steps = (
        metrics.StepMetrics(
            **named, step=step, num_tokens=9, num_loss_tokens=9, seconds={"step": 8.0}, num_ranks=1, pool_losses={}
        )
        for step in range(1, 21)
    )
    run: Any = Slow()
    metrics.track(steps, 2000, run)
    assert max(len(told) for told in run.told) <= 2
    assert [step for told in run.told for step in told] == list(range(1, 21))
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()] == ["1/2000", "9/2000", "17/2000"]
