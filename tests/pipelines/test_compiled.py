"""The committed YAML is what the code compiles to, and says what the design fixes."""

import ast
import inspect
import sys
from pathlib import Path

import pytest
import yaml

from mixtune.step import read_module

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from pipelines.compile import PACKAGE, compile_all, components, pipelines  # noqa: E402

FILES = {**components(), **pipelines()}
WITH_JOBS = ["finetune", "mix_grid", "lora_then_sft"]
BY_NAME = {path.stem: component for path, component in components().items()}
STEPS = {f"{path.parent.name}.{path.stem}" for path in components()}
FINETUNE = {
    "customer_uri", "customer_columns", "test_uri", "general_pools", "benchmarks", "base_model",
    "customer_data_percent", "customer_epochs", "max_steps", "method", "learning_rate", "seed",
    "sanitize_options", "mix_options", "train_options", "evaluate_options", "num_nodes", "gpus_per_node",
    "data_cpu", "data_memory", "tracking", "storage",
}  # fmt: skip
DEFAULTS = {
    "customer_data_percent": 50.0,
    "customer_epochs": 1.0,
    "method": "lora",
    "learning_rate": 1e-5,
    "num_nodes": "",
    "gpus_per_node": "",
}


def load(path: Path) -> list[dict]:
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


def compiled(name: str) -> list[dict]:
    """A compiled pipeline: its specification, and what is Kubernetes' own."""
    return load(PACKAGE / "compiled" / f"{name}.yaml")


def tasks_of(spec: dict) -> dict[str, dict]:
    """All tasks of a pipeline that run a container, by name; a graph's own begin with its name."""
    graphs = {"": spec["root"], **spec["components"]}
    return {
        f"{graph}/{name}".lstrip("/"): task
        for graph, component in graphs.items()
        for name, task in component.get("dag", {}).get("tasks", {}).items()
        if "executorLabel" in spec["components"][task["componentRef"]["name"]]
    }


def function_of(spec: dict, task: dict) -> str:
    """Name of the function that a task runs."""
    label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
    return spec["deploymentSpec"]["executors"][label]["container"]["command"][-1].partition(".")[2]


def test_the_committed_yaml_is_what_the_code_compiles_to(tmp_path: Path) -> None:
    fresh = compile_all(tmp_path)
    assert {path.relative_to(tmp_path) for path in fresh} == {path.relative_to(PACKAGE) for path in FILES}
    for path in fresh:
        assert load(PACKAGE / path.relative_to(tmp_path)) == load(path), f"{path.stem}: run `make compile`"


def test_finetune_has_its_parameters_and_the_articles_defaults() -> None:
    parameters = compiled("finetune")[0]["root"]["inputDefinitions"]["parameters"]
    assert set(parameters) == FINETUNE
    assert {name: parameters[name]["defaultValue"] for name in DEFAULTS} == DEFAULTS
    assert all(item["description"] for item in parameters.values()), "the page says what each parameter is"


@pytest.mark.parametrize("name", WITH_JOBS)
def test_the_validation_run_comes_before_the_training_and_has_five_steps(name: str) -> None:
    tasks = tasks_of(compiled(name)[0])
    trainings = [path for path, task in tasks.items() if task["taskInfo"]["name"] == "train"]
    assert trainings
    for path in trainings:
        graph, _, _own = path.rpartition("/")
        (earlier,) = set(tasks[path]["dependentTasks"]) & {"train", "train-3", "train-5"}
        validation = tasks[f"{graph}/{earlier}"]
        assert validation["inputs"]["parameters"]["validation_steps"]["runtimeValue"]["constant"] == 5.0
        assert tasks[path]["inputs"]["parameters"]["validated"]["taskOutputParameter"]["producerTask"] == earlier


def test_only_what_depends_on_nothing_outside_is_cached() -> None:
    tasks = tasks_of(compiled("finetune")[0])
    inputs = {
        task["taskInfo"]["name"]: set(task["inputs"]["parameters"]) for task in tasks.values() if "inputs" in task
    }
    cached = {task["taskInfo"]["name"] for task in tasks.values() if task["cachingOptions"].get("enableCache")}
    assert cached == {
        "sanitize-general", "sanitize-customer", "mix-shard", "evaluate-base", "evaluate-candidate",
        "validate-training", "train",
    }  # fmt: skip
    for name in ("sanitize-general", "sanitize-customer", "mix-shard", "evaluate-base", "evaluate-candidate"):
        assert not {"tracking", "num_nodes", "gpus_per_node"} & inputs[name], name
    for name in ("sanitize-general", "sanitize-customer", "evaluate-base"):
        assert not {"weights", "customer_data_percent", "limits"} & inputs[name], name


@pytest.mark.parametrize("path", pipelines(), ids=lambda path: path.stem)
def test_every_task_but_the_last_is_repeated_after_a_failure_and_has_the_namespaces_settings(path: Path) -> None:
    spec, platform = load(path)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    for name, task in tasks_of(spec).items():
        if name == "clean-up":
            assert "retryPolicy" not in task
            continue
        # Argo counts the longest duration from the beginning of the first attempt: a training takes days.
        assert task["retryPolicy"]["maxRetryCount"] == 2, name
        assert int(task["retryPolicy"]["backoffMaxDuration"].rstrip("s")) > 7 * 24 * 3600, name
        executor = executors.get(spec["components"][task["componentRef"]["name"]]["executorLabel"], {})
        inputs = BY_NAME[function_of(spec, task)].component_spec.inputs or {}
        volumes = [(kind, item) for kind in ("configMap", "secret") for item in executor.get(f"{kind}AsVolume", [])]
        mounted = {item["mountPath"]: (item[f"{kind}Name"], item["optional"]) for kind, item in volumes}
        mounted.pop("/etc/mixtune/webhook", None)
        settings = {"/etc/mixtune/env": ("mixtune-env", True), "/etc/mixtune/secrets": ("mixtune-secrets", True)}
        assert mounted == (settings if "storage" in inputs else {}), name


@pytest.mark.parametrize("path", pipelines(), ids=lambda path: path.stem)
def test_a_compiled_pipeline_repeats_neither_documentation_nor_source_of_its_components(path: Path) -> None:
    spec = load(path)[0]
    assert "description" not in str(spec["components"])
    for executor in spec["deploymentSpec"]["executors"].values():
        *command, component = executor["container"]["command"]
        assert command == ["python3", "-m", "mixtune.step", "kfp.dsl.executor_main"]
        assert component in STEPS and executor["container"]["args"] == ["{{$}}"]


@pytest.mark.parametrize("path", pipelines(), ids=lambda path: path.stem)
def test_what_a_compiled_pipeline_leaves_out_the_function_has_as_its_default(path: Path) -> None:
    spec = load(path)[0]
    shells = {name: component.component_spec.inputs or {} for name, component in BY_NAME.items()}
    for name, task in tasks_of(spec).items():
        component = spec["components"][task["componentRef"]["name"]]
        inputs = shells[function_of(spec, task)]
        given = task.get("inputs", {})
        there = {*given.get("parameters", {}), *given.get("artifacts", {})}
        assert {key for key, item in inputs.items() if not item.optional} <= there, name
        assert set(component.get("inputDefinitions", {}).get("parameters", {})) <= there, name


@pytest.mark.parametrize("path", components(), ids=lambda path: path.stem)
def test_a_step_runs_the_source_that_the_components_own_yaml_carries(path: Path) -> None:
    source = read_module(f"{path.parent.name}.{path.stem}")
    (executor,) = load(path)[0]["deploymentSpec"]["executors"].values()
    assert ast.dump(ast.parse(source)) == ast.dump(ast.parse(executor["container"]["command"][-1]))


@pytest.mark.parametrize("name", WITH_JOBS)
def test_whatever_becomes_of_a_run_that_starts_jobs_its_last_task_deletes_them(name: str) -> None:
    spec, platform = compiled(name)
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


@pytest.mark.parametrize("name", WITH_JOBS)
def test_a_run_is_looked_at_before_anything_is_read_and_before_anything_is_trained(name: str) -> None:
    spec = compiled(name)[0]
    graphs = [item["dag"]["tasks"] for item in spec["components"].values() if "dag" in item]
    outer = next(tasks for tasks in graphs if "preflight" in tasks)
    assert "preflight" in outer["sanitize"]["dependentTasks"]
    assert not outer["preflight"]["cachingOptions"]
    validations = [
        task for tasks in graphs for task in tasks.values() if task["taskInfo"]["name"] == "validate-training"
    ]
    assert validations, "which looks at the mixed data before it loads a model"
    assert all(
        "report" in spec["components"][task["componentRef"]["name"]]["outputDefinitions"]["artifacts"]
        for task in validations
    )


@pytest.mark.parametrize("name", WITH_JOBS)
def test_the_webhook_is_a_mounted_secret_that_need_not_be_there_and_no_parameter(name: str) -> None:
    spec, platform = compiled(name)
    mounted = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]["exec-record-outcome"][
        "secretAsVolume"
    ]
    places = [(item["secretName"], item["mountPath"], item["optional"]) for item in mounted]
    assert ("mixtune-webhook", "/etc/mixtune/webhook", True) in places
    assert "webhook" not in str(spec["root"]["inputDefinitions"])
