"""The validation run: what it measures, and what it stops."""

import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from mixtune.artifacts.model import TrainingFigures, read_model
from mixtune.artifacts.shards import open_shards
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import TrainingError
from mixtune.train.checkpoints import NoCheckpoints
from mixtune.train.distributed import ProcessGroup
from mixtune.train.loop import train_steps
from mixtune.train.metrics import StepMetrics, peak_operations, summarize
from mixtune.train.modeling.room import choose_micro_tokens
from mixtune.train.modeling.trainable import load_trainable
from mixtune.train.trainer import Trainer, make_trainer
from mixtune.train.validation import MemoryProbe, measure_memory, run_validation

from .conftest import settings, task_in


@pytest.fixture
def trainer(shards_path: str, tmp_path: Path) -> Trainer:
    options = settings(method="sft")
    return make_trainer(
        open_shards(shards_path, tmp_path), load_trainable(BASE_MODEL, options), options, ProcessGroup()
    )


def figures_of(trainer: Trainer) -> TrainingFigures:
    return summarize(trainer, list(train_steps(replace(trainer, num_steps=1), NoCheckpoints(trainer.group))))


def test_its_figures_are_those_that_a_plan_is_made_of(shards_path: str, tmp_path: Path) -> None:
    task = task_in(tmp_path, shards_path, validation_steps=4, lora_options={"lora_plus_ratio": 10.0})
    assert run_validation(task).uri == ""
    figures = read_model(str(tmp_path / "model")).figures
    assert figures and figures.first_batch_loss and figures.first_batch_loss_after and figures.memory_limit_bytes
    assert figures.first_batch_loss_after < figures.first_batch_loss
    assert figures.tokens_per_second_per_gpu > 10
    assert 29 < figures.largest_micro_batch_tokens <= 6 * 29
    assert 1e8 < figures.peak_memory_bytes < figures.memory_limit_bytes
    assert figures.bytes_per_token is not None and figures.bytes_per_token >= 0


def test_the_trial_runs_the_largest_micro_batch_that_the_shards_really_hold(trainer: Trainer) -> None:
    batches = [trainer.shards.lengths(step) for step in range(trainer.shards.num_steps)]
    assert MemoryProbe.of(trainer).largest_micro_batch == max(map(sum, batches))
    small = MemoryProbe.of(replace(trainer, max_micro_tokens=40))
    assert max(map(max, batches)) <= small.largest_micro_batch <= 40
    alone = MemoryProbe.of(replace(trainer, max_micro_tokens=1))
    assert alone.lengths == (max(map(max, batches)),)


def test_micro_batches_are_as_large_as_the_memory_holds_where_the_user_leaves_it_open(trainer: Trainer) -> None:
    record = trainer.shards.step(0)[0]
    plenty, little = (choose_micro_tokens(trainer.model, record, free) for free in (64e9, 0.0))
    assert (plenty, little) == (2048, 256)
    room = [choose_micro_tokens(trainer.model, record, free) for free in (0.5e9, 1e9, 2e9)]
    assert room == sorted(room)
    given = settings(method="sft", memory={"max_tokens_per_gpu": 77})
    assert make_trainer(trainer.shards, trainer.model, given, ProcessGroup()).max_micro_tokens == 77


class GpuOfAnotherSize(MemoryProbe):
    """Takes 1 GB and 10 MB a token, and remembers what it ran."""

    ran: ClassVar[list[int]] = []

    def peak_bytes(self, num_tokens: int) -> float:
        self.ran.append(num_tokens)
        return 1e9 + 1e7 * num_tokens


def test_what_cannot_fit_by_what_was_measured_is_not_even_tried(trainer: Trainer) -> None:
    probe = GpuOfAnotherSize(trainer=trainer, lengths=(50,) * 8, limit_bytes=4.5e9)
    with pytest.raises(
        TrainingError,
        match=r"400 tokens does not fit into 4.5 GB, it takes about 5.0 GB; the way out is more or larger GPUs or "
        r"max_tokens_per_gpu or method lora",
    ):
        measure_memory(probe, figures_of(trainer))
    assert probe.ran == [100, 200]


@pytest.fixture
def little_memory() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 150 * 2**20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def test_memory_that_runs_out_in_the_trial_is_said_in_words(trainer: Trainer, little_memory: None) -> None:
    probe = replace(MemoryProbe.of(trainer), lengths=(48_000,))
    with pytest.raises(TrainingError, match=r"12,000 tokens does not fit into .* GB, it takes more than that"):
        measure_memory(probe, figures_of(trainer))


def test_a_trial_leaves_nothing_behind(trainer: Trainer) -> None:
    figures = figures_of(trainer)
    before = {name: value.detach().clone() for name, value in trainer.model.parameters().items()}
    measure_memory(MemoryProbe.of(trainer), figures)
    assert all(value.grad is None for value in trainer.model.parameters().values())
    assert all(torch.equal(value, before[name]) for name, value in trainer.model.parameters().items())


def test_arithmetic_is_counted_by_the_models_shape_and_gives_mfu_where_the_peak_is_known(trainer: Trainer) -> None:
    config = trainer.model.causal.config
    layer = 4 * config.hidden_size**2 + 3 * config.hidden_size * config.intermediate_size
    matrices = config.num_hidden_layers * layer + config.vocab_size * config.hidden_size
    per_token = 6 * (matrices + config.num_hidden_layers * config.hidden_size * 50)
    assert trainer.model.operations(50) == 50 * per_token
    adapted = load_trainable(BASE_MODEL, settings())
    assert adapted.operations(50) == pytest.approx(50 * (per_token - 2 * matrices)), "attention is not frozen"
    named: dict[str, Any] = {name: 1.0 for name in ("loss", "grad_norm", "learning_rate", "memory_bytes")}
    metrics = StepMetrics(
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
    assert metrics.series()["tflops_per_gpu"] == 1.0
    assert metrics.series()["mfu"] == 0.5
    assert peak_operations(torch.device("cpu")) == 0
