"""A whole evaluation, and its comparison."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from mixtune.errors import ConfigError, DataError, ModelError
from mixtune.evaluate.evaluation import EvaluationInputs, EvaluationOutputs, run_evaluation
from mixtune.evaluate.samples import Samples, read_samples
from mixtune.evaluate.steps import CompareInputs, CompareOutputs, run_comparison


def evaluate(world: Any, folder: Path, **changes: Any) -> Samples:
    given = {"base_model": str(world.base), "benchmarks": world.benchmarks, **changes}
    inputs = EvaluationInputs(customer_path=str(world.customer), general_path=str(world.general), **given)
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / "samples")
    outputs = EvaluationOutputs(
        samples_uri=path, samples_path=path, report_path=str(folder / "report"), summary_path=str(folder / "summary")
    )
    run_evaluation(inputs, outputs)
    return read_samples(path)


def compare(base: Path, candidate: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    inputs = CompareInputs(base_path=str(base / "samples"), candidate_path=str(candidate / "samples"), **changes)
    places = {name: str(folder / name) for name in ("comparison_path", "report_path", "summary_path")}
    run_comparison(inputs, CompareOutputs(**places))
    return dict(json.loads((folder / "comparison_path").read_text()))


def rows(samples: Samples) -> dict[str, list[dict[str, Any]]]:
    return {axis: samples.table(axis).drop_columns(["latency_seconds"]).to_pylist() for axis in samples.axes}


@pytest.fixture(scope="module")
def evaluated(world: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluated")
    evaluate(world, folder / "base")
    evaluate(world, folder / "candidate", model_uri=str(world.adapter))
    evaluate(world, folder / "damaged", model_uri=str(world.damaged))
    return folder


def test_every_item_of_every_axis_has_one_row(evaluated: Path) -> None:
    samples = read_samples(str(evaluated / "base" / "samples"))
    counts = {axis: len(samples.table(axis)) for axis in samples.axes}
    assert counts == {"ifeval": 9, "mmlu": 20, "general_nll": 20, "customer": 24}
    mmlu: pa.Table = samples.table("mmlu")
    assert all(len(row) == 4 for row in mmlu["choice_logprobs"].to_pylist())
    assert len(set(mmlu["item_id"].to_pylist())) == 20


def test_an_unchanged_model_never_fails_and_a_damaged_one_does(evaluated: Path, tmp_path: Path) -> None:
    same = compare(evaluated / "base", evaluated / "base", tmp_path)
    assert all(axis["difference"] == 0 for axis in same["axes"])
    assert same["verdict"] != "fail"
    changed = compare(evaluated / "base", evaluated / "damaged", tmp_path)
    nll = next(axis for axis in changed["axes"] if axis["axis"] == "general_nll")
    assert nll["verdict"] == "fail" and nll["difference"] > 0.02
    assert changed["verdict"] == "fail"


def test_an_adapter_that_changes_nothing_is_refused(world: Any, tmp_path: Path) -> None:
    from .conftest import make_adapter

    idle = make_adapter(world.base, tmp_path / "idle", scale=0.0)
    with pytest.raises(ModelError, match="changes no logit"):
        evaluate(world, tmp_path / "out", model_uri=str(idle), benchmarks={})


def test_different_prompts_are_not_compared(world: Any, evaluated: Path, tmp_path: Path) -> None:
    benchmarks = {**world.benchmarks, "mmlu": {**world.benchmarks["mmlu"], "num_fewshot": 4}}
    evaluate(world, tmp_path / "four", benchmarks=benchmarks)
    with pytest.raises(DataError, match="not asked the same"):
        compare(evaluated / "base", tmp_path / "four", tmp_path)


def test_an_unknown_option_of_a_benchmark_is_refused(world: Any, tmp_path: Path) -> None:
    benchmarks = {"mmlu": {**world.benchmarks["mmlu"], "shots": 5}}
    with pytest.raises(ConfigError, match="unknown option 'shots'"):
        evaluate(world, tmp_path / "out", benchmarks=benchmarks)
