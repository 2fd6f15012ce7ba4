"""Every compiled pipeline, run twice on the simulated back end; and the simulation itself, on small pipelines."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kfp import compiler, dsl

from mixtune.commands.arguments import find_pipeline
from mixtune.sanitize.run import read_parameters

from .simulation import CACHED, COMPLETE, RUNNING, Backend, Call, Pipeline, Run

NAMES = sorted(path.stem for path in find_pipeline("finetune").parent.glob("*.yaml"))
GIVEN = {
    "STRING": "s3://bucket/given",
    "NUMBER_DOUBLE": 1.0,
    "NUMBER_INTEGER": 1,
    "BOOLEAN": True,
    "LIST": [{"category": "chat", "uri": "s3://bucket/chat", "weight": 100.0}],
    "STRUCT": {},
}
STOP = {"action": "stop", "customer_data_percent": 50.0}


def plan_points(call: Call) -> dict[str, Any]:
    """The component's own work: a point for each percentage."""
    fields = {name: value for name, value in call.parameters.items() if name != "customer_data_percents"}
    return {"Output": [{"percent": percent, **fields} for percent in call.parameters["customer_data_percents"]]}


def plan_proxies(call: Call) -> dict[str, Any]:
    """The component's own work, with two proxies."""
    fields = {name: value for name, value in call.parameters.items() if name not in ("find_options", "seed")}
    return {"Output": [{"percent": percent, "epochs": 0.25, "seed": 1, **fields} for percent in (100.0, 75.0)]}


def go_on(call: Call) -> dict[str, Any]:
    """Hands on what it gets."""
    return dict(call.parameters)


def climb(actions: Mapping[str, str]) -> Any:
    """A ladder that goes on as told, by the method of the candidate that was tried."""
    return lambda call: {**STOP, "action": actions.get(call.parameters.get("method", "lora"), "stop")}


def fit_mix(call: Call) -> dict[str, Any]:
    """A share, the same for the same proxies."""
    return {"customer_data_percent": 80.0, "search_uri": "s3://bucket/search"}


def weigh(action: str) -> Any:
    """A search whose first full training passes, or does not."""
    return lambda call: {"action": action, "customer_data_percent": 60.0, "search_uri": "s3://bucket/search"}


def backend(**executors: Any) -> Backend:
    own = {"plan_points": plan_points, "plan_proxies": plan_proxies, "go_on": go_on, "fit_mix": fit_mix}
    return Backend({**own, "climb": climb({}), "weigh_mix": weigh("stop"), **executors})


def arguments(pipeline: Pipeline, **further: Any) -> dict[str, Any]:
    """What a pipeline needs; its other parameters keep their defaults."""
    definitions = pipeline.spec["root"]["inputDefinitions"]["parameters"]
    needed = {name: GIVEN[item["parameterType"]] for name, item in definitions.items() if not item.get("isOptional")}
    return {**needed, **{name: value for name, value in further.items() if name in definitions}}


def twice(name: str, **further: Any) -> tuple[Run, Run]:
    pipeline, kubeflow = Pipeline.load(find_pipeline(name)), backend()
    given = arguments(pipeline, **further)
    return kubeflow.run(pipeline, given), kubeflow.run(pipeline, given)


@pytest.mark.parametrize(
    ("name", "good_runs", "task"),
    [("finetune", 1, "evaluate-candidate"), ("mix_grid", 1, "evaluate-candidate"), ("lora_then_sft", 0, "choose-rung")],
)
def test_the_pipelines_of_b36d641_fail_where_the_real_back_end_did(
    name: str, good_runs: int, task: str, pipeline_before: Callable[[str], Path]
) -> None:
    pipeline, kubeflow = Pipeline.load(pipeline_before(name)), backend()
    given = arguments(pipeline)
    for _ in range(good_runs):
        assert kubeflow.run(pipeline, given).state == "SUCCEEDED"
    run = kubeflow.run(pipeline, given)
    assert (run.state, run.failed_task) == ("FAILED", task)
    assert "processing OneOf: No successful task found for output key" in run.error
    assert run.calls[-1].function == "clean_up", "the exit task runs all the same"


@pytest.mark.parametrize("method", ["lora", "sft"])
@pytest.mark.parametrize("name", NAMES)
def test_a_compiled_pipeline_succeeds_and_again_from_the_cache(name: str, method: str) -> None:
    first, second = twice(name, method=method)
    assert (first.state, first.error) == ("SUCCEEDED", "")
    assert (second.state, second.error) == ("SUCCEEDED", "")
    cached = {task for task, state in second.states().items() if state == CACHED}
    assert {"sanitize-general", "sanitize-customer", "evaluate-base"} & set(first.states()) <= cached
    assert {call.function for call in second.calls}.isdisjoint({"sanitize", "mix_shard", "evaluate", "train"})


def test_what_fingerprint_makes_of_the_options_reaches_both_sanitize_tasks() -> None:
    pipeline = Pipeline.load(find_pipeline("finetune"))
    options = {"splits": {"holdout_records": 50}, "consent": {"list_uri": "s3://b/who#1"}, "work_uri": "s3://b/work"}
    source = [{"name": "customer", "uri": "s3://b/c.csv#1"}]
    made = {"sanitize_options": options, "customer": source, "general": source}
    kubeflow = backend(fingerprint=lambda call: dict(made))
    run = kubeflow.run(pipeline, arguments(pipeline, sanitize_options={"consent": {"list_uri": "s3://b/who"}}))
    names = ("sources", "splits", "consent", "options")
    calls = [call.parameters for call in run.calls if call.function == "sanitize"]
    settings = [read_parameters({name: values.get(name, {}) for name in names}) for values in calls]
    assert [item.splits.holdout_records for item, _ in settings] == [50, 0]
    assert [item.splits.test_ratio for item, _ in settings] == [0, 0.1]
    assert {item.consent.list_uri for item, _ in settings} == {"s3://b/who#1"}


@pytest.mark.parametrize("name", ["evaluate_only", "restore"])
def test_a_trained_model_is_evaluated_by_its_digest_and_looked_at_once(name: str) -> None:
    pipeline = Pipeline.load(find_pipeline(name))
    kubeflow = backend(fingerprint=lambda call: {"model_uri": f"{call.parameters['model_uri']}#1"})
    run = kubeflow.run(pipeline, arguments(pipeline, model_uri="s3://b/tuned"))
    assert [call.function for call in run.calls].count("fingerprint") == 1
    evaluated = [call.parameters.get("model_uri") for call in run.calls if call.function == "evaluate"]
    assert evaluated.count("s3://b/tuned#1") == 1


def test_a_search_trains_a_second_share_where_the_first_did_not_pass() -> None:
    pipeline, kubeflow = Pipeline.load(find_pipeline("find_mix")), backend(weigh_mix=weigh("again"))
    run = kubeflow.run(pipeline, arguments(pipeline))
    assert (run.state, run.error) == ("SUCCEEDED", "")
    mixes = [call.parameters["customer_data_percent"] for call in run.calls if call.function == "mix_shard"]
    assert mixes == [100.0, 75.0, 80.0, 60.0], "two proxies, what `fit_mix` said, what `weigh_mix` said"


@pytest.mark.parametrize("actions", [{}, {"lora": "lora"}, {"lora": "sft"}])
def test_a_ladder_ends_on_every_rung(actions: dict[str, str]) -> None:
    pipeline, kubeflow = Pipeline.load(find_pipeline("lora_then_sft")), backend(climb=climb(actions))
    for _ in range(2):
        run = kubeflow.run(pipeline, arguments(pipeline))
        assert (run.state, run.error) == ("SUCCEEDED", "")
    methods = [call.parameters.get("method", "lora") for call in run.calls if call.function == "climb"]
    assert methods == {"": ["lora"], "lora": ["lora", "lora"], "sft": ["lora", "sft"]}[actions.get("lora", "")]


def test_a_grid_collects_its_points_in_their_order() -> None:
    first, _ = twice("mix_grid", customer_data_percents=[100.0, 62.5, 50.0])
    (choice,) = [call for call in first.calls if call.function == "choose_mix"]
    mixed = [call.parameters["customer_data_percent"] for call in first.calls if call.function == "mix_shard"]
    assert mixed == [100, 62.5, 50]
    assert [type(percent) for percent in mixed] == [int, float, int], "100.0 arrives as 100"
    numbers = [artifact.number for artifact in choice.artifacts["comparisons"]]
    assert numbers == sorted(numbers) and len(numbers) == 3


# Small pipelines, each with one thing in it.


def component(function: Any) -> Any:
    return dsl.component(base_image="mixtune-python-data:0", packages_to_install=[], install_kfp_package=False)(
        function
    )


@component
def work(number: float = 1.0) -> str:
    return str(number)


@component
def other_work(number: float = 1.0) -> str:
    return str(number)


@component
def hand_on(value: str) -> str:
    return value


@component
def measure(values: list = []) -> NamedTuple("Out", [("mean", float), ("text", str)]):  # noqa: B006
    return (1.0, "a")


def compiled(function: Any, tmp_path: Path) -> Pipeline:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="probe")(function), str(path))
    return Pipeline.load(path)


def branches(*, cached_end: bool) -> Any:
    def probe(method: str = "a") -> None:
        with dsl.If(method == "a", "a"):
            first = hand_on(value=work().output).set_caching_options(cached_end)
        with dsl.Else("b"):
            second = hand_on(value=other_work().output).set_caching_options(cached_end)
        hand_on(value=dsl.OneOf(first.output, second.output)).set_display_name("after")

    return probe


@pytest.mark.parametrize("method", ["a", "b"])
def test_a_branch_stays_open_where_its_last_task_comes_from_the_cache(method: str, tmp_path: Path) -> None:
    kubeflow, open_end = Backend(), compiled(branches(cached_end=True), tmp_path)
    assert kubeflow.run(open_end, {"method": method}).state == "SUCCEEDED"
    again = kubeflow.run(open_end, {"method": method})
    assert again.failed_task == "after"
    assert next(item.state for item in again.executions() if item.display_name == method) == RUNNING
    kubeflow, closed = Backend(), compiled(branches(cached_end=False), tmp_path)
    for _ in range(2):
        run = kubeflow.run(closed, {"method": method})
        assert run.state == "SUCCEEDED"
    assert next(item.state for item in run.executions() if item.display_name == method) == COMPLETE


def test_the_caches_key_holds_no_task_name_and_no_environment(tmp_path: Path) -> None:
    def probe() -> None:
        one = work(number=2.0).set_display_name("one")
        work(number=2.0).set_display_name("two").after(one).set_env_variable("A", "b")
        work(number=3.0).set_display_name("three").after(one)

    states = Backend().run(compiled(probe, tmp_path), {}).states()
    assert states == {"one": COMPLETE, "two": CACHED, "three": COMPLETE}


def test_a_number_of_gpus_reaches_a_task_in_an_exit_handler_only_as_somebodys_input(tmp_path: Path) -> None:
    def probe(gpus: str = "1") -> None:
        with dsl.ExitHandler(work()):
            work().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)

    run = Backend().run(compiled(probe, tmp_path), {})
    assert run.error == "parent DAG does not have input parameter pipelinechannel--gpus"

    def mended(gpus: str = "1") -> None:
        with dsl.ExitHandler(work()):
            work().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
            hand_on(value=gpus)

    assert Backend().run(compiled(mended, tmp_path), {}).state == "SUCCEEDED"


@pytest.mark.parametrize("mean", [math.nan, math.inf, None])
def test_a_number_that_json_does_not_have_fails_a_task_after_its_work(mean: Any, tmp_path: Path) -> None:
    def probe() -> None:
        after = measure()
        hand_on(value=after.outputs["text"])

    run = Backend({"measure": lambda call: {"mean": mean}}).run(compiled(probe, tmp_path), {})
    assert (run.failed_task, [call.function for call in run.calls]) == ("measure", ["measure"])
    assert run.states() == {"measure": "FAILED"}


def test_a_failure_stops_what_comes_after_and_the_exit_task_changes_nothing(tmp_path: Path) -> None:
    def fail(call: Call) -> Any:
        raise RuntimeError("no memory" if call.function == "work" else "no right")

    def probe() -> None:
        with dsl.ExitHandler(other_work()):
            hand_on(value=work().output)

    run = Backend({"work": fail, "other_work": fail}).run(compiled(probe, tmp_path), {})
    assert (run.state, run.failed_task, run.error) == ("FAILED", "work", "no memory")
    assert [call.function for call in run.calls] == ["work", "other_work"]


def test_a_loop_over_nothing_is_refused(tmp_path: Path) -> None:
    def probe(values: list = []) -> None:  # noqa: B006
        with dsl.ParallelFor(values, name="values") as value:
            hand_on(value=value)

    pipeline = compiled(probe, tmp_path)
    assert Backend().run(pipeline, {"values": ["a", "b"]}).state == "SUCCEEDED"
    assert "a loop over nothing" in Backend().run(pipeline, {}).error
