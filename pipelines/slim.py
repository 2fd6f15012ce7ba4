"""Take out of a compiled pipeline what its run does not need.

Argo repeats a task's component, inputs and command some ten times in the run's object; above 1 MiB the run's page
stands still. The components' own YAML keeps everything, and the parameters of the pipeline keep their descriptions.
"""

from collections.abc import Sequence
from pathlib import Path

import yaml
from google.protobuf import json_format

from pipelines.compiled import Compiled, Component, Container, Task, is_graph

COMMAND = ("python3", "-m", "mixtune.step", "kfp.dsl.executor_main")
"""What a step runs, followed by the component's room and name: KFP's executor, with the function out of the image."""


def slim(path: Path, rooms: dict[str, str]) -> None:
    """Write a compiled pipeline anew without what its run does not need; `rooms` has the folder of each component."""
    text = path.read_text()
    header = text[: text.index("components:")]
    platform = text[text.index("\n---\n") + 1 :] if "\n---\n" in text else ""
    compiled = Compiled.read(path)
    tasks = [task for graph in compiled.graphs() for task in graph.component.dag.tasks.values()]
    for name, component in compiled.spec.components.items():
        if not is_graph(component):
            _drop_inputs(component, [task for task in tasks if task.component_ref.name == name])
        _drop_descriptions(component)
    for executor in compiled.deployment.executors.values():
        _name_function(executor.container, rooms)
    compiled.spec.deployment_spec.Clear()
    json_format.ParseDict(json_format.MessageToDict(compiled.deployment), compiled.spec.deployment_spec)
    path.write_text(header + yaml.dump(json_format.MessageToDict(compiled.spec), sort_keys=True) + platform)


def _drop_inputs(component: Component, tasks: Sequence[Task]) -> None:
    """Drop constants that are a parameter's default, parameters that no task sets, and defaults that all tasks replace.

    The function in the image has the same defaults. A constant without a definition is what the compiler adds for a
    task's resources, whose values the driver reads from the channels.
    """
    definitions = component.input_definitions.parameters
    for task in tasks:
        inputs = task.inputs.parameters
        for name, source in list(inputs.items()):
            if source.HasField("runtime_value") and (
                name not in definitions or source.runtime_value.constant == definitions[name].default_value
            ):
                del inputs[name]
    for name, definition in list(definitions.items()):
        times = sum(name in task.inputs.parameters for task in tasks)
        if definition.is_optional and not times:
            del definitions[name]
        elif times == len(tasks):
            definition.ClearField("is_optional")
            definition.ClearField("default_value")


def _drop_descriptions(component: Component) -> None:
    for definitions in (component.input_definitions, component.output_definitions):
        for item in (*definitions.parameters.values(), *definitions.artifacts.values()):
            item.ClearField("description")


def _name_function(container: Container, rooms: dict[str, str]) -> None:
    words = list(container.args)
    function = words[words.index("--function_to_execute") + 1]
    container.command[:] = [*COMMAND, f"{rooms[function]}.{function}"]
    container.args[:] = ["{{$}}"]
