"""`mixtune demo` at few steps, without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.typed_json import read_artifact

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # three minutes on a quiet machine


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(work: Path) -> str:
    path = os.pathsep.join([str(ROOT / "tests" / "blocked"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "mixtune.cli", "demo", "--epochs", "0.3", "--work-dir", str(work)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MIXTUNE_"))}
    done = subprocess.run(
        command, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_table_shows_scores_intervals_and_verdicts_of_every_mix(shown: str) -> None:
    table = shown[shown.index("knowledge") :]
    for name in ("base model", "customer only", "75 % customer", "50 % customer", "instructions", "customer F1"):
        assert name in table
    assert len(re.findall(r"\[[+-][\d.]+%?, [+-][\d.]+%?\]", table)) == 12
    assert len(re.findall(r"\b(?:pass|fail|inconclusive)\b", table)) >= 15
    assert re.search(r"^(Take \d+ %|No mix passed)", table, re.M)


def test_the_report_and_the_mlflow_run_that_it_names_are_there(shown: str, work: Path) -> None:
    (report,) = re.findall(r"(\S+\.html)", shown)
    folder = Path(report).parent
    assert 'href="report.html"' in Path(report).read_text()
    assert "<svg" in (folder / "report.html").read_text()
    mixes = [candidate.mix for candidate in read_artifact(GridReport, str(folder / "report.json")).candidates]
    one, *others = [mix.num_steps for mix in mixes]
    assert [mix.percent for mix in mixes] == [100, 75, 50]
    assert others == pytest.approx([one / 0.75, one / 0.5], abs=1), "the same customer exposure"
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{work / 'mlflow.db'}")
    found = client.search_runs([item.experiment_id for item in client.search_experiments()])
    parents = [run.data.tags for run in found if "mlflow.parentRunId" not in run.data.tags]
    assert [tags["verdict"] for tags in parents] in (["pass"], ["fail"], ["inconclusive"])
    assert f"mlflow ui --backend-store-uri sqlite:///{work / 'mlflow.db'}" in shown
