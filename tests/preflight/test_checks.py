from pathlib import Path
from typing import Any

import pytest

from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError
from mixtune.preflight.checks import run_preflight
from mixtune.preflight.run_settings import RunSettings

GOOD: dict[str, Any] = {
    "base_model": str(BASE_MODEL),
    "general_pools": ["chat"],
    "weights": {"chat": 100.0},
    "customer_data_percents": [75.0],
    "customer_epochs": 1.0,
    "max_steps": 0,
    "mix_options": {"max_length": 512},
    "method": "lora",
    "learning_rate": 1e-5,
}


@pytest.fixture(autouse=True)
def no_tracking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def test_a_run_that_is_well_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_preflight(RunSettings(**GOOD), str(tmp_path / "report")) == "warn"  # nothing is tracked
    assert "no licence lies beside it" in capsys.readouterr().out
    assert "customer" in (tmp_path / "report").read_text()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"customer_data_percents": [75.0, 120.0]}, "share of every global batch, 0 to 100; got 120"),
        ({"weights": {"chat": 60.0}}, "sum to 60"),
        ({"mix_options": {"global_batch_size": 0}}, "global_batch_size counts records, 1 or more; got 0"),
        ({"customer_data_percents": [0.0]}, "so customer_epochs gives no length; set max_steps"),
        ({"customer_epochs": 0.0}, "customer_epochs is more than 0"),
        ({"method": "qlora"}, "method is one of lora, sft; got 'qlora'"),
        ({"learning_rate": 0.0}, "learning_rate is above 0"),
        ({"train_options": {"lora_rnak": 8}}, "train: unknown key 'lora_rnak'; did you mean 'lora_rank'"),
        ({"train_options": {"memory": {"dtype": "fp8"}}}, "dtype is one of float32, bfloat16 or empty; got 'fp8'"),
        ({"train_options": {"seed": 1}}, "train_options: seed is a parameter of its own"),
        ({"mix_options": {"unit": "words"}}, "unit is 'words'; it is one of records, tokens, loss_tokens"),
        ({"mix_options": {"thinking": "off"}}, "sanitize_options.chat: thinking is 'record', and 'off' in mix_options"),
        ({"evaluate_options": {"chat": {"on_lost": {"system": "keep"}}}}, "evaluate_options.chat: on_lost is"),
        ({"base_model": "org/name"}, "give a folder, an s3:// prefix, or org/name@revision"),
        ({"tracking": {"url": "x"}}, "unknown key 'url'"),
    ],
)
def test_every_failed_check_is_named_with_its_way_out(wrong: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        run_preflight(RunSettings(**{**GOOD, **wrong}), str(tmp_path / "report"))


def test_all_failures_come_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2 of 14 checks failed:\n- mix: .*\n- training: "):
        run_preflight(
            RunSettings(**{**GOOD, "customer_data_percents": [-1.0], "method": "x"}), str(tmp_path / "report")
        )
