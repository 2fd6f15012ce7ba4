"""The validation run: what it measures, and what it stops."""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from mixtune import storage
from mixtune.artifacts.shards import open_shards
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import TrainingError
from mixtune.train import validation
from mixtune.train.distributed import World
from mixtune.train.loop import Trainer, make_trainer
from mixtune.train.metrics import StepFigures, peak_operations
from mixtune.train.modeling.model import load_trainable

from .conftest import settings

Train = Callable[..., str]


@pytest.fixture
def trainer(shards_path: str, tmp_path: Path) -> Trainer:
    config = settings(method="sft", validation_steps=3)
    return make_trainer(open_shards(shards_path, tmp_path), load_trainable(BASE_MODEL, config), config, World())


def test_its_figures_are_those_that_a_plan_is_made_of(train: Train, tmp_path: Path) -> None:
    assert train(tmp_path, validation_steps=4, lora_options={"lora_plus_ratio": 10.0}) == ""
    figures = storage.read_manifest(str(tmp_path / "model"), "model")["figures"]
    assert figures["first_batch_loss_after"] < figures["first_batch_loss"]
    assert figures["tokens_per_second_per_gpu"] > 10
    assert figures["largest_micro_batch_tokens"] == 6 * 29
    assert 1e8 < figures["peak_memory_bytes"] < figures["memory_limit_bytes"]
    assert figures["bytes_per_token"] >= 0


def test_a_micro_batch_is_never_larger_than_the_longest_records_allow(trainer: Trainer) -> None:
    trainer.shards.manifest["max_record_tokens"] = 100
    assert validation.longest_micro_batch(trainer) == (100, 600)
    trainer.shards.manifest["max_record_tokens"] = 20_000
    assert validation.longest_micro_batch(trainer) == (20_000, 20_000)


def test_what_cannot_fit_by_what_was_measured_is_not_even_tried(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []
    peaks = iter([2e9, 3e9])
    monkeypatch.setattr(validation, "_try", lambda _trainer, _longest, tokens: tried.append(tokens))
    monkeypatch.setattr(validation, "peak_memory", lambda _device: next(peaks))
    monkeypatch.setattr(validation, "memory_limit", lambda _device: 4.5e9)
    monkeypatch.setattr(validation, "longest_micro_batch", lambda _trainer: (50, 400))
    with pytest.raises(
        TrainingError,
        match=r"400 tokens does not fit into 4.5 GB, it takes about 5.0 GB; the way out is more or larger GPUs or "
        r"max_tokens_per_gpu or method lora",
    ):
        validation.measure_memory(trainer)
    assert tried == [100, 200]


@pytest.fixture
def little_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_memory_that_runs_out_in_the_trial_is_said_in_words(
    trainer: Trainer, little_memory: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "longest_micro_batch", lambda _trainer: (48_000, 48_000))
    with pytest.raises(TrainingError, match=r"12,000 tokens does not fit into .* GB, it takes more than that"):
        validation.measure_memory(trainer)


def test_a_trial_leaves_nothing_behind(trainer: Trainer) -> None:
    before = {name: value.detach().clone() for name, value in trainer.model.parameters().items()}
    validation.measure_memory(trainer)
    assert all(value.grad is None for value in trainer.model.parameters().values())
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.parameters().items())


def test_arithmetic_is_counted_by_the_models_shape_and_gives_mfu_where_the_peak_is_known(trainer: Trainer) -> None:
    config = trainer.model.causal.config
    layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    matrices = config.num_hidden_layers * layer + config.vocab_size * config.hidden_size
    per_token = 6 * (matrices + config.num_hidden_layers * config.hidden_size * 50)
    assert trainer.model.operations(50) == 50 * per_token
    adapted = load_trainable(BASE_MODEL, settings())
    assert adapted.operations(50) == pytest.approx(4 / 6 * 50 * per_token)
    named: dict[str, Any] = {name: 1.0 for name in ("loss", "grad_norm", "learning_rate", "memory_bytes")}
    figures = StepFigures(
        **named,
        step=1,
        num_tokens=100,
        num_loss_tokens=50,
        seconds={"forward": 1.5, "step": 0.5},
        num_ranks=4,
        operations=8e12,
        peak_operations=2e12,
        pool_losses={},
    )
    assert figures.metrics()["tflops_per_gpu"] == 1.0
    assert figures.metrics()["mfu"] == 0.5
    assert peak_operations(torch.device("cpu")) == 0
