"""A pipeline that fails on this machine fails at once."""

from kfp import components

from mixtune.commands.arguments import find_pipeline
from mixtune.commands.local_runner import drop_retries


def test_retries_for_lost_pods_are_not_waited_for_on_a_laptop() -> None:
    component = components.load_component_from_file(str(find_pipeline("finetune")))
    graph = component.component_spec.implementation.graph
    dags = [graph.root.dag, *(item.dag for item in graph.components.values())]
    assert any(task.HasField("retry_policy") for dag in dags for task in dag.tasks.values())
    drop_retries(component)
    assert not any(task.HasField("retry_policy") for dag in dags for task in dag.tasks.values())
