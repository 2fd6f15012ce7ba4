"""`mixtune demo` at few steps, without a network."""

import contextlib
import io
import os
import re
from pathlib import Path
from unittest import mock

import pytest

from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.typed_json import read_artifact
from mixtune.cli import main
from mixtune.commands.local.warm_steps import StepServer
from mixtune.demo import demo_data

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def shown(work: Path, no_network: None, one_server: StepServer) -> str:
    """What the command prints, in a world with a quarter of the items."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "MIXTUNE_"))}
    with (
        mock.patch.dict(os.environ, plain, clear=True),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as output,
    ):
        for name in ("NUM_CUSTOMER_RECORDS", "NUM_TEST_RECORDS", "NUM_IFEVAL_PROMPTS"):
            patch.setattr(demo_data, name, getattr(demo_data, name) // 4)
        assert main(["demo", "--epochs", "0.8", "--work-dir", str(work)]) == 0, output.getvalue()[-3000:]
    return output.getvalue()


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
