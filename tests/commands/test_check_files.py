"""What a run's files hold is looked at before anything runs: by `preflight` with a line, by `run` with an error."""

import importlib.util
import json
import re
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import mixtune.demo
from mixtune import cli
from mixtune.commands.check_files import check_files, check_records
from mixtune.errors import ConfigError
from mixtune.evaluate.benchmark_checks import BenchmarkPlans, check_benchmarks
from mixtune.evaluate.scoring import ifeval_checkers
from mixtune.preflight.findings import look

from ..evaluation import write_jsonl

BASE_MODEL = str(Path(mixtune.demo.__file__).parent / "base_model")
TICKETS = [{"text": f"ticket {number}", "category": "ab"[number % 2]} for number in range(30)]
TOOL = {"name": "look", "description": "Looks up.", "parameters": {"type": "object", "properties": {}}}
PROBLEMS = [{"question": f"What is {number} and 1?", "answer": f"#### {number + 1}"} for number in range(8)]


def arguments(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return a run's arguments, with their files in a folder."""
    tickets = write_jsonl(folder / "tickets.jsonl", TICKETS)
    pool = {"category": "chat", "uri": str(tickets), "weight": 100}
    own: dict[str, Any] = {"base_model": BASE_MODEL, "customer_uri": str(tickets), "general_pools": [pool]}
    return {**own, **changes}


def plans(benchmarks: dict[str, Any], options: dict[str, Any] | None = None) -> BenchmarkPlans:
    """Return the plans of benchmarks for the demo's model."""
    return BenchmarkPlans(benchmarks=benchmarks, base_model=BASE_MODEL, options=options or {})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("page.jsonl", "<html>\n<body>Sign in</body>\n</html>\n", r"a web page; fetch the file itself"),
        ("array.jsonl", "[1, 2]\n", r"none of its first 1 rows can be used: not an object but an array"),
        ("a.jsonl", '{"a": 1}\n', r".*: no known schema in columns a; .* \(line 1\)"),
        ("a.zip", "PK", r"unknown format '\.zip'"),
        ("header.csv", "text,category\n", "no rows in it"),
    ],
)
def test_a_source_without_a_single_record_at_its_head_is_refused_with_the_reason(
    name: str, content: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    pools = [{"category": "chat", "uri": str(tmp_path / name), "weight": 100}]
    with pytest.raises(ConfigError, match=rf"general_pools\[0\].*{name}:? {message}"):
        check_files(arguments(tmp_path, general_pools=pools))


def test_of_a_folders_files_some_may_have_no_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tickets"
    folder.mkdir()
    write_jsonl(folder / "part-1.jsonl", TICKETS)
    (folder / "part-0.jsonl").write_text("")
    own = arguments(tmp_path, customer_uri=str(folder))
    check_files(own)
    (tmp_path / "own.json").write_text(json.dumps(own))
    assert cli.main(["preflight", "finetune", "--arguments", str(tmp_path / "own.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("warn  data: ") and "1 of 2 files are empty (0 bytes)" in line for line in lines)
    assert any(line.startswith("warn  records: ") and "no rows in it; it is left out" in line for line in lines)


def test_a_pattern_leaves_out_what_a_folder_holds_beside_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tickets"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", TICKETS)
    (folder / "categories.json").write_text('["a", "b"]')
    with pytest.raises(ConfigError, match=r"categories\.json: .* give a pattern for the folder, such as FOLDER"):
        check_files(arguments(tmp_path, customer_uri=str(folder)))
    problems = str(write_jsonl(tmp_path / "problems.jsonl", PROBLEMS))
    measured = {"math": {"form": "gsm8k", "uri": problems, "num_fewshot": 0}}  # none of the records
    own = arguments(tmp_path, customer_uri="tickets/*.jsonl", benchmarks=measured)
    (tmp_path / "own.json").write_text(json.dumps(own))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli.main(["preflight", "finetune", "--arguments", str(tmp_path / "own.json")]) == 0
    assert "about 60 records" in capsys.readouterr().out
    assert cli.main(["plan", "finetune", "--arguments", str(tmp_path / "own.json")]) == 0
    assert cli.main(["run", "finetune", "--arguments", str(tmp_path / "own.json"), "customer_uri=*.csv"]) == 2
    assert "about 30 customer records" in (printed := capsys.readouterr().err)
    assert "customer_uri '*.csv': no such file or folder" in printed


def test_a_folders_test_file_is_named_as_what_to_give_as_test_uri(tmp_path: Path) -> None:
    folder = tmp_path / "tickets"
    for name in ("train.jsonl", "test.jsonl"):
        write_jsonl(folder / name, TICKETS)
    own = arguments(tmp_path, customer_uri=str(folder))
    named = [text for outcome, text in check_records(own) if outcome == "warn"]
    place = f"{folder}/test.jsonl"
    assert named == [
        f"customer_uri: {place} is left out, test records by its name; to test on it give test_uri={place}"
    ]
    own["test_uri"] = place
    assert [outcome for outcome, _ in check_records(own)] == ["pass", "pass", "pass"]


@pytest.mark.parametrize(
    ("benchmark", "message"),
    [
        ({"form": "gsm8k"}, "0 items in the train split, num_fewshot is 5"),
        ({"form": "mmlu"}, "choices is a list of 2 to 26 texts"),
        ({"form": "tool_calls"}, "has no place for tools"),
    ],
)
def test_a_benchmark_that_evaluate_would_refuse_after_the_training_is_refused_by_the_first_task(
    benchmark: dict[str, Any], message: str, tmp_path: Path
) -> None:
    rows = [{**row, "calls": [], "tools": [TOOL]} for row in PROBLEMS]
    uri = str(write_jsonl(tmp_path / "test.jsonl", rows))
    planned = partial(check_benchmarks, plans({"mine": {"uri": uri, **benchmark}}))
    check = look("benchmarks", planned)
    assert check.outcome == "fail" and re.search(rf"benchmarks\.mine: .*({message})", check.text)


def test_a_benchmark_of_the_hub_is_planned_like_a_local_one(hub: Any) -> None:
    lines = [json.dumps({"question": f"q {n}", "choices": ["x", "y"], "answer": "A"}).encode() for n in range(3)]
    hub.repos["org/set"] = {"test.jsonl": b"\n".join(lines), "odd/test.jsonl": b'{"question": "q", "label": 1}'}
    for path, num_fewshot, expected in (
        ("test.jsonl", 0, ("pass", "mine: 3 items")),
        ("test.jsonl", 5, ("fail", "0 items in the dev split, num_fewshot is 5")),
        ("odd", 0, ("fail", "choices is a list of 2 to 26 texts")),
    ):
        entry = {"uri": f"hf://datasets/org/set@v1/{path}", "form": "mmlu", "num_fewshot": num_fewshot}
        ((outcome, text),) = check_benchmarks(plans({"mine": entry}), {"mine": 1.0})
        assert outcome == expected[0] and expected[1] in text


def test_a_task_that_lm_eval_does_not_have_is_refused_by_the_first_task(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("task: own\ndataset_path: json\noutput_type: multiple_choice\n")
    entry = {"form": "lm_eval", "uri": str(tmp_path)}
    planned = check_benchmarks(plans({"mine": {**entry, "task": "own"}}), {"mine": 1.0})
    assert list(planned) == [("pass", "mine: 1 items")]
    ((outcome, text),) = check_benchmarks(plans({"mine": {**entry, "task": "owm"}}))
    assert outcome == "fail" and "lm-eval has no task 'owm'" in text


def test_a_benchmark_is_planned_by_the_template_that_evaluate_asks_by(tmp_path: Path) -> None:
    rows = [{**row, "calls": [], "tools": [TOOL]} for row in PROBLEMS]
    benchmarks = {
        "mine": {"uri": str(write_jsonl(tmp_path / "test.jsonl", rows)), "form": "tool_calls", "max_new_tokens": 64}
    }
    template = tmp_path / "tools.jinja"
    template.write_text("{{ tools | tojson }}{% for turn in messages %}{{ turn.role }}: {{ turn.content }}{% endfor %}")
    options = {"chat": {"chat_template_uri": str(template)}}
    planned = check_benchmarks(plans(benchmarks, options), {"mine": 1.0})
    assert list(planned) == [("pass", "mine: 8 items, answers of at most 64 tokens")]


def test_a_run_whose_benchmark_cannot_be_read_ends_with_its_first_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    own = arguments(tmp_path, benchmarks={"gsm8k": str(write_jsonl(tmp_path / "problems.jsonl", PROBLEMS))})
    (tmp_path / "own.json").write_text(json.dumps(own))
    assert cli.main(["run", "finetune", "--arguments", "own.json"]) == 1
    output, error = capsys.readouterr()
    assert "- benchmarks: benchmarks.gsm8k: " in error and "0 items in the train split" in error
    assert "sanitize-" not in output


def test_a_form_whose_library_is_in_another_image_is_left_to_evaluate(tmp_path: Path) -> None:
    rows = [{"key": 1, "prompt": "Say no commas.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}]
    benchmarks = {"ifeval": {"uri": str(write_jsonl(tmp_path / "ifeval.jsonl", rows)), "max_new_tokens": 64}}
    ifeval_checkers.load_checkers.cache_clear()
    with mock.patch.object(importlib.util, "find_spec", lambda name: None):
        assert list(check_benchmarks(plans(benchmarks))) == [
            ("skip", "ifeval: IFEval is scored by lm-eval's checkers; install mixtune[evaluate]")
        ]
    planned = check_benchmarks(plans(benchmarks), {"ifeval": 1.0})
    assert list(planned) == [("pass", "ifeval: 1 items, answers of at most 64 tokens")]


def test_preflight_counts_items_warns_of_unusable_rows_and_names_all_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_jsonl(tmp_path / "problems.jsonl", PROBLEMS)
    write_jsonl(tmp_path / "half.jsonl", [*TICKETS[:5], *[{"text": "and no answer"}] * 5])
    good = {"uri": "problems.jsonl", "num_fewshot": 0, "max_drop": 1}
    changes = {"customer_uri": "half.jsonl", "benchmarks": {"gsm8k": good}}
    Path("run.json").write_text(json.dumps(arguments(tmp_path, **changes)))
    assert cli.main(["preflight", "finetune", "--arguments", "run.json"]) == 0
    output = capsys.readouterr().out
    assert "pass  benchmarks: gsm8k: 8 items" in output
    assert "pass  axes: measured, where there are items: customer, general_nll, gsm8k" in output
    assert "warn  records: customer_uri of " in output and "5 of its first 10 rows cannot be used" in output
    wrong = ['benchmarks={"gsm8k": "problems.jsonl"}', "customer_uri=run.json"]
    assert cli.main(["preflight", "finetune", "--arguments", "run.json", *wrong]) == 1
    error = capsys.readouterr().err
    assert "- records: customer_uri" in error and "- benchmarks: benchmarks.gsm8k: " in error
