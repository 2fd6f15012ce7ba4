"""`mixtune demo` at few steps: one pipeline twice, with one parameter changed, without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a minute on a quiet machine


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(work: Path) -> str:
    path = os.pathsep.join([str(ROOT / "tests" / "blocked"), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "mixtune.cli", "demo", "--max-steps", "5", "--work-dir", str(work)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "MIXTUNE_"))}
    done = subprocess.run(
        command, env={**environment, "PYTHONPATH": path}, capture_output=True, text=True, timeout=880, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def steps(part: str) -> tuple[set[str], set[str]]:
    """Tasks that ran, and tasks that came from the cache."""
    ran = set(re.findall(r"^([\w-]+): done in", part, re.M))
    return ran, set(re.findall(r"^([\w-]+): from the cache$", part, re.M))


def test_a_changed_percentage_runs_only_what_depends_on_it(shown: str) -> None:
    _, first, second = re.split(r"^== .* ==$", shown, flags=re.M)
    ran, cached = steps(first)
    assert not cached
    assert {"sanitize-general", "sanitize-customer", "evaluate-base", "mix-shard", "compare"} <= ran
    ran_again, cached = steps(second)
    assert cached == {"sanitize-general", "sanitize-customer", "evaluate-base"}
    assert ran_again == ran - cached


def test_the_table_shows_scores_intervals_and_verdicts_of_both_mixes(shown: str) -> None:
    table = shown[shown.index("knowledge") :]
    for name in ("base model", "customer only", "75 % customer", "instructions", "general NLL", "customer F1"):
        assert name in table
    assert len(re.findall(r"\[[+-][\d.]+%?, [+-][\d.]+%?\]", table)) == 8
    assert len(re.findall(r"\b(?:pass|fail|inconclusive)\b", table)) >= 10


def test_the_reports_and_the_mlflow_runs_that_it_names_are_there(shown: str, work: Path) -> None:
    reports = re.findall(r"(\S+\.html)", shown)
    assert len(reports) == 2
    assert all("<html" in Path(report).read_text() for report in reports)
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{work / 'mlflow.db'}")
    found = client.search_runs([item.experiment_id for item in client.search_experiments()])
    parents = [run.data.tags for run in found if "mlflow.parentRunId" not in run.data.tags]
    verdicts = [tags["verdict"] for tags in parents]
    assert len(verdicts) == 2
    assert f"mlflow ui --backend-store-uri sqlite:///{work / 'mlflow.db'}" in shown
