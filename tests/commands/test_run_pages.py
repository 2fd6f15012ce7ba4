"""The pages of a run lie in one folder; its index leads to each, and each leads back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from mixtune.artifacts.pools import Pool, PoolsManifest, Split, write_records
from mixtune.artifacts.typed_json import write_artifact
from mixtune.cli import main
from mixtune.commands.arguments import package_files, read_spec
from mixtune.commands.local.run_ending import Outcome, print_next_steps
from mixtune.commands.local.run_pages import TASKS, keep_pages
from mixtune.commands.local.task_processes import TaskResult
from mixtune.commands.local.work_dir import RunRecord, WorkDir
from mixtune.mixes import read_mix
from mixtune.report.pages import page


def test_every_page_of_a_run_leads_back_to_its_index(tmp_path: Path) -> None:
    results = []
    for label in ("sanitize general", "train 75 %"):
        (tmp_path / label).write_text(page(label, f"<h1>{label}</h1>"))
        report = dsl.HTML(uri=str(tmp_path / label))
        results.append(TaskResult(label=label, cached=False, outputs={"report": report}))
    work = WorkDir(tmp_path)
    work.run_dir("run-1").mkdir(parents=True)
    keep_pages(work, "run-1", RunRecord(pipeline="finetune", code="c"), {}, results)
    assert work.pools("run-1") == {}
    index = (work.pages("run-1") / "index.html").read_text()
    for name, label in (("sanitize-general.html", "sanitize general"), ("train-75.html", "train 75 %")):
        assert f'<a href="{name}">{label}</a>' in index
        text = (work.pages("run-1") / name).read_text()
        assert '<a href="index.html">← all pages of run-1</a>' in text and f"<h1>{label}</h1>" in text


def test_the_pages_of_a_component_run_alone_are_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work, run_id = WorkDir(tmp_path), "sanitize-20260101-000000-abcd"
    work.begin(run_id, RunRecord(pipeline="sanitize", code="c"), {})
    outputs = {"report": dsl.HTML(uri="/a/report"), "pools": dsl.Dataset(uri="/a/pools")}
    print_next_steps(Outcome(run_id=run_id, outputs=outputs, report=None), work)
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["pools: /a/pools", f"report: {work.pages(run_id) / 'index.html'} (open it in a browser)"]


def write_pools(folder: Path, name: str, split: str) -> TaskResult:
    """Return a task that left a pool of one record in one split."""
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": name}]
    write_records(str(folder / name / "data.zst"), [{"id": "0" * 32, "messages": messages}])
    splits = {split: Split(num_records=1, files=("data.zst",))}
    manifest = PoolsManifest(data_uri=str(folder / name), pools=(Pool(name=name, splits=splits),))
    write_artifact(str(folder / name / "pools"), manifest)
    return TaskResult(
        label=f"sanitize-{name}", cached=True, outputs={"pools": dsl.Dataset(uri=str(folder / name / "pools"))}
    )


def test_a_runs_pools_and_mix_are_handed_over_by_its_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    work, record = WorkDir(tmp_path / "mixtune-work"), RunRecord(pipeline="finetune", code="c", status="finished")
    pools = [{"category": "chat", "uri": "c.jsonl", "weight": 100}]
    work.begin("run-1", record, {"base_model": "b", "customer_uri": "t.csv", "general_pools": pools})
    cleaned = [write_pools(tmp_path, "customer", "train"), write_pools(tmp_path, "chat", "holdout")]
    keep_pages(work, "run-1", record, {}, cleaned)
    assert main(["mix", "run-1", "customer_data_percent=25"]) == 0
    (tmp_path / "mix.yaml").write_text(capsys.readouterr().out)
    assert read_mix(str(tmp_path / "mix.yaml")).customer_data_percent == 25
    for split, pool in (("train", "customer"), ("holdout", "chat")):
        assert main(["export", "run-1", "--format", "openai", "--out", split, "--split", split]) == 0
        (line,) = (tmp_path / split / f"sanitize-{pool}" / f"{split}.jsonl").read_text().splitlines()
        assert json.loads(line)["messages"][1]["content"] == pool
        assert len(list((tmp_path / split).iterdir())) == 1
    words = ["export", "run-1", "--format", "openai", "--out", "none", "--pool", "chat"]
    assert main(words) == 2
    assert "run-1 has no train records of chat; there are ['customer']" in capsys.readouterr().err


def test_every_task_of_every_pipeline_is_explained() -> None:
    def list_tasks(dag: Any) -> Iterator[str]:
        for task in dag.get("tasks", {}).values():
            component = components[task["componentRef"]["name"]]
            yield from list_tasks(component["dag"]) if "dag" in component else [task["taskInfo"]["name"]]

    unexplained = set()
    for pipeline in package_files("compiled"):
        components = read_spec(pipeline)["components"]
        unexplained |= set(list_tasks(read_spec(pipeline)["root"]["dag"]))
    unexplained = {name for name in unexplained if not any(name.startswith(start) for start in TASKS)}
    assert {name.rstrip("-0123456789") for name in unexplained} == {"go-on"}, "which is not shown"
