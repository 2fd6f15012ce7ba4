"""Held-out general records: what a training sees of what it forgets, and when it ends for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mixtune import storage
from mixtune.artifacts.model import read_model
from mixtune.artifacts.shards import Shards, TokenRecord, open_shards
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError, TrainingError
from mixtune.train import forgetting_monitor
from mixtune.train.batches import pack
from mixtune.train.distributed import SINGLE_PROCESS
from mixtune.train.metrics import StepMetrics
from mixtune.train.modeling.trainable import load_trainable
from mixtune.train.run import make_monitor
from mixtune.train.trainer import Trainer, make_trainer

from .conftest import settings

Train = Callable[..., str]
FORGETTING = {
    "learning_rate": 3e-3,
    "lora_options": {"lora_plus_ratio": 1.0},
    "checkpoints": {"every_steps": 3},
    "schedule": {"warmup_ratio": 0.0},
}


@pytest.mark.parametrize("top", [8, 5000])
def test_the_monitor_measures_nll_and_divergence_from_the_base(
    top: int, draw_records: Callable[[int, int], list[TokenRecord]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting_monitor, "TOP", top)
    records = draw_records(6, 5)
    model = load_trainable(BASE_MODEL, settings(method="sft"))
    monitor = forgetting_monitor.ForgettingMonitor(records, model.loss, 40)
    packed = pack(records)

    def log_probabilities() -> torch.Tensor:
        with torch.no_grad():
            return model.loss(packed, lambda logits, _: logits.log_softmax(-1)).double()

    before = log_probabilities()
    assert monitor.base.kl == pytest.approx(0.0, abs=1e-9)
    assert monitor.base.nll == pytest.approx(float(model.loss(packed).detach().mean()), abs=1e-5)
    with torch.no_grad():
        for value in model.parameters().values():
            value.add_(torch.randn_like(value) * 0.01)
    after, holdout = log_probabilities(), monitor.evaluate()
    whole = float((before.exp() * (before - after)).sum(1).mean())
    assert model.causal.training
    assert holdout.nll == pytest.approx(float(model.loss(packed).detach().mean()), abs=1e-5)
    assert 0.02 < holdout.kl <= whole + 1e-6
    if top == 5000:
        assert holdout.kl == pytest.approx(whole, abs=1e-5)


def test_the_base_model_passes_its_held_out_records_once(draw_records: Callable[[int, int], list[TokenRecord]]) -> None:
    model, lengths = load_trainable(BASE_MODEL, settings(method="sft")), []
    model.loss.register_forward_pre_hook(lambda _, inputs: lengths.append(len(inputs[0].input_ids)))
    records = draw_records(6, 5)
    monitor = forgetting_monitor.ForgettingMonitor(records, model.loss, 40)
    assert sum(lengths) == sum(len(record.input_ids) for record in records)
    assert monitor.evaluate() == monitor.base


def test_on_a_cpu_held_out_records_are_packed_no_longer_than_attention_is_cheap(
    draw_records: Callable[[int, int], list[TokenRecord]],
    watched_shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attention looks at a whole packed row: at half the crossover length it costs half as much as the matrices."""
    model = load_trainable(BASE_MODEL, settings(method="sft"))
    trainer = make_trainer(open_shards(watched_shards, tmp_path), model, settings(method="sft"), SINGLE_PROCESS)
    assert trainer.max_micro_tokens > model.crossover_length // 2
    monkeypatch.setattr(Shards, "holdout", lambda shards: draw_records(200, 5))
    monitor = make_monitor(trainer)
    assert monitor
    assert max(len(packed.input_ids) for packed in monitor._packed) <= model.crossover_length // 2


def test_a_training_that_forgets_too_much_ends_with_the_newest_weights_within_the_limit(
    train: Train,
    watched_shards: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights: dict[int, dict[str, torch.Tensor]] = {}

    def remember(trainer: Trainer, metrics: StepMetrics) -> None:
        parameters = trainer.model.parameters()
        weights[metrics.step] = {name: value.detach().clone() for name, value in parameters.items()}

    train(tmp_path / "free", watched_shards, **FORGETTING)
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if "general NLL" in line]
    nll = {int(words[2].rstrip(":")): float(words[6].rstrip(",")) for words in lines}
    assert sorted(nll) == [3, 6, 9, 12]
    figures = read_model(str(tmp_path / "free" / "model")).figures
    assert figures and figures.base_general_nll
    base = figures.base_general_nll
    assert base < nll[3] < nll[6] < nll[9]
    limit = (nll[6] + nll[9]) / 2 - base
    uri = train(tmp_path / "limited", watched_shards, remember, guards={"max_nll_rise": limit}, **FORGETTING)
    assert "step 9: the NLL of held-out general records rose" in capsys.readouterr().out
    saved = load_file(Path(storage.check_fingerprint(uri)) / "adapter_model.safetensors")
    expected = {name.replace(".default", ""): value for name, value in weights[6].items()}
    assert all(torch.equal(value, expected[name]) for name, value in saved.items())
    figures = read_model(str(tmp_path / "limited" / "model")).figures
    assert figures and figures.kept_step == 6


def test_a_training_that_forgets_too_much_at_once_leaves_no_model(
    train: Train, watched_shards: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"step 3: the NLL of held-out .* no checkpoint is within; lower"):
        train(tmp_path, watched_shards, guards={"max_nll_rise": 1e-6}, **FORGETTING)
    assert not (tmp_path / "model").exists()


def test_a_limit_on_forgetting_without_a_record_to_see_it_by_is_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_nll_rise: the shards hold no held-out general records"):
        train(tmp_path, guards={"max_nll_rise": 0.5})
