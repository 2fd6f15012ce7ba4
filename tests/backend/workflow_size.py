"""How large the workflow of a compiled pipeline becomes in Argo, computed from its YAML.

Argo keeps every input and output of every node in one Kubernetes object. Kubeflow Pipelines 2.17 makes six nodes of a
task (driver, task and executor, each with one for its retries), and all six carry the pod's patch: the component's
specification, its source, its inputs. The model writes such an object and measures it. Held against real runs of KFP
2.17 and Argo 4.0.5: within 3 percent for `prepare_data` (0.48 MB, 30 nodes) and `finetune` (1.41 MB, 103 nodes).
"""

import base64
import gzip
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from google.protobuf import json_format
from google.protobuf.message import Message

sys.path.insert(0, str(Path(__file__).parents[2]))
from pipelines.compiled import AT_EXIT, KINDS, Compiled, Component, Container, KubernetesConfig, Task, is_graph

LIMIT_BYTES = 1024 * 1024
"""Argo's largest workflow. Above it in plain JSON, nodes are compressed and KFP no longer updates a run's tasks; above
it compressed, Argo ends the run."""

Json: TypeAlias = "str | int | float | bool | Sequence[Json] | dict[str, Json] | None"
Parameters: TypeAlias = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class WorkflowSize:
    """Bytes of a workflow whose tasks have all run, none from the cache."""

    num_nodes: int
    plain_nodes: int
    compressed_nodes: int
    specification: int
    """What the workflow holds beside its nodes."""

    @property
    def stays_live(self) -> bool:
        """Whether KFP shows every task of the run to its end."""
        return self.plain_nodes + self.specification <= LIMIT_BYTES

    @property
    def compressed(self) -> int:
        """Bytes of the whole workflow where its nodes are compressed."""
        return self.compressed_nodes + self.specification


def workflow_size(path: Path, points: int = 2) -> WorkflowSize:
    """Model the workflow of a compiled pipeline in which every loop has so many points.

    Of exclusive branches the larger one is taken.
    """
    workflow = _Workflow(Compiled.read(path), points)
    workflow.add_run()
    nodes = _json(workflow.nodes)
    return WorkflowSize(
        num_nodes=len(workflow.nodes),
        plain_nodes=len(nodes),
        compressed_nodes=len(base64.b64encode(gzip.compress(nodes.encode(), mtime=0))),
        specification=workflow.specification(),
    )


def largest_grid(path: Path) -> int:
    """Return how many points the loop of a compiled pipeline may have before Argo ends the run for its size."""
    few, many = (workflow_size(path, points).compressed for points in (2, 10))
    return int((LIMIT_BYTES - few) // ((many - few) / 8)) + 2


@dataclass
class _Workflow:
    """The object in the making."""

    compiled: Compiled
    points: int
    nodes: dict[str, Json] = field(default_factory=dict)

    def add_run(self) -> None:
        path, root = "finetune-x7k2p", self.compiled.spec.root
        self._pair(path, "entrypoint", [], [])
        self._pair(f"{path}(0).root-driver", "system-dag-driver", [("component", _message(root))], _GRAPH_OUTPUTS)
        self._graph(f"{path}(0).root", "root", root)

    def specification(self) -> int:
        """Bytes without the nodes: each component and executor once, and a template for every task."""
        components = [self.compiled.spec.root, *self.compiled.spec.components.values()]
        executors = [*self.compiled.deployment.executors.values(), *self.compiled.kubernetes.values()]
        arguments = [_message(component) for component in components[1:]]
        arguments += sorted({_message(executor) for executor in executors})
        tasks = [(name, _message(task)) for item in components for name, task in item.dag.tasks.items()]
        return len(_json([arguments, [[*task, _TASK_TEMPLATE] for task in tasks]])) + _SYSTEM_TEMPLATES

    def _graph(self, path: str, name: str, component: Component) -> None:
        self._pair(path, f"comp-{name}", [("parent-dag-id", "123"), ("condition", "true")], [])
        tasks = component.dag.tasks
        branches = sorted(
            (task for task in tasks if tasks[task].trigger_policy.condition),
            key=lambda task: self._weight(self.compiled.component(tasks[task])),
        )
        for task_name, task in sorted(tasks.items()):
            if task_name in branches[:-1]:
                self._driver(f"{path}(0).{task_name}", task)
                self._node(f"{path}(0).{task_name}", "Skipped", "", [], [])
            else:
                self._task(f"{path}(0).{task_name}", task_name, task)

    def _task(self, path: str, name: str, task: Task) -> None:
        component = self.compiled.component(task)
        if task.trigger_policy.strategy == AT_EXIT:
            hook = f"{path.rpartition('.')[0]}.{task.dependent_tasks[0]}.onExit"
            self._pair(hook, f"exit-hook-root-{name}", [("parent-dag-id", "123")], [])
            path = f"{hook}(0).{name}"
        if task.HasField("parameter_iterator"):
            self._loop(path, name, task)
        elif is_graph(component):
            self._driver(path, task)
            self._graph(path, name, component)
        else:
            self._container(path, task)

    def _loop(self, path: str, name: str, task: Task) -> None:
        self._pair(path, f"comp-{name}-iterator", [("parent-dag-id", "123")], [])
        self._driver(f"{path}(0).iteration", task)
        self._node(f"{path}(0).iteration-iterations", "TaskGroup", "", [], [])
        for index in range(self.points):
            item = f"{path}(0).iteration-iterations({index}:{index})"
            self._pair(item, f"comp-{name}-iteration", [("parent-dag-id", "123"), ("iteration-index", str(index))], [])
            self._driver(f"{item}(0).iteration-item", task)
            self._graph(f"{item}(0).iteration-item", name, self.compiled.component(task))

    def _container(self, path: str, task: Task) -> None:
        label = self.compiled.component(task).executor_label
        container = self.compiled.deployment.executors[label].container
        kubernetes = self.compiled.kubernetes.get(label, KubernetesConfig())
        patch = self._patch(path, task, container, kubernetes)
        further = [("container", _message(container)), ("kubernetes-config", _message(kubernetes))]
        outputs = [("pod-spec-patch", patch), ("cached-decision", "false"), ("condition", "true")]
        self._driver(path, task, further, outputs)
        inputs = [("pod-spec-patch", patch)]
        if task.HasField("retry_policy"):
            inputs += [(f"retry-{key}", "60") for key in ("max-count", "backoff-duration", "backoff-factor")]
        self._pair(path, "system-container-executor", [*inputs, ("cached-decision", "false")], [])
        self._pair(f"{path}(0).executor", "system-container-impl", inputs, [], kind="Pod")

    def _driver(
        self, path: str, task: Task, further: Parameters | None = None, outputs: Parameters | None = None
    ) -> None:
        component = self.compiled.component(task)
        inputs = [("component", _message(component)), ("task", _message(task)), *(further or [])]
        inputs += [("task-name", path.rpartition(".")[2]), ("parent-dag-id", "123"), ("iteration-index", "-1")]
        template = f"system-{'dag' if is_graph(component) else 'container'}-driver"
        self._pair(f"{path}-driver", template, inputs, outputs or _GRAPH_OUTPUTS, kind="Pod")

    def _pair(self, path: str, template: str, inputs: Parameters, outputs: Parameters, kind: str = "DAG") -> None:
        """Add a node for a template's retries, and one for its first try."""
        self._node(path, "Retry", template, inputs, outputs)
        self._node(f"{path}(0)", kind, template, inputs, outputs)

    def _node(self, path: str, kind: str, template: str, inputs: Parameters, outputs: Parameters) -> None:
        number = int(hashlib.sha256(path.encode()).hexdigest()[:8], 16)
        name = f"finetune-x7k2p-{number}"
        produced: dict[str, Json] = {}
        if outputs:
            produced["parameters"] = [
                {"name": key, "value": value, "valueFrom": {"path": f"/tmp/{key}"}} for key, value in outputs
            ]
        if kind == "Pod":
            log = f"private-artifacts/kubeflow/finetune-x7k2p/2026/11/28/{name}/main.log"
            produced |= {"exitCode": "0", "artifacts": [{"name": "main-logs", "s3": {"key": log}}]}
        self.nodes[name] = {
            "id": name,
            "name": path,
            "displayName": path.rpartition(".")[2],
            "type": kind,
            "templateName": template,
            "templateScope": "local/finetune-x7k2p",
            "phase": "Succeeded",
            "boundaryID": f"finetune-x7k2p-{number // 7}",
            "startedAt": "2026-11-28T13:00:00Z",
            "finishedAt": "2026-11-28T13:05:00Z",
            "progress": "1/1",
            "resourcesDuration": {"cpu": number % 40, "memory": number % 300},
            "children": [f"finetune-x7k2p-{number // 3}"],
            "inputs": {"parameters": [{"name": key, "value": value} for key, value in inputs]},
            "outputs": produced,
            "message": _unlike(path, _OWN_BYTES) + "x" * _COMMON_BYTES,
        }

    def _patch(self, path: str, task: Task, container: Container, kubernetes: KubernetesConfig) -> str:
        """Return the patch that lets an executor's pod run the launcher with a component, its inputs and a command."""
        component = self.compiled.component(task)
        command = ["/kfp-launcher/launch", "--pipeline_name", self.compiled.spec.pipeline_info.name]
        command += ["--run_id", _uuid(path), "--execution_id", "1234"]
        command += ["--executor_input", _json(_executor_input(path, task, component))]
        command += ["--component_spec", _message(component), *_LAUNCHER_WORDS, "--"]
        further = [_message(item) for item in (*kubernetes.field_path_as_env, *kubernetes.tolerations)]
        volumes = list(_volumes(kubernetes))
        main: Json = {
            "name": "main",
            "image": container.image,
            "command": command,
            "args": [*container.command, *container.args],
            "resources": json_format.MessageToDict(container.resources),
            "env": [*map(json_format.MessageToDict, container.env), *further],
            "volumeMounts": [mount for _, mount in volumes],
        }
        return _json({"containers": [main], "volumes": [volume for volume, _ in volumes]})

    def _weight(self, component: Component) -> int:
        """Return the bytes of a component with all that is in it, to choose between branches."""
        inner = (self._weight(self.compiled.component(task)) for task in component.dag.tasks.values())
        return len(_message(component)) + sum(inner)


_LAUNCHER_WORDS = [
    "--pod_name", "$(KFP_POD_NAME)", "--pod_uid", "$(KFP_POD_UID)",
    "--mlmd_server_address", "metadata-grpc-service.kubeflow.svc.cluster.local", "--mlmd_server_port", "8080",
    "--ml_pipeline_server_address", "ml-pipeline.kubeflow.svc.cluster.local", "--publish_logs", "true",
    "--log_level", "1", "--cache_disabled", "false",
]  # fmt: skip
_GRAPH_OUTPUTS = [("execution-id", "1234"), ("iteration-count", "0"), ("condition", "true")]
_TASK_TEMPLATE = "{{tasks.a-driver.outputs.parameters.pod-spec-patch}}" * 8
_SYSTEM_TEMPLATES = 12_000
"""Templates that every workflow has, with the driver's and the launcher's arguments; bytes."""
_OWN_BYTES, _COMMON_BYTES = 450, 300
"""What a real node holds beside what is modelled, as text that compresses badly and well; calibrated."""


def _volumes(kubernetes: KubernetesConfig) -> Iterator[tuple[Json, Json]]:
    """Yield volumes and where they are mounted, as the driver writes them."""
    sources = [(item.config_map_name, "configMap", "name", item) for item in kubernetes.config_map_as_volume]
    sources += [(item.secret_name, "secret", "secretName", item) for item in kubernetes.secret_as_volume]
    for name, kind, key, item in sources:
        yield {"name": name, kind: {key: name, "optional": item.optional}}, {"name": name, "mountPath": item.mount_path}


def _executor_input(path: str, task: Task, component: Component) -> Json:
    inputs = component.input_definitions.parameters
    outputs = component.output_definitions
    values = {name: _value(path + name, source, inputs.get(name)) for name, source in task.inputs.parameters.items()}
    return {
        "inputs": {
            "parameterValues": values,
            "artifacts": {name: {"artifacts": [_artifact(path, name, "1234")]} for name in task.inputs.artifacts},
        },
        "outputs": {
            "parameters": {name: {"outputFile": f"/tmp/kfp/outputs/{name}"} for name in outputs.parameters},
            "artifacts": {
                name: {"artifacts": [_artifact(path, name, "")]} for name in [*outputs.artifacts, "executor-logs"]
            },
            "outputFile": "/tmp/kfp_outputs/output_metadata.json",
        },
    }


def _artifact(path: str, name: str, number: str) -> Json:
    folder = f"s3://mixtune-111122223333/kfp/finetune/{_uuid('run')}/{path.rpartition('.')[2]}/{_uuid(path)}"
    kind: Json = {"schemaTitle": "system.Dataset", "schemaVersion": "0.0.1"}
    return {"name": number, "type": kind, "uri": f"{folder}/{name}", "metadata": {"display_name": name}}


def _value(seed: str, source: Message, definition: Message | None) -> Json:
    """Return a parameter's constant or default, else a value as long as those of the demo's runs."""
    for message, name in ((source.runtime_value, "constant"), (definition, "default_value")):
        if message is not None and message.HasField(name):
            return json_format.MessageToDict(getattr(message, name)) or _uri(seed)
    kind = KINDS.Name(definition.parameter_type) if definition is not None else ""
    value: dict[str, Json] = {
        "LIST": [{"category": "chat", "uri": _uri(seed)}],
        "STRUCT": {"name": {"uri": _uri(seed)}},
    }
    return value.get(kind, _uri(seed) if kind == "STRING" else 1)


def _uri(seed: str) -> str:
    return f"s3://mixtune-111122223333/{seed.rpartition('.')[2]}#{_uuid(seed)}"


def _uuid(text: str) -> str:
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:32]}"


def _unlike(seed: str, length: int) -> str:
    return "".join(hashlib.sha256(f"{seed}{part}".encode()).hexdigest() for part in range(length // 64 + 1))[:length]


def _message(message: Message) -> str:
    return _json(json_format.MessageToDict(message))


def _json(value: Json) -> str:
    """Return JSON as Go writes it: no spaces, keys in order, and `<`, `>` and `&` escaped."""
    text = json.dumps(value, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
