"""The pages of a run, in one folder with an index that tells the run from its first file to its verdict."""

import re
import shutil
import time
import tomllib
from collections.abc import Sequence
from html import escape
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.comparison import Comparison
from mixtune.artifacts.run_report import (
    REPORT_TASKS,
    RunReport,
    find_recommendation,
    is_gain_proved,
    list_candidates,
    read_run_report,
)
from mixtune.commands.argument_places import Arguments
from mixtune.commands.local.task_processes import TaskResult
from mixtune.commands.local.work_dir import FAILED, FINISHED, INTERRUPTED, RunRecord, WorkDir
from mixtune.commands.task_states import duration
from mixtune.compare.comparison_page import summarize
from mixtune.report.next_steps import next_steps, steps_html, with_words
from mixtune.report.pages import Cell, Html, Verdict, key_value_table, page, table, with_way_back, write_text
from mixtune.tracking import Tracking, parent_run

HTML = "system.HTML"
MLFLOW_STATUS = {FINISHED: "FINISHED", FAILED: "FAILED", INTERRUPTED: "KILLED"}
DATA_SETS = ("shards", "pools", "samples")
"""Names of outputs whose places are worth knowing."""
TASKS = tomllib.loads(Path(__file__).with_name("tasks.toml").read_text(encoding="utf-8"))
"""What a task does, by the beginning of its name; the longest that fits."""


def keep_pages(
    work: WorkDir, run_id: str, record: RunRecord, arguments: Arguments, results: Sequence[TaskResult]
) -> Path | None:
    """Copy the pages of a run's tasks into its folder and write their index, returned if it compared anything."""
    folder = work.pages(run_id)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    pools = {result.label: result.outputs["pools"].path for result in results if "pools" in result.outputs}
    work.keep_pools(run_id, pools)
    links = {result.label: file for result in results for file in _copy_pages(folder, result)}
    judged = _copy_report(work, run_id, results)
    write_text(str(folder / "index.html"), _index(work, run_id, record, arguments, results, links))
    return folder / "index.html" if judged else None


def track_end(work: WorkDir, run_id: str, arguments: Arguments, status: str) -> None:
    """End the run's parent in MLflow, where there is one, and log the pages as its artifacts."""
    where = Tracking.from_options({"uri": work.mlflow_uri, **(arguments.get("tracking") or {})})
    if run := parent_run(where, run_id):
        run.log_artifact(work.pages(run_id), "pages")
        run.end(MLFLOW_STATUS[status])


def run(root: str, run_id: str, status: str) -> None:
    """End a run's parent in MLflow, in a process that has MLflow loaded (`warm_steps`)."""
    work = WorkDir(Path(root))
    track_end(work, run_id, work.arguments(run_id), status)


def _copy_pages(folder: Path, result: TaskResult) -> list[str]:
    pages = []
    for value in result.outputs.values():
        source = Path(str(getattr(value, "path", "")))
        if getattr(value, "schema_title", "") == HTML and source.is_file():
            name = f"{re.sub(r'[^a-z0-9]+', '-', result.label.lower()).strip('-')}.html"
            _copy_page(source, folder / name)
            pages.append(name)
    return pages


def _copy_page(source: Path, target: Path) -> None:
    """Copy a page, and let it lead back to the run's index."""
    text = with_way_back(source.read_text(encoding="utf-8"), f"all pages of {target.parent.name}")
    target.write_text(text, encoding="utf-8")


def _copy_report(work: WorkDir, run_id: str, results: Sequence[TaskResult]) -> bool:
    """Copy the report of the task that judges the whole run, as page and as JSON; False where there is none."""
    for task, kind in REPORT_TASKS.items():
        for result in reversed(results):
            source = Path(str(getattr(result.outputs.get(kind), "path", "")))
            if result.label.startswith(task) and source.is_file():
                shutil.copyfile(source, work.report(run_id, "json"))
                _copy_page(Path(str(result.outputs["report"].path)), work.report(run_id))
                return True
    return False


def _index(
    work: WorkDir,
    run_id: str,
    record: RunRecord,
    arguments: Arguments,
    results: Sequence[TaskResult],
    links: dict[str, str],
) -> str:
    began = time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(record.began))
    head = [f"<h1>{escape(run_id)}</h1>"]
    report = work.report(run_id, "json")
    closing = ""
    if report.is_file():
        judged = read_run_report(str(report))
        head.append(f'<p class="summary {judged.verdict}">{Html(_headline(judged))}</p>')
        steps = next_steps(judged.verdict, run_id, arguments, gained=is_gain_proved(judged), report=judged)
        head.append(steps_html(with_words(steps, work.words)))
        closing = _models(judged)
    else:
        stopped = f" in {record.place}" if record.place else ""
        head.append(f'<p class="summary advisory">{escape(record.status + stopped)}</p>')
    facts = {"pipeline": Path(record.pipeline).stem, "began": began, "took": duration(record.seconds)}
    rows: list[list[Cell]] = []
    for result in results:
        label, file = result.label, links.get(result.label)
        purpose = TASKS.get(max((name for name in TASKS if label.startswith(name)), key=len, default=""), "")
        places = [f"{name}: {result.outputs[name].path}" for name in DATA_SETS if name in result.outputs]
        if not label.startswith("go-on"):
            link = Html(f'<a href="{file}">{escape(label)}</a>') if file else label
            rows.append([link, purpose, "from the cache" if result.cached else "ran", "; ".join(places)])
    tasks = table(["task", "what it does", "how", "what it left"], rows, texts=4)
    return page(
        run_id,
        f"{''.join(head)}{key_value_table(facts)}<h2>From the first file to the verdict</h2>{tasks}{closing}"
        f"<h2>Arguments</h2>{key_value_table(arguments)}",
    )


def _headline(report: RunReport) -> str:
    verdict = report.verdict
    reason = escape(summarize(report) if isinstance(report, Comparison) else report.reason)
    return f'<span class="verdict {verdict}">{verdict}</span> {reason} <a href="report.html">The report</a>'


def _models(report: RunReport) -> str:
    best = find_recommendation(report)
    rows: list[list[Cell]] = [
        [candidate.name, Verdict(candidate.comparison.verdict), storage.plain_uri(candidate.comparison.model_uri)]
        for candidate in list_candidates(report)
        if candidate.comparison.model_uri
    ]
    for row in rows if best else []:
        row.append("take this one" if best and best.name.startswith(str(row[0])) else "")
    header = ["candidate", "verdict", "folder", *([""] if best else [])]
    return f"<h2>Models</h2>{table(header, rows, texts=4)}" if rows else ""
