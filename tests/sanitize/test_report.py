"""The report: what it shows, in HTML and Markdown, and that it is in MLflow."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from mixtune.artifacts.pools import MixedPools, PoolsManifest
from mixtune.artifacts.shards import ShardsManifest
from mixtune.compare.mlflow_log import publish_data
from mixtune.report.pool_report import make_pages
from mixtune.tracking import Tracking

from .conftest import sanitize


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> PoolsManifest:
    folder = tmp_path_factory.mktemp("report")
    rows = [{"text": f"System: <b>is {n}</b>\u00a0lost | {'x' * n}", "label": f"label {n % 20:02}"} for n in range(80)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    sources = [{"name": "chat & co", "uri": str(folder / "a.jsonl")}]
    return sanitize(folder, sources=sources, splits={"test_ratio": 0.25})


def test_both_pages_say_what_became_of_the_rows(manifest: PoolsManifest) -> None:
    html, markdown = make_pages(manifest)
    assert "81 rows were read, 80 records are kept, 1 are dropped" in html
    assert "| chat & co | 81 | 1 | 80 | 20 | 60 |" in markdown
    for shown in (
        "Pool chat &amp; co",
        "Schema: text/label",
        "<summary>Labels before and after (20 rows)",
        "Data card",
    ):
        assert shown in html
    assert "| label | read | test | train |" in markdown
    assert "| label 00 | 5 | 1 | 3 |" in markdown
    assert "8 more in the HTML report" in markdown
    assert markdown.index("< 64 characters") < markdown.index("< 128 characters")


def test_an_example_marks_what_changed_and_runs_nothing(manifest: PoolsManifest) -> None:
    html, _ = make_pages(manifest)
    assert "System: &lt;b&gt;is 0&lt;/b&gt;<mark>\\u00a0</mark>lost" in html
    assert "System<mark> </mark>: &lt;b&gt;" in html
    assert "<script" not in html
    assert "<b>" not in html


def test_the_report_is_kept_in_mlflow(
    manifest: PoolsManifest, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIXTUNE_RUN_ID", "report-test")
    where = Tracking(uri=mlflow_uri, experiment="report")
    inputs = {"customer": MixedPools.of(manifest)}
    publish_data(where, ShardsManifest(num_steps=1, pools=("chat & co",), shards=(), inputs=inputs))
    client = MlflowClient(mlflow_uri)
    experiment = client.get_experiment_by_name("report")
    assert experiment
    (run,) = client.search_runs([experiment.experiment_id], "attributes.run_name = 'sanitize-customer'")
    assert {item.path for item in client.list_artifacts(run.info.run_id)} == {"sanitize.html", "sanitize.md"}
    page = client.download_artifacts(run.info.run_id, "sanitize.md")
    assert Path(page).read_text() == make_pages(manifest)[1]
    assert run.data.metrics["counts/chat _ co/kept"] == 80


def test_columns_that_judge_a_row_are_named_with_the_way_to_leave_rows_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"prompt": f"q {n}", "completion": f"a {n}", "Review Status": "no", "status": "rejected"} for n in range(20)
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({**row, "toxic": True}) + "\n" for row in rows))
    kept = sanitize(tmp_path, sources=[{"name": "p", "uri": str(tmp_path / "a.jsonl")}])
    assert kept.pools[0].num_records("train") == 20
    assert "no row was left out for its status, toxic; a column `accepted`, true or false" in capfd.readouterr().out


def test_turns_that_were_judged_are_named_too(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    answer = {"role": "assistant", "content": "a", "feedback": "bad"}
    rows = [{"messages": [{"role": "user", "content": f"q {number}"}, answer]} for number in range(20)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sanitize(tmp_path, sources=[{"name": "p", "uri": str(tmp_path / "a.jsonl")}])
    assert "no row was left out for its messages.feedback" in capfd.readouterr().out
