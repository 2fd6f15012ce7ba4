"""The pages of a run lie in one folder; its index leads to each, and each leads back."""

from pathlib import Path

from kfp import dsl

from mixtune.commands.local.run_pages import keep_pages
from mixtune.commands.local.task_processes import TaskResult
from mixtune.commands.local.work_dir import RunRecord, WorkDir
from mixtune.report.pages import page


def test_every_page_of_a_run_leads_back_to_its_index(tmp_path: Path) -> None:
    results = []
    for label in ("sanitize general", "train 75 %"):
        (tmp_path / label).write_text(page(label, f"<h1>{label}</h1>"))
        report = dsl.HTML(uri=str(tmp_path / label))
        results.append(TaskResult(label=label, cached=False, outputs={"report": report}))
    work = WorkDir(tmp_path)
    keep_pages(work, "run-1", RunRecord(pipeline="finetune", code="c"), {}, results)
    index = (work.pages("run-1") / "index.html").read_text()
    for name, label in (("sanitize-general.html", "sanitize general"), ("train-75.html", "train 75 %")):
        assert f'<a href="{name}">{label}</a>' in index
        text = (work.pages("run-1") / name).read_text()
        assert '<a href="index.html">← all pages of run-1</a>' in text and f"<h1>{label}</h1>" in text
