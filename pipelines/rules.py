"""The rules that a compiled pipeline keeps so that Kubeflow's back end can run it, and run it again.

The local runner and the compiler accept pipelines that fail on the back end, some of them only when they are run again.
`make compile` refuses a pipeline that breaks a rule, with the reason.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.compiled import AT_EXIT, KINDS, Compiled, Graph, Task, is_graph

CHANNEL = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
SMALL_CPU, SMALL_MEMORY_GB = 1.0, 4.0
"""What a task may reserve without a parameter: it fits a small node beside Kubeflow's own pods."""


def broken_rules(path: Path) -> list[str]:
    """Return a sentence for every rule that a compiled pipeline breaks."""
    graphs = list(Compiled.read(path).graphs())
    return [sentence for rule in RULES for graph in graphs for sentence in rule(graph)]


def _branches_are_closed(graph: Graph) -> Iterator[str]:
    """A branch is complete when the launcher of a task in it counts that all have ended; `OneOf` takes no other."""
    for output in graph.component.dag.outputs.parameters.values():
        for selector in output.value_from_oneof.parameter_selectors:
            branch = graph.tasks[selector.producer_subtask]
            component = graph.compiled.component(branch)
            if not is_graph(component):
                continue
            inner = Graph(selector.producer_subtask, component, graph.compiled)
            source = component.dag.outputs.parameters[selector.output_parameter_key]
            name = source.value_from_parameter.producer_subtask
            if not name or is_graph(graph.compiled.component(inner.tasks[name])):
                yield f"branch {_title(branch)}: OneOf takes what a graph inside of it makes; end it in a task"
                continue
            last = inner.tasks[name]
            if last.caching_options.enable_cache:
                yield (
                    f"branch {_title(branch)}: its last task {_title(last)} may come from the cache; then nobody "
                    "closes the branch and OneOf finds no successful task: set_caching_options(False)"
                )
            if beside := set(inner.tasks) - {name} - inner.before(name):
                yield (
                    f"branch {_title(branch)}: {_title(last)}, whose output OneOf takes, may end before "
                    f"{', '.join(sorted(beside))}: let it depend on all other tasks of the branch"
                )


def _inputs_are_handed_in(graph: Graph) -> Iterator[str]:
    """The compiler hands a parameter into a graph only where a task takes it as an input, not for its resources."""
    for task in graph.tasks.values() if graph.name != "root" else ():
        for source in task.inputs.parameters.values():
            name = source.component_input_parameter
            if name and name not in graph.component.input_definitions.parameters:
                yield (
                    f"{_title(task)}: {name.removeprefix('pipelinechannel--')} is used for its resources alone, and so "
                    f"not handed into {graph.name}: give it to a task there as an input too"
                )


def _resources_are_texts_and_fit(graph: Graph) -> Iterator[str]:
    """The driver reads the number in a parameter of another type as an empty text, and nothing is asked for."""
    for task in graph.tasks.values():
        container = graph.compiled.container(task)
        if container is None:
            continue
        resources = container.resources
        for text in (
            resources.resource_cpu_request, resources.resource_cpu_limit, resources.resource_memory_request,
            resources.resource_memory_limit, resources.accelerator.resource_count,
        ):  # fmt: skip
            for channel in CHANNEL.findall(text):
                source = task.inputs.parameters[channel].component_input_parameter
                definitions = graph.component.input_definitions.parameters
                if source in definitions and definitions[source].parameter_type != KINDS.STRING:
                    yield (
                        f"{_title(task)}: {source.removeprefix('pipelinechannel--')} is no text, and a resource given "
                        "by a number is not asked for: declare the parameter as str"
                    )
        if resources.cpu_request > SMALL_CPU or resources.memory_request > SMALL_MEMORY_GB:
            yield (
                f"{_title(task)}: reserves {resources.cpu_request:g} CPUs and {resources.memory_request:g} GB of "
                f"memory whatever the cluster has: take parameters, or at most {SMALL_CPU:g} and {SMALL_MEMORY_GB:g}"
            )


def _lost_pods_are_replaced(graph: Graph) -> Iterator[str]:
    """A task without retries ends its run with its node; the exit task must not be repeated by a policy."""
    for task in graph.tasks.values():
        repeatable = graph.compiled.container(task) and task.trigger_policy.strategy != AT_EXIT
        if repeatable and not task.retry_policy.max_retry_count:
            yield f"{_title(task)}: has no retry, so that a lost node ends the run: set_retry"


def _loops_and_defaults_are_whole(graph: Graph) -> Iterator[str]:
    """The driver finds no producer for an empty loop, no list inside a sub-graph, and hands no null on."""
    parameters = graph.component.input_definitions.parameters
    loops = {name for name, task in graph.tasks.items() if task.HasField("parameter_iterator")}
    for task in graph.tasks.values():
        if is_graph(graph.compiled.component(task)):
            producers = {item.task_output_parameter.producer_task for item in task.inputs.parameters.values()}
            producers |= {item.task_output_artifact.producer_task for item in task.inputs.artifacts.values()}
            if producers & loops:
                yield f"{_title(task)}: a collected list goes into a graph; collect it in a task"
        items = task.parameter_iterator.items
        if items.raw and not json.loads(items.raw):
            yield f"{_title(task)}: loops over an empty list"
        source = (
            task.inputs.parameters[items.input_parameter].component_input_parameter if items.input_parameter else ""
        )
        if source and parameters[source].is_optional and not parameters[source].default_value.list_value.values:
            yield f"{_title(task)}: loops over a parameter whose default is empty"
    for name, definition in parameters.items() if graph.name == "root" else ():
        if definition.is_optional and not definition.HasField("default_value"):
            yield f"parameter {name}: its default is None, which the back end does not hand on: take '', 0, [] or {{}}"


def _no_two_tasks_do_the_same(graph: Graph) -> Iterator[str]:
    """Of two tasks with one executor and the same inputs the second is a cache hit, whatever its name."""
    titles: dict[bytes, str] = {}
    for task in graph.tasks.values():
        container = graph.compiled.container(task)
        if container is None or not task.caching_options.enable_cache:
            continue
        work = b"".join(item.SerializeToString(deterministic=True) for item in (container, task.inputs))
        if work in titles:
            yield f"{_title(task)}: does the same as {titles[work]}: make them one, or set_caching_options(False)"
        titles[work] = _title(task)


def _title(task: Task) -> str:
    return str(task.task_info.name)


RULES: tuple[Callable[[Graph], Iterator[str]], ...] = (
    _branches_are_closed,
    _inputs_are_handed_in,
    _resources_are_texts_and_fit,
    _lost_pods_are_replaced,
    _loops_and_defaults_are_whole,
    _no_two_tasks_do_the_same,
)
