"""What goes wrong before a run is one clear error of `mixtune run`, and nothing half-written stays."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mixtune import __version__
from mixtune.cli import main


def no_file(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {**arguments, "customer_uri": str(folder / "nowhere.csv")}


def no_text(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "broken.parquet").write_bytes(b"PAR1 and then nothing that belongs there")
    return {**arguments, "customer_uri": str(folder / "broken.parquet")}


def bad_line(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    rows = [json.dumps({"prompt": f"question {number}", "completion": "answer"}) for number in range(9)]
    (folder / "bad.jsonl").write_text("\n".join([*rows[:4], '{"prompt": oops', *rows[4:]]) + "\n")
    return {**arguments, "customer_uri": str(folder / "bad.jsonl"), "customer_columns": {}, "test_uri": ""}


def missing_column(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {**arguments, "customer_columns": {"prompt": "{text}", "completion": "category"}}


def no_such_pool(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    first, *rest = arguments["general_pools"]
    return {**arguments, "general_pools": [{**first, "uri": str(folder / "chatter.jsonl")}, *rest]}


def wrong_sum(arguments: dict[str, Any], folder: Path) -> dict[str, Any]:
    first, *rest = arguments["general_pools"]
    return {**arguments, "general_pools": [{**first, "weight": first["weight"] - 5}, *rest]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "texts"),
    [
        (no_file, ["nowhere.csv"]),
        (no_text, ["broken.parquet"]),
        (bad_line, ["bad.jsonl", "line 5", "max_bad_ratio"]),
        (missing_column, ["customer_columns of", "train.csv", "text", "message"]),
        (no_such_pool, ["chatter.jsonl"]),
        (wrong_sum, ["weight", "95"]),
    ],
)
def test_bad_input_is_one_error_that_names_the_thing_and_the_way_out(
    spoil: Any, texts: list[str], small_run: dict[str, Any], tmp_path: Path, monkeypatch: Any, capfd: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arguments.json").write_text(json.dumps(spoil(small_run, tmp_path)))
    code = main(["run", "finetune", "--arguments", "arguments.json"])
    shown = "".join(capfd.readouterr())
    assert code in (1, 2), shown
    error = shown[shown.index("mixtune: ") :]
    for text in texts:
        assert text in error, shown
    assert "Traceback" not in shown
    assert not list(tmp_path.glob("mixtune-work/reports/*/report.*"))
    unfinished = [path for path in tmp_path.glob("mixtune-work/runs/**/data/*") if any(path.iterdir())]
    manifests = [path.parents[1] / path.name for path in unfinished]
    assert all(path.exists() for path in manifests), "data without a manifest"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("customer_percent=75", "no parameter 'customer_percent'; did you mean 'customer_data_percent'?"),
        ("mix_options.max_lenght=512", "did you mean 'max_length'"),
        ("max_steps=-3", "max_steps is a number of steps"),
        ("train_options.lora_rank=0", "lora_rank is 1 or more"),
        ("evaluate_options.foo=2", "unknown key 'foo'"),
        ("tracking.url=x", "did you mean 'uri'"),
        ("num_nodes=two", "num_nodes is empty or a whole number"),
        ('customer_columns={"prompt": "txt", "completion": "category"}', "there is no column 'txt'"),
        ('customer_columns={"prompt": "txt", "completion": "category"}', "customer_columns of "),
        ("general_pools=[{category: chat}]", "Expecting property name enclosed in double quotes"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_any_task_begins(
    text: str, words: str, small_run: dict[str, Any], tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "arguments.json").write_text(json.dumps(small_run))
    assert main(["run", "finetune", "--arguments", "arguments.json", text]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "mixtune-work").exists()


def test_the_command_is_there_as_a_module_of_python() -> None:
    done = subprocess.run([sys.executable, "-m", "mixtune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == __version__


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_command_goes_well_whatever_streams_are_closed(closed: str) -> None:
    done = subprocess.run(["sh", "-c", f'exec "$0" -m mixtune.cli list {closed}', sys.executable], check=False)
    assert done.returncode == 0
