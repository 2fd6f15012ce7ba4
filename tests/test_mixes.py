"""Nova's mixes, in and out."""

import json
from pathlib import Path

import pytest

from mixtune.cli import main
from mixtune.errors import ConfigError
from mixtune.mixes import Mix, mix_of, read_mix, with_mix, write_mix

POOLS = [
    {"category": "code", "uri": "c.jsonl", "weight": 50},
    {"category": "instruction-following", "uri": "i.jsonl", "weight": 50},
]
ARGUMENTS = {"customer_uri": "x", "base_model": "m", "general_pools": POOLS, "customer_data_percent": 50.0}
RECIPE = "data_mixing:\n  dataset_catalog: sft_1p5_text_chat\n  sources:\n    customer_data: {percent: 75}\n    nova_data: {code: 40, instruction-following: 60, math: 0}\n"
FLAT = "customer_data_percent: 75\nnova_code_percent: 40\nnova_instruction-following_percent: 60\n"
NESTED = json.dumps({"customer_data_percent": 75, "nova_data_percentages": {"code": 40, "instruction_following": 60}})


@pytest.mark.parametrize("text", [RECIPE, FLAT, NESTED])
def test_each_of_novas_forms_becomes_the_weights_of_the_pools(text: str, tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    mixed = with_mix(ARGUMENTS, read_mix(str(tmp_path / "mix.yaml")))
    assert mixed["customer_data_percent"] == 75
    assert [pool["weight"] for pool in mixed["general_pools"]] == [40, 60]


def test_a_mix_that_is_written_is_read_the_same(tmp_path: Path) -> None:
    mix = mix_of(ARGUMENTS)
    (tmp_path / "mix.yaml").write_text(write_mix(mix))
    assert read_mix(str(tmp_path / "mix.yaml")) == mix


def test_all_customer_needs_no_categories_and_keeps_the_pools_weights(tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text("customer_data_percent: 100\n")
    mixed = with_mix(ARGUMENTS, read_mix(str(tmp_path / "mix.yaml")))
    assert mixed["customer_data_percent"] == 100 and mixed["general_pools"] == POOLS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nova_code_percent: 100\n", "customer_data_percent is left out"),
        ("customer_data_percent: 75\nnova_code_percent: 70\n", "sum to 70"),
        ("customer_data_percent: 75\n", "sum to 0"),
        ("customer_data_percent: 175\nnova_code_percent: 100\n", "0 to 100; got 175"),
        ("customer_data_percent: 75\ncode: 100\n", "unknown key 'code'"),
        ("data_mixing: {sources: {nova_data: {code: 100}}}\n", "customer_data is left out"),
        ("- 1\n", "a mapping is needed"),
    ],
)
def test_a_mix_that_says_too_little_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mix.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mix(str(tmp_path / "mix.yaml"))


def test_a_category_without_a_pool_and_a_pool_without_a_category_are_refused() -> None:
    with pytest.raises(ConfigError, match="the mix wants math"):
        with_mix(ARGUMENTS, Mix(customer_data_percent=75, weights={"code": 40, "math": 60}))
    with pytest.raises(ConfigError, match="no percent for the pool instruction-following"):
        with_mix(ARGUMENTS, Mix(customer_data_percent=75, weights={"code": 100}))


def test_the_command_prints_the_mix_of_a_run_and_takes_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(ARGUMENTS))
    (tmp_path / "mix.yaml").write_text(FLAT)
    assert (
        main(["mix", "finetune", "--arguments", str(tmp_path / "run.json"), "--mix", str(tmp_path / "mix.yaml")]) == 0
    )
    (tmp_path / "out.yaml").write_text(capsys.readouterr().out)
    assert read_mix(str(tmp_path / "out.yaml")) == read_mix(str(tmp_path / "mix.yaml"))


def test_arguments_without_one_mix_are_refused() -> None:
    with pytest.raises(ConfigError, match="no one mix"):
        mix_of({"general_pools": POOLS, "customer_data_percents": [100, 75]})
    with pytest.raises(ConfigError, match="code has no weight"):
        mix_of({**ARGUMENTS, "general_pools": [{"category": "code", "uri": "c.jsonl"}]})
