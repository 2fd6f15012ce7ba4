"""A compiled pipeline, read back from its YAML as KFP's own types."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

Component: TypeAlias = pipeline_spec_pb2.ComponentSpec
Container: TypeAlias = pipeline_spec_pb2.PipelineDeploymentConfig.PipelineContainerSpec
KubernetesConfig: TypeAlias = kubernetes_executor_config_pb2.KubernetesExecutorConfig
Task: TypeAlias = pipeline_spec_pb2.PipelineTaskSpec
KINDS = pipeline_spec_pb2.ParameterType.ParameterTypeEnum
"""Types of parameters."""
AT_EXIT = Task.TriggerPolicy.TriggerStrategy.ALL_UPSTREAM_TASKS_COMPLETED


@dataclass(frozen=True)
class Compiled:
    """A pipeline's components, containers and settings of Kubernetes."""

    spec: pipeline_spec_pb2.PipelineSpec
    deployment: pipeline_spec_pb2.PipelineDeploymentConfig
    kubernetes: dict[str, KubernetesConfig]
    """By the executor's label."""

    @classmethod
    def read(cls, path: Path) -> "Compiled":
        """Read a compiled pipeline."""
        first, *platforms = yaml.load_all(path.read_text(), yaml.CSafeLoader)
        executors = platforms[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"] if platforms else {}
        return cls(
            json_format.ParseDict(first, pipeline_spec_pb2.PipelineSpec()),
            json_format.ParseDict(first["deploymentSpec"], pipeline_spec_pb2.PipelineDeploymentConfig()),
            {label: json_format.ParseDict(item, KubernetesConfig()) for label, item in executors.items()},
        )

    def component(self, task: Task) -> Component:
        """Return a task's component."""
        return self.spec.components[task.component_ref.name]

    def container(self, task: Task) -> Container | None:
        """Return a task's container; None for a graph."""
        component = self.component(task)
        return None if is_graph(component) else self.deployment.executors[component.executor_label].container

    def graphs(self) -> Iterator["Graph"]:
        """Yield the root graph and all inside of it."""
        yield from Graph("root", self.spec.root, self).walk()


@dataclass(frozen=True)
class Graph:
    """One graph (DAG) of a pipeline."""

    name: str
    component: Component
    compiled: Compiled

    @property
    def tasks(self) -> dict[str, Task]:
        """The tasks of this graph, not of those inside, by name."""
        return dict(sorted(self.component.dag.tasks.items()))

    def walk(self) -> Iterator["Graph"]:
        """Yield this graph and all inside of it."""
        yield self
        for name, task in self.tasks.items():
            component = self.compiled.component(task)
            if is_graph(component):
                yield from Graph(name, component, self.compiled).walk()

    def before(self, name: str) -> set[str]:
        """Return the tasks of this graph that have ended when a task begins."""
        direct = set(self.tasks[name].dependent_tasks)
        return direct.union(*(self.before(other) for other in direct))


def is_graph(component: Component) -> bool:
    """Return whether a component holds tasks in place of a container."""
    return bool(component.HasField("dag"))
