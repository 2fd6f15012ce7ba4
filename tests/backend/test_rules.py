"""The rules of `pipelines/rules.py`: what breaks one is refused, and no shipped pipeline breaks any."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Optional

import pytest
from kfp import compiler, dsl

from mixtune.commands.arguments import find_pipeline

from .simulation import Backend, Pipeline
from .test_simulation import NAMES, branches, hand_on, other_work, work

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.rules import broken_rules


def retried(task: Any) -> Any:
    return task.set_retry(2)


def broken(function: Any, tmp_path: Path) -> list[str]:
    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="probe")(function), str(path))
    return [sentence for sentence in broken_rules(path) if "set_retry" not in sentence]


@pytest.mark.parametrize("name", NAMES)
def test_no_shipped_pipeline_breaks_a_rule(name: str) -> None:
    assert broken_rules(find_pipeline(name)) == []


@pytest.mark.parametrize("name", ["finetune", "lora_then_sft", "mix_grid"])
def test_the_pipelines_of_b36d641_break_the_rule_of_branches_and_have_no_retries(
    name: str, pipeline_before: Callable[[str], Path]
) -> None:
    reasons = broken_rules(pipeline_before(name))
    assert any("nobody closes the branch and OneOf finds no successful task" in reason for reason in reasons)
    assert any(reason.startswith("train: has no retry") for reason in reasons)
    assert any("reserves 4 CPUs and 16 GB of memory whatever the cluster has" in reason for reason in reasons)


def test_a_branch_that_ends_in_a_task_from_the_cache_is_refused(tmp_path: Path) -> None:
    (first, second) = broken(branches(cached_end=True), tmp_path)
    assert first.startswith("branch a: its last task hand-on may come from the cache")
    assert second.startswith("branch b: ")
    assert broken(branches(cached_end=False), tmp_path) == []


def test_a_branch_whose_last_task_may_end_before_another_is_refused(tmp_path: Path) -> None:
    def probe(method: str = "a") -> None:
        with dsl.If(method == "a", "a"):
            work()
            first = hand_on(value="x").set_caching_options(False)
        with dsl.Else("b"):
            second = hand_on(value="y").set_caching_options(False)
        hand_on(value=dsl.OneOf(first.output, second.output))

    assert broken(probe, tmp_path) == [
        "branch a: hand-on, whose output OneOf takes, may end before work: let it depend on all other tasks of the branch"
    ]


def test_what_the_simulation_refuses_for_its_resources_the_rules_refuse_too(tmp_path: Path) -> None:
    def probe(gpus: str = "1") -> None:
        with dsl.ExitHandler(work()):
            other_work().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)

    assert broken(probe, tmp_path) == [
        "other-work: gpus is used for its resources alone, and so not handed into exit-handler-1: give it to a task "
        "there as an input too"
    ]
    assert Backend().run(Pipeline.load(tmp_path / "pipeline.yaml"), {}).state == "FAILED"


def test_a_number_for_gpus_and_a_fixed_large_request_are_refused(tmp_path: Path) -> None:
    def probe(gpus: int = 1) -> None:
        work().set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
        other_work().set_cpu_request("4").set_memory_request("2G")

    assert sorted(set(broken(probe, tmp_path))) == [
        "other-work: reserves 4 CPUs and 2 GB of memory whatever the cluster has: take parameters, or at most 1 and 4",
        "work: gpus is no text, and a resource given by a number is not asked for: declare the parameter as str",
    ]


def test_two_tasks_that_do_the_same_are_one_or_are_not_cached(tmp_path: Path) -> None:
    def probe() -> None:
        one = work(number=2.0).set_display_name("one")
        work(number=2.0).set_display_name("two").after(one)
        work(number=2.0).set_display_name("three").set_caching_options(False)

    assert broken(probe, tmp_path) == ["two: does the same as one: make them one, or set_caching_options(False)"]


def test_empty_loops_and_missing_defaults_are_refused(tmp_path: Path) -> None:
    def probe(text: Optional[str] = None, values: list = []) -> None:  # noqa: B006, UP045
        with dsl.ParallelFor(values, name="values") as value:
            hand_on(value=value)

    assert broken(probe, tmp_path) == [
        "values: loops over a parameter whose default is empty",
        "parameter text: its default is None, which the back end does not hand on: take '', 0, [] or {}",
    ]


def test_a_task_without_retries_is_refused_but_for_the_exit_task(tmp_path: Path) -> None:
    def probe() -> None:
        with dsl.ExitHandler(work()):
            retried(other_work())
            hand_on(value="x")

    path = tmp_path / "pipeline.yaml"
    compiler.Compiler().compile(dsl.pipeline(name="probe")(probe), str(path))
    assert broken_rules(path) == ["hand-on: has no retry, so that a lost node ends the run: set_retry"]
