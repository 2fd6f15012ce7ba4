"""Before anything runs, a run says how long its evaluations take on this CPU."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import mixtune.demo
from mixtune import cli
from mixtune.commands.arguments import find_pipeline
from mixtune.commands.check import count_evaluations
from mixtune.evaluate import cpu_time
from mixtune.evaluate.benchmark_checks import BenchmarkPlans
from mixtune.evaluate.cpu_time import (
    CountingEngine,
    HeldOut,
    count_axes,
    count_tokens,
    describe,
    estimate_seconds,
    measure_speed,
)
from mixtune.inference import loading
from mixtune.inference.loading import ModelSource
from mixtune.inference.parallel import Part
from mixtune.inference.transformers_engine import TransformersEngine
from mixtune.preflight import evaluation_time

from ..evaluation import write_jsonl

BASE_MODEL = str(Path(mixtune.demo.__file__).parent / "base_model")


def questions(count: int, split: str) -> list[dict[str, Any]]:
    """Return questions of two subjects, of many lengths."""
    return [
        {
            "question": f"In the {split} {number}, " + "what about it " * (1 + number * 7 % 11),
            "choices": ["the red one", "the blue one", "none of them", f"number {number}"],
            "answer": number % 4,
            "subject": ("law", "physics")[number % 2],
        }
        for number in range(count)
    ]


@pytest.fixture
def mmlu(tmp_path: Path) -> str:
    write_jsonl(tmp_path / "mmlu" / "test.jsonl", questions(300, "test"))
    write_jsonl(tmp_path / "mmlu" / "dev.jsonl", questions(12, "dev"))
    return str(tmp_path / "mmlu")


def plans(**benchmarks: dict[str, Any]) -> BenchmarkPlans:
    """Return the plans of benchmarks for the demo's model."""
    return BenchmarkPlans(benchmarks=benchmarks, base_model=BASE_MODEL, options={"axis_limits": {"customer": 20}})


def tokens_of_a_model(parts: list[Part], monkeypatch: pytest.MonkeyPatch) -> int:
    """Return how many tokens go through the demo's model where it is asked all items as it is on a CPU."""
    source, tokens = ModelSource(base_model=BASE_MODEL, device="cpu").resolved(), 0
    engine = loading.load_engine(source, loading.fetch(source))
    assert isinstance(engine, TransformersEngine) and engine._packs
    forward = engine.model.forward

    def counted(*arguments: Any, **inputs: Any) -> Any:
        nonlocal tokens
        tokens += inputs["input_ids"].numel()
        return forward(*arguments, **inputs)

    monkeypatch.setattr(engine.model, "forward", counted)
    for piece in (piece for part in parts for piece in part.cut()):
        piece.score(engine)
    return tokens


@pytest.mark.parametrize("options", [{"num_fewshot": 5}, {"num_fewshot": 0, "scoring": "text"}])
def test_some_items_tell_how_many_tokens_a_model_goes_through(
    mmlu: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = plans(mmlu={"uri": mmlu, **options})
    real = tokens_of_a_model(planned.parts["mmlu"], monkeypatch)
    assert 0.8 < real / count_tokens(planned.parts["mmlu"], planned.max_length) < 1.25


def test_what_is_longer_than_a_model_takes_is_counted_as_it_is_asked(
    mmlu: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(Path(mmlu) / "dev.jsonl", [{**row, "question": "So " * 90} for row in questions(12, "dev")])
    planned = BenchmarkPlans(
        benchmarks={"mmlu": {"uri": mmlu, "scoring": "text"}}, base_model=BASE_MODEL, options={"limit": 40}
    )
    counted = count_tokens(planned.parts["mmlu"], planned.max_length)
    assert counted == 40 * 4 * planned.max_length
    assert 0.8 < tokens_of_a_model(planned.parts["mmlu"], monkeypatch) / counted < 1.25


def test_a_model_of_unknown_length_is_asked_whole_prompts() -> None:
    engine = CountingEngine(0)
    engine.generate([[1, 2, 3]], 7)
    assert engine.own == 10


def test_an_answer_is_counted_at_its_longest_and_records_by_their_lines(tmp_path: Path) -> None:
    rows = [{"question": f"What is {number} and 1?", "answer": f"#### {number + 1}"} for number in range(100, 200)]
    uri = str(write_jsonl(tmp_path / "test.jsonl", rows))
    planned = plans(sums={"uri": uri, "form": "gsm8k", "num_fewshot": 0, "max_new_tokens": 40})
    line = json.dumps(rows[0])
    records = HeldOut(axis="customer", num_items=50, lines=(line, line), new_tokens=30)
    unknown = HeldOut(axis="general_nll", num_items=0, lines=())
    counts = count_axes(planned, [records, unknown])
    prompt, length = counts["sums"] / 100 - 40, len(planned.tokenizer(line, add_special_tokens=False)["input_ids"])
    assert list(counts) == ["sums", "customer"]
    assert 5 < prompt < 60
    assert counts["customer"] == 20 * (length + 30)


def test_the_line_gives_the_least_and_the_most_that_were_measured() -> None:
    seconds = estimate_seconds({"mmlu": 60_000, "ifeval": 120_000}, values=10**8, speed=1e11)
    assert seconds == {"mmlu": 120.0, "ifeval": 240.0}
    assert describe(seconds) == "on this CPU about 6 to 12 minutes a model (at most: mmlu 4.0, ifeval 8.0)"
    assert describe({"mmlu": 40.0}) == "on this CPU at most 2 minutes a model (at most: mmlu 1.3)"
    assert describe({"mmlu": 20.0}) == "on this CPU under a minute a model"
    assert describe({"mmlu": 9000.0}) == "on this CPU about 2 to 5 hours a model (at most: mmlu 5.0)"


def test_a_speed_is_measured_at_once_in_any_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_time, "MEASURED_SECONDS", 0.0)
    assert all(measure_speed(64, 96, dtype) > 0 for dtype in ("auto", "bfloat16"))


@pytest.fixture
def arguments(tmp_path: Path, mmlu: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation_time, "measure_speed", lambda *widths: 1e8)
    own = write_jsonl(tmp_path / "own.jsonl", [{"text": f"ticket {n}", "category": "ab"[n % 2]} for n in range(400)])
    pool = {"category": "chat", "uri": str(own), "weight": 100}
    values = {"base_model": BASE_MODEL, "customer_uri": str(own), "general_pools": [pool], "max_steps": 9}
    values["benchmarks"] = {"mmlu": {"uri": mmlu}}
    (tmp_path / "own.json").write_text(json.dumps(values))
    return str(tmp_path / "own.json")


def test_preflight_says_how_long_evaluations_take_here(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preflight", "finetune", "--arguments", arguments]) == 0
    (line,) = [text for text in capsys.readouterr().out.splitlines() if "evaluation time" in text]
    assert line.startswith("pass  evaluation time: on this CPU about ")
    assert line.endswith("; 2 models") and all(f"{axis} " in line for axis in ("mmlu", "general_nll", "customer"))


@pytest.mark.parametrize("options", [["gpus_per_node=1"], ["num_nodes=1"], ['evaluate_options={"engine":"vllm"}']])
def test_nothing_is_said_where_this_cpu_does_not_evaluate(
    options: list[str], arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["preflight", "finetune", "--arguments", arguments, *options])
    assert "on this CPU" not in capsys.readouterr().out


def evaluations(pipeline: str) -> tuple[int, int]:
    """Return the tasks of a compiled pipeline that evaluate a model: outside and inside of loops."""
    spec = next(iter(yaml.safe_load_all(find_pipeline(pipeline).read_text())))

    def count(dag: Any, in_loop: bool) -> tuple[int, int]:
        once = looped = 0
        for task in dag["tasks"].values():
            component, inner = spec["components"][task["componentRef"]["name"]], in_loop or "parameterIterator" in task
            if "dag" in component:
                further = count(component["dag"], inner)
                once, looped = once + further[0], looped + further[1]
            elif spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]["command"] and (
                component["executorLabel"].removeprefix("exec-").rstrip("-0123456789") == "evaluate"
            ):
                once, looped = once + (not inner), looped + inner
        return once, looped

    return count(spec["root"]["dag"], False)


@pytest.mark.parametrize("pipeline", ["evaluate_only", "finetune", "compare_models", "restore", "lora_then_sft"])
def test_models_are_counted_as_a_pipeline_evaluates_them(pipeline: str) -> None:
    assert evaluations(pipeline)[1] == 0
    assert count_evaluations(pipeline, {}).split()[0] == str(evaluations(pipeline)[0])


def test_a_grids_points_and_a_searchs_short_trainings_are_counted_too() -> None:
    assert evaluations("mix_grid") == (1, 1)
    assert count_evaluations("mix_grid", {"customer_data_percents": [100, 75, 50]}) == "4 models"
    assert evaluations("find_mix") == (3, 1)
    told = count_evaluations("find_mix", {"find_options": {}})
    assert told == "3 models at most, and 4 short trainings, on at most 200 items an axis"
    assert count_evaluations("prepare_data", {}) == ""
