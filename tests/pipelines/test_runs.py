"""Every compiled pipeline beside finetune and mix_grid, which the demo's tests run, runs on this machine."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from mixtune.artifacts.comparison import Comparison
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.ladder import LadderReport
from mixtune.artifacts.mix_search import MixSearch
from mixtune.artifacts.model import find_manifest
from mixtune.artifacts.model_choice import ModelChoice
from mixtune.artifacts.typed_json import read_artifact
from mixtune.commands.arguments import find_pipeline, read_definitions
from mixtune.commands.local.run import run_pipeline
from mixtune.commands.local.warm_steps import StepServer
from mixtune.commands.local.work_dir import WorkDir
from mixtune.errors import TrainingError

pytestmark = pytest.mark.usefixtures("one_server")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> WorkDir:
    """One work folder: what an earlier test sanitized or evaluated comes from the cache."""
    return WorkDir(tmp_path_factory.mktemp("work"))


def arguments_of(name: str, small_run: dict[str, Any], **further: Any) -> dict[str, Any]:
    """What of a finetune run's arguments a pipeline takes."""
    known = read_definitions(find_pipeline(name))
    return {key: value for key, value in {**small_run, **further}.items() if key in known}


@pytest.mark.slow
def test_prepare_data_ends_in_shards_with_a_receipt(small_run: dict[str, Any], work: WorkDir) -> None:
    outcome = run_pipeline(find_pipeline("prepare_data"), arguments_of("prepare_data", small_run, max_steps=3), work)
    (manifest,) = work.run_dir(outcome.run_id).glob("*/mix-shard/shards")
    shards = json.loads(manifest.read_text())
    assert (shards["num_steps"], shards["mix_ratio"]) == (3, 0.75)
    assert next(pool["per_batch"] for pool in shards["receipt"]["pools"]) == [24, 24]
    assert not outcome.verdict


@pytest.mark.slow
def test_a_step_finds_loaded_what_takes_it_seconds(one_server: StepServer) -> None:
    for component in ("preflight.preflight", "evaluate.evaluate"):
        words = ["kfp.dsl.executor_main", component, "{}"]
        assert one_server.start(words, os.environ).wait() == 1, "it has no inputs"
    step = one_server.start(["import sys; print(*sys.modules)"], os.environ, "profile")
    loaded = step.stdout.read().split()
    assert step.wait() == 0
    assert {"sympy", "accelerate", "mlflow", "sqlalchemy", "alembic", "sklearn", "peft"} <= set(loaded)


@pytest.mark.slow
def test_evaluate_only_finds_no_difference_between_a_model_and_itself(small_run: dict[str, Any], work: WorkDir) -> None:
    arguments = arguments_of("evaluate_only", small_run, model_uri=small_run["base_model"])
    outcome = run_pipeline(find_pipeline("evaluate_only"), arguments, work)
    comparison = work.run_report(outcome.run_id)
    assert isinstance(comparison, Comparison) and outcome.verdict == comparison.verdict
    differences = {axis.axis: axis.measure.change.difference for axis in comparison.axes}
    assert differences == {"customer": 0.0, "general_nll": 0.0}


@pytest.mark.slow
def test_compare_models_takes_the_model_that_knows_more_of_the_customers_records(
    small_run: dict[str, Any], work: WorkDir, tmp_path: Path
) -> None:
    worse = shutil.copytree(small_run["base_model"], tmp_path / "worse")
    weights = load_file(worse / "model.safetensors")
    emptied = {name: value * ("mlp" not in name) for name, value in weights.items()}
    save_file(emptied, worse / "model.safetensors", {"format": "pt"})
    template = worse / "chat_template.jinja"
    template.write_text(template.read_text() + "{# another one #}")
    arguments = arguments_of("compare_models", small_run, other_model=str(worse))
    outcome = run_pipeline(find_pipeline("compare_models"), arguments, work)
    (path,) = work.run_dir(outcome.run_id).glob("*/choose-model/choice")
    choice = read_artifact(ModelChoice, str(path))
    assert [axis.axis for axis in choice.axes] == ["customer", "general_nll"]
    nll = choice.axes[1]
    assert (nll.better, nll.measure.metric) == (choice.first.name, "nll_of_answers")
    assert nll.measure.change.difference > 0 and nll.num_items > 10
    assert choice.first.usd_per_hour and "weights" in choice.first.serving
    assert choice.chosen == outcome.outputs["Output"] == choice.first.name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_restore_shows_a_training_before_and_after_it(small_run: dict[str, Any], work: WorkDir) -> None:
    arguments = arguments_of("finetune", small_run, max_steps=8, mix_options={"thinking": "off"})
    trained = run_pipeline(find_pipeline("finetune"), arguments, work)
    report = work.run_report(trained.run_id)
    assert isinstance(report, Comparison)
    uri = report.model_uri.partition("#")[0]
    steps = {"model_uri": uri, "max_steps": 3, "customer_data_percent": 25.0}
    outcome = run_pipeline(find_pipeline("restore"), arguments_of("restore", small_run, **steps), work)
    comparison = work.run_report(outcome.run_id)
    assert isinstance(comparison, Comparison) and outcome.verdict == comparison.verdict
    assert [point.strength for point in comparison.earlier] == [0.5, 1.0] and not comparison.dial
    whole = {axis.axis: axis.measure.candidate for axis in comparison.earlier[1].axes}
    assert whole == {axis.axis: axis.measure.candidate for axis in report.axes}
    manifest = find_manifest(comparison.model_uri)
    assert manifest and manifest.restoration and manifest.restoration.model_uri == report.model_uri
    assert manifest.chat.thinking == "off", "as the model was trained"
    for run_id, task, title in (
        (trained.run_id, "validate-training", "Validation run of 5 steps"),
        (outcome.run_id, "restore", "Training"),
    ):
        page = (work.pages(run_id) / f"{task}.html").read_text()
        assert re.search(f"<h1>Preflight of the mixed data.*<h2>{title}.*final loss", page, re.S)


@pytest.mark.slow
def test_mix_grid_fails_with_every_reason_when_no_point_can_be_trained(
    small_run: dict[str, Any], work: WorkDir
) -> None:
    grid = {"customer_data_percents": [100.0], "customer_epochs": 2.0, "learning_rate": 1e30}
    with pytest.raises(TrainingError, match=r"no mix could be trained \(100 %: step \d+: "):
        run_pipeline(find_pipeline("mix_grid"), arguments_of("mix_grid", small_run, **grid), work)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_find_mix_trains_at_the_share_that_short_trainings_recommend(small_run: dict[str, Any], work: WorkDir) -> None:
    options = {"customer_data_percents": [100.0, 50.0], "proxy_items": 20}
    arguments = arguments_of("find_mix", small_run, customer_epochs=2.0, find_options=options)
    outcome = run_pipeline(find_pipeline("find_mix"), arguments, work)
    (fitted, *_), tried = sorted(work.run_dir(outcome.run_id).glob("*/fit-mix/search")), work.run_report(outcome.run_id)
    search = read_artifact(MixSearch, str(fitted))
    lengths = [(score.percent, score.length) for score in search.scores if score.axis == "customer"]
    assert [percent for percent, _ in lengths] == [100.0, 100.0, 50.0]
    assert all(length < 0.5 for _, length in lengths), "proxies are short"
    assert isinstance(tried, GridReport) and tried.candidates[0].mix.percent == search.rounds[0].forecast.percent
    assert outcome.verdict == tried.verdict in ("pass", "fail", "inconclusive")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lora_then_sft_climbs_to_full_fine_tuning_where_the_target_is_missed_and_the_budget_allows_it(
    small_run: dict[str, Any], work: WorkDir
) -> None:
    ladder = {"customer_epochs": 0.25, "learning_rate": 1e-6, "customer_target": 0.99, "sft_max_steps": 10}
    arguments = arguments_of("lora_then_sft", small_run, **ladder)
    outcome = run_pipeline(find_pipeline("lora_then_sft"), arguments, work)
    report = work.run_report(outcome.run_id)
    assert isinstance(report, LadderReport)
    assert [rung.method for rung in report.rungs] == ["lora", "lora", "sft"]
    assert [rung.lora_rank for rung in report.rungs[:2]] == [16, 64]
    assert outcome.verdict == report.verdict in ("pass", "fail", "inconclusive")
    assert len({rung.comparison.model_uri for rung in report.rungs}) == 3
