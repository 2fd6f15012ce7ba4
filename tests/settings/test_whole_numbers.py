"""Kubeflow hands 100.0 on as 100, also inside lists and dictionaries: settings are the same, digit by digit."""

from collections.abc import Callable
from typing import Any

import pytest

from mixtune.choose.grid_points import plan_points
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.settings.from_dict import from_dict
from mixtune.settings.inference import EvaluateSettings
from mixtune.settings.mix import read_mix_settings
from mixtune.settings.sanitize import read_sanitize_settings
from mixtune.settings.train import TrainSettings

MIX = {"customer_data_percent": 50.0, "weights": {"chat": 100.0}, "customer_epochs": 1.0, "max_steps": 0.0, "seed": 1.0}
TRAIN = {
    "learning_rate": 1.0, "lora_rank": 16.0, "interpolate": 1.0, "memory": {"max_tokens_per_gpu": 4096.0},
    "schedule": {"warmup_ratio": 0.0, "max_grad_norm": 1.0}, "lora_options": {"lora_plus_ratio": 64.0},
}  # fmt: skip
SANITIZE = {"splits": {"test_ratio": 0.0, "holdout_records": 200.0}, "dedup": {"near_duplicates": 1.0}, "seed": 1.0}


def as_whole(value: Any) -> Any:
    """A value as KFP's launcher hands it over."""
    if isinstance(value, dict):
        return {key: as_whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_whole(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize(
    ("read", "values"),
    [
        (lambda values: read_mix_settings(values, {"temperature": 1.0}), MIX | {"weights": {}}),
        (lambda values: read_mix_settings(values, {}), MIX),
        (lambda values: TrainSettings.from_options(values, method="lora"), TRAIN),
        (lambda values: read_sanitize_settings(values), SANITIZE),
        (lambda values: from_dict(EvaluateSettings, values, "options"), {"limit": 500.0, "gpus_per_model": 1.0}),
        (lambda values: parse_benchmarks(values), {"mmlu": {"uri": "a", "num_fewshot": 5.0}}),
        (
            lambda values: [point["percent"] for point in plan_points(values["percents"], {})],
            {"percents": [100.0, 50.0]},
        ),
    ],
    ids=["mix by size", "mix", "train", "sanitize", "evaluate", "benchmarks", "grid"],
)
def test_a_whole_number_is_the_same_however_it_is_written(read: Callable[[Any], Any], values: dict[str, Any]) -> None:
    assert repr(read(as_whole(values))) == repr(read(values))
