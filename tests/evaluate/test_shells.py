"""The shells, called as KFP calls them."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from kfp import dsl

from mixtune.compare.component import compare, judge
from mixtune.evaluate.component import evaluate


def artifact(kind: type, path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    return kind(name=path.name, uri=str(path))


def run_evaluate(world: Any, folder: Path, model_uri: str) -> dict[str, Any]:
    out = {
        "samples": artifact(dsl.Dataset, folder / "samples"),
        "metrics": artifact(dsl.Metrics, folder / "metrics"),
        "confusion": artifact(dsl.ClassificationMetrics, folder / "confusion"),
        "report": artifact(dsl.HTML, folder / "report"),
        "summary": artifact(dsl.Markdown, folder / "summary"),
    }
    evaluate.python_func(
        base_model=str(world.base),
        customer=artifact(dsl.Dataset, world.customer),
        general=artifact(dsl.Dataset, world.general),
        model_uri=model_uri,
        benchmarks=world.benchmarks,
        **out,
    )
    return out


@pytest.fixture
def tracked(mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("MIXTUNE_RUN_ID", "run-7")
    return mlflow_uri


def test_two_evaluations_and_a_comparison_leave_scores_reports_and_runs(
    world: Any, tmp_path: Path, tracked: str
) -> None:
    base = run_evaluate(world, tmp_path / "base", "")
    candidate = run_evaluate(world, tmp_path / "candidate", str(world.damaged))
    assert base["metrics"].metadata["mmlu_items"] == 20
    assert len(base["confusion"].metadata["confusionMatrix"]["rows"]) == 3
    assert "<h1>Evaluation</h1>" in Path(base["report"].path).read_text()
    assert "| mmlu | accuracy |" in Path(base["summary"].path).read_text()
    sides = {"base": base["samples"], "candidate": candidate["samples"]}
    judgments = artifact(dsl.Dataset, tmp_path / "judge" / "judgments")
    shown = artifact(dsl.Metrics, tmp_path / "judge" / "metrics")
    judge.python_func(
        **sides,
        model=str(world.base),
        judgments=judgments,
        report=artifact(dsl.HTML, tmp_path / "judge" / "report"),
        metrics=shown,
        axis="ifeval",
        limit=3,
    )
    assert (shown.metadata["no verdict"], shown.metadata["kappa"]) == (1, 0)  # a random model says no JSON
    report = artifact(dsl.HTML, tmp_path / "compare" / "report")
    verdict = compare.python_func(
        **sides,
        judgments=judgments,
        comparison=artifact(dsl.Artifact, tmp_path / "compare" / "comparison"),
        report=report,
        summary=artifact(dsl.Markdown, tmp_path / "compare" / "summary"),
        metrics=artifact(dsl.Metrics, tmp_path / "compare" / "metrics"),
        limits={"mmlu": 0.05},
        tracking={"uri": tracked, "experiment": "e"},
    )
    assert verdict == "fail"
    assert "Forgotten: general_nll" in Path(report.path).read_text()
    runs = mlflow.MlflowClient(tracked).search_runs(
        [mlflow.MlflowClient(tracked).get_experiment_by_name("e").experiment_id]
    )
    by_name = {run.info.run_name: run for run in runs}
    assert {"run-7", "evaluate-base", "evaluate-candidate", "judge", "compare"} <= set(by_name)
    parents = {run.data.tags.get("mlflow.parentRunId") for name, run in by_name.items() if name != "run-7"}
    assert parents == {by_name["run-7"].info.run_id}
    anatomy = [name for name in by_name["evaluate-base"].data.metrics if name.startswith("mmlu/subject/")]
    assert sorted(anatomy) == ["mmlu/subject/anatomy", "mmlu/subject/high_school_physics"]
    assert by_name["judge"].data.metrics["no verdict"] == 1
    assert by_name["compare"].data.metrics["mmlu/limit"] == 0.05
    assert by_name["run-7"].data.tags["verdict"] == "fail"
