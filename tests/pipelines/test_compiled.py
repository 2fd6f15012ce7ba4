"""The committed YAML is what the code compiles to, and says what the design fixes."""

import inspect
import sys
from pathlib import Path

import pytest
import yaml
from kfp import compiler

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pipelines.compile import PACKAGE, components, pipelines  # noqa: E402

FILES = {**components(), **pipelines()}
FINETUNE = {
    "customer_uri", "customer_columns", "test_uri", "general_pools", "benchmarks", "base_model",
    "customer_data_percent", "customer_epochs", "max_steps", "global_batch_size", "max_length", "seed",
    "method", "learning_rate", "lora_rank", "lora_alpha", "num_nodes", "gpus_per_node", "tracking", "storage",
}  # fmt: skip
DEFAULTS = {
    "customer_data_percent": 50.0,
    "customer_epochs": 1.0,
    "global_batch_size": 32,
    "max_length": 8192,
    "method": "lora",
    "learning_rate": 1e-5,
    "lora_rank": 16,
    "lora_alpha": 32,
    "num_nodes": "",
    "gpus_per_node": "",
}


def load(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_committed_yaml_is_what_the_code_compiles_to(path: Path, tmp_path: Path) -> None:
    compiler.Compiler().compile(FILES[path], str(tmp_path / "fresh.yaml"))
    assert load(path) == load(tmp_path / "fresh.yaml"), "run `make compile`"


@pytest.mark.parametrize("path", pipelines(), ids=lambda path: path.stem)
def test_the_package_carries_the_compiled_pipelines(path: Path) -> None:
    assert (PACKAGE / "compiled" / path.name).read_bytes() == path.read_bytes(), "run `make compile`"


def test_finetune_has_its_twenty_parameters_and_the_articles_defaults() -> None:
    parameters = load(ROOT / "pipelines/finetune.yaml")[0]["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == FINETUNE
    assert {name: parameters[name]["defaultValue"] for name in DEFAULTS} == DEFAULTS


def test_the_validation_run_comes_before_the_training_and_has_five_steps() -> None:
    spec = load(ROOT / "pipelines/finetune.yaml")[0]
    for branch, training in (("comp-condition-3", "train-lora"), ("comp-condition-4", "train-sft")):
        tasks = spec["components"][branch]["dag"]["tasks"]
        steps = tasks[training]["inputs"]["parameters"]["validation_steps"]["runtimeValue"]["constant"]
        assert steps == 5.0
        assert tasks[f"{training}-2"]["dependentTasks"] == [training]


def test_only_what_depends_on_nothing_outside_is_cached() -> None:
    spec = load(ROOT / "pipelines/finetune.yaml")[0]
    tasks = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    cached = {name for name, task in tasks.items() if task.get("cachingOptions", {}).get("enableCache")}
    assert {"fingerprint", "preflight", "preflight-mixed", "compare", "record-outcome"}.isdisjoint(cached)
    assert {"sanitize", "sanitize-2", "mix-shard", "evaluate", "evaluate-2"} <= cached
    for name in ("sanitize", "sanitize-2", "mix-shard", "evaluate", "evaluate-2"):
        assert not {"tracking", "num_nodes", "gpus_per_node"} & set(tasks[name]["inputs"]["parameters"]), name
    for name in ("sanitize", "sanitize-2", "evaluate"):
        assert not {"weights", "customer_data_percent", "limits"} & set(tasks[name]["inputs"]["parameters"]), name


@pytest.mark.parametrize("name", ["finetune", "mix_grid"])
def test_whatever_becomes_of_a_run_that_starts_jobs_its_last_task_deletes_them(name: str) -> None:
    spec, platform = load(ROOT / f"pipelines/{name}.yaml")
    tasks = spec["root"]["dag"]["tasks"]
    assert set(tasks) == {"exit-handler-1", "clean-up"}, "every other task is inside the exit handler"
    assert tasks["clean-up"]["dependentTasks"] == ["exit-handler-1"]
    assert tasks["clean-up"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    assert not tasks["clean-up"]["cachingOptions"]
    executor = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-clean-up"]
    assert executor["fieldPathAsEnv"] == [{"fieldPath": "metadata.labels['pipeline/runid']", "name": "MIXTUNE_RUN_ID"}]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_step_installs_anything_or_runs_an_unpinned_image(path: Path) -> None:
    text = path.read_text()
    assert "pip install" not in text
    assert ":latest" not in text
    for executor in load(path)[0]["deploymentSpec"]["executors"].values():
        assert executor["container"]["image"].startswith("mixtune-python-")


@pytest.mark.parametrize("path", components(), ids=lambda path: path.stem)
def test_a_component_says_what_each_of_its_inputs_is(path: Path) -> None:
    documentation = inspect.getdoc(FILES[path].python_func) or ""
    for name in FILES[path].component_spec.inputs or {}:
        assert f"\n    {name}: " in documentation, f"{path.stem}: {name} is not described"


@pytest.mark.parametrize("name", ["finetune", "mix_grid", "lora_then_sft"])
def test_a_run_is_looked_at_before_anything_is_read_and_before_anything_is_trained(name: str) -> None:
    spec = load(ROOT / f"pipelines/{name}.yaml")[0]
    graphs = [item["dag"]["tasks"] for item in spec["components"].values() if "dag" in item]
    outer = next(tasks for tasks in graphs if "preflight" in tasks)
    assert "preflight" in outer["sanitize"]["dependentTasks"]
    mixed = next(tasks for tasks in graphs if "preflight-mixed" in tasks)
    waiting = [
        task for tasks in graphs for task in tasks.values() if "preflight-mixed" in task.get("dependentTasks", [])
    ]
    assert waiting and not mixed["preflight-mixed"]["cachingOptions"] and not outer["preflight"]["cachingOptions"]


@pytest.mark.parametrize("name", ["finetune", "mix_grid", "lora_then_sft"])
def test_the_webhook_is_a_mounted_secret_that_need_not_be_there_and_no_parameter(name: str) -> None:
    spec, platform = load(ROOT / f"pipelines/{name}.yaml")
    mounted = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-record-outcome"][
        "secretAsVolume"
    ]
    assert [(item["secretName"], item["mountPath"], item["optional"]) for item in mounted] == [
        ("mixtune-webhook", "/etc/mixtune/webhook", True)
    ]
    assert "webhook" not in str(spec["root"]["inputDefinitions"])
