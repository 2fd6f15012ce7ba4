"""Held-out general records: what a training sees of what it forgets, and when it ends for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mixtune import storage
from mixtune.artifacts.shards import TokenRecord
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError, TrainingError
from mixtune.train import forgetting_monitor
from mixtune.train.batches import pack
from mixtune.train.checkpoints import Checkpoints
from mixtune.train.modeling.model import load_trainable

from .conftest import settings

Train = Callable[..., str]
FORGETTING = {
    "learning_rate": 3e-3,
    "lora_options": {"lora_plus_ratio": 1.0},
    "checkpoints": {"every_steps": 3},
    "schedule": {"warmup_ratio": 0.0},
}


@pytest.mark.parametrize("top", [8, 5000])
def test_the_watch_sees_nll_and_divergence_from_the_base(
    top: int, draw_records: Callable[[int, int], list[TokenRecord]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting_monitor, "TOP", top)
    records = draw_records(6, 5)
    model = load_trainable(BASE_MODEL, settings(method="sft"))
    looking = forgetting_monitor.Watch(records, model.loss, 40)
    packed = pack(records)

    def log_probabilities() -> torch.Tensor:
        with torch.no_grad():
            return model.loss(packed, lambda logits, _: logits.log_softmax(-1)).double()

    before = log_probabilities()
    assert looking.base.kl == pytest.approx(0.0, abs=1e-9)
    assert looking.base.nll == pytest.approx(float(model.loss(packed).detach().mean()), abs=1e-5)
    with torch.no_grad():
        for value in model.parameters().values():
            value.add_(torch.randn_like(value) * 0.01)
    after, seen = log_probabilities(), looking.look()
    whole = float((before.exp() * (before - after)).sum(1).mean())
    assert model.causal.training
    assert seen.nll == pytest.approx(float(model.loss(packed).detach().mean()), abs=1e-5)
    assert 0.02 < seen.kl <= whole + 1e-6
    if top == 5000:
        assert seen.kl == pytest.approx(whole, abs=1e-5)


def test_a_training_that_forgets_too_much_ends_with_the_newest_weights_within_the_limit(
    train: Train,
    watched_shards: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    kept: dict[int, dict[str, torch.Tensor]] = {}
    save = Checkpoints.save

    def remember(self: Checkpoints, done: int, model: Any, *others: Any, **named: Any) -> None:
        kept[done] = {name: value.detach().clone() for name, value in model.parameters().items()}
        save(self, done, model, *others, **named)

    monkeypatch.setattr(Checkpoints, "save", remember)
    train(tmp_path / "free", watched_shards, **FORGETTING)
    figures = [line.split() for line in capsys.readouterr().out.splitlines() if "general NLL" in line]
    nll = {int(words[2].rstrip(":")): float(words[6].rstrip(",")) for words in figures}
    assert sorted(nll) == [3, 6, 9, 12]
    base = storage.read_manifest(str(tmp_path / "free" / "model"), "model")["figures"]["base_general_nll"]
    assert base < nll[3] < nll[6] < nll[9]
    limit = (nll[6] + nll[9]) / 2 - base
    kept.clear()
    uri = train(tmp_path / "limited", watched_shards, guards={"max_nll_rise": limit}, **FORGETTING)
    assert "step 9: the NLL of held-out general records rose" in capsys.readouterr().out
    saved = load_file(Path(storage.check_fingerprint(uri)) / "adapter_model.safetensors")
    wanted = {name.replace(".default", ""): value for name, value in kept[6].items()}
    assert all(torch.equal(value, wanted[name]) for name, value in saved.items())
    assert storage.read_manifest(str(tmp_path / "limited" / "model"), "model")["figures"]["kept_step"] == 6


def test_a_training_that_forgets_too_much_at_once_leaves_no_model(
    train: Train, watched_shards: str, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"step 3: the NLL of held-out .* no checkpoint is within; lower"):
        train(tmp_path, watched_shards, guards={"max_nll_rise": 1e-6}, **FORGETTING)
    assert not (tmp_path / "model").exists()


def test_a_limit_on_forgetting_without_a_record_to_see_it_by_is_refused(train: Train, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="max_nll_rise: the shards hold no held-out general records"):
        train(tmp_path, guards={"max_nll_rise": 0.5})
