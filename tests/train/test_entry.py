"""What a training's shell does besides: checks of the mixed data before a validation run, a page, figures."""

import re
from pathlib import Path

import pytest
import torch

from mixtune.artifacts.model import read_model
from mixtune.errors import ConfigError
from mixtune.settings.job import NodeSettings
from mixtune.train import entry
from mixtune.train.distributed import STEP_PATIENCE, join_process_group
from mixtune.train.task import TrainTask

from .conftest import task_in


class Shown:
    """The metrics' artifact."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.values: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.values[metric] = value


def run(task: TrainTask, folder: Path, on_error: str) -> str:
    page = entry.TrainPage(path=str(folder / "page.html"), train_options={}, tracking={}, storage={})
    return entry.train_or_report(task, NodeSettings(), "", on_error, Shown(folder / "metrics"), page)


def test_data_that_fails_its_checks_is_neither_validated_nor_trained_on(
    tmp_path: Path, shards_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "run_here", lambda task: pytest.fail("a model was loaded"))
    task = task_in(tmp_path, shards_path, validation_steps=5)
    with pytest.raises(ConfigError, match=r"checks failed:\n- personal data: no report on personal data of customer"):
        run(task, tmp_path, "raise")
    assert "no report on personal data" in (tmp_path / "page.html").read_text()
    answer = run(task, tmp_path, "report")
    assert answer.startswith("failed: 2 of 6 checks failed: - personal data: ")
    assert read_model(task.outputs.model_path).failed == answer.removeprefix("failed: ")


def test_an_adapter_that_cannot_be_made_is_refused_before_a_model_is_loaded(
    tmp_path: Path, shards_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "run_here", lambda task: pytest.fail("a model was loaded"))
    options = {"target_modules": ["q_proj", "nowhere"]}
    task = task_in(tmp_path, shards_path, validation_steps=5, lora_options=options)
    with pytest.raises(ConfigError, match=r"- adapter: lora_options: target_modules: nothing is named 'nowhere'"):
        run(task, tmp_path, "raise")


def test_a_training_leaves_its_figures_as_metrics_and_as_a_page(tmp_path: Path, watched_shards: str) -> None:
    assert run(task_in(tmp_path, watched_shards), tmp_path, "raise")
    text = (tmp_path / "page.html").read_text()
    assert "<h1>Training</h1>" in text and "final loss" in text
    assert re.search(r"peak memory</td><td[^>]*>\d+\.\d\d GB<", text) and ".0<" not in text
    assert '"final_loss": ' in (tmp_path / "metrics").read_text()
    curves = read_model(str(tmp_path / "model")).curves
    assert curves[-1].name == "general, held out" and curves[-1].steps == (0, 2, 4, 6, 8, 10, 12)
    assert all(curve.name in text for curve in curves) and text.count("<polyline") == len(curves)


def test_a_process_connects_to_the_others_by_its_own_gpu_and_with_little_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class JoinedError(Exception):
        pass

    def join(backend: str, **options: object) -> None:
        assert backend == "cpu:gloo,cuda:nccl"
        assert options == {"device_id": torch.device("cuda", 3), "timeout": STEP_PATIENCE}
        raise JoinedError

    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", join)
    with pytest.raises(JoinedError), join_process_group():
        pass
