from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mixtune import storage
from mixtune.artifacts.model import read_model
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError, TrainingError
from mixtune.settings.train import ScheduleSettings
from mixtune.train.trainer import cosine_schedule
from mixtune.train.validation import run_validation

from .conftest import settings, task_in

Train = Callable[..., str]
torch.set_num_threads(1)  # bits depend on the number of threads


@pytest.fixture(scope="module", params=["lora", "sft"])
def trained(request: pytest.FixtureRequest, train: Train, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, Path(storage.check_fingerprint(train(folder, method=request.param)))


def test_what_was_trained_loads_with_the_fields_own_libraries(trained: tuple[str, Path]) -> None:
    method, folder = trained
    if method == "sft":
        AutoModelForCausalLM.from_pretrained(str(folder))
        assert (folder / "tokenizer.json").is_file()
    else:
        from peft import PeftModel

        base = AutoModelForCausalLM.from_pretrained(str(BASE_MODEL))
        PeftModel.from_pretrained(base, str(folder))
        assert str(BASE_MODEL.parent) not in (folder / "adapter_config.json").read_text()


def test_a_validation_run_keeps_no_model_and_leaves_its_figures(shards_path: str, tmp_path: Path) -> None:
    assert run_validation(task_in(tmp_path, shards_path, validation_steps=3)).uri == ""
    manifest = read_model(str(tmp_path / "model"))
    assert manifest.files == ()
    assert manifest.figures and manifest.figures.num_steps == 3
    assert manifest.figures.peak_memory_bytes > 1e6


def test_a_training_in_the_place_of_its_validation_run_is_not_taken_for_done(
    train: Train, shards_path: str, tmp_path: Path
) -> None:
    run_validation(task_in(tmp_path, shards_path, validation_steps=2))
    assert train(tmp_path)
    figures = read_model(str(tmp_path / "model")).figures
    assert figures and figures.num_steps == 12


def test_a_validation_run_that_diverges_stops_the_run(shards_path: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="lower"):
        run_validation(task_in(tmp_path, shards_path, method="sft", learning_rate=5.0, validation_steps=8))
    assert not (tmp_path / "model").exists()


def test_the_rate_warms_up_and_comes_down() -> None:
    schedule = cosine_schedule(ScheduleSettings(warmup_ratio=0.1, min_lr_ratio=0.1), 100)
    rates = [schedule(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == 1.0
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "qlora"}, "method is one of lora, sft; got 'qlora'"),
        ({"learning_rate": 0.0}, "learning_rate is above 0; got 0.0"),
        ({"lora_rank": 0}, "lora_rank is 1 or more; got 0"),
        ({"schedule": {"warmup_ratio": 2.0}}, "schedule: warmup_ratio is a share"),
        ({"lora_options": {"use_qalora": True}}, "unknown key 'use_qalora'"),
        ({"lora_options": {"use_dora": 1}}, "use_dora is true or false; got 1"),
        ({"lora_options": {"init_lora_weights": "eva"}}, "pissa_niter_<number> or olora; got 'eva'"),
        ({"method": "sft", "lora_options": {"use_dora": True}}, "lora_options is for method lora, and method is sft"),
        ({"method": "sft", "lora_rank": 64}, "lora_rank is for method lora, and method is sft"),
        ({"method": "sft", "lora_alpha": 64}, "lora_alpha is for method lora, and method is sft"),
    ],
)
def test_an_option_out_of_range_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(**options)


@pytest.mark.parametrize(
    "options",
    [{"use_dora": True}, {"use_rslora": True, "target_modules": ["q_proj"]}, {"init_lora_weights": "orthogonal"}],
    ids=str,
)
def test_options_of_peft_reach_the_adapter_and_it_loads(
    options: dict[str, object], train: Train, tmp_path: Path
) -> None:
    from peft import PeftModel

    folder = storage.check_fingerprint(train(tmp_path, lora_options=options))
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(str(BASE_MODEL)), folder)
    saved: Any = adapted.peft_config["default"]
    assert saved.use_dora == options.get("use_dora", False)
    assert saved.use_rslora == options.get("use_rslora", False)
    assert any("lora_B" in name for name, _ in adapted.named_parameters())


def test_a_learning_rate_at_which_an_adapter_does_not_learn_is_warned_of() -> None:
    assert "hardly learns" in settings(lora_options={"lora_plus_ratio": 1.0}).warning()
    assert "learning_rate 5 would leave nothing" in settings(learning_rate=5.0).warning()
    assert not settings().warning()
    assert not settings(method="sft", learning_rate=1e-9).warning()
