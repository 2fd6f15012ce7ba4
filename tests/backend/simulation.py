"""What Kubeflow Pipelines 2.17 keeps in its books while a compiled pipeline runs, with stub executors.

Written after the sources of KFP 2.17 (`backend/src/v2`: `driver/resolve.go`, `driver/cache.go`, `driver/container.go`,
`metadata/client.go`, `component/launcher_v2.go`) and checked against runs on a real back end. It holds what the local
runner does not show:

- A DAG begins as RUNNING. Only the launcher of a task in it, when it counts that all tasks of the DAG have ended, sets
  it to COMPLETE (and its parents after it). A task from the cache has no launcher.
- `OneOf` takes the first producer in its list whose state is CACHED or COMPLETE.
- The cache's key is made of image, command, inputs and outputs: it holds neither the task's name nor its environment.
- Argo starts a task when all that it depends on have *succeeded*: a skipped one has not. After a failure in a DAG
  nothing new is started in it; an exit task runs all the same.
- Numbers are JSON numbers: 100.0 arrives as `100`. NaN, infinity and `None` are refused after the task's work.

Simplified: one task at a time; where several could run, those that a launcher ends come before those from the cache,
which is the order that leaves most DAGs open.
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

RUNNING, COMPLETE, CACHED, FAILED, CANCELED = "RUNNING", "COMPLETE", "CACHED", "FAILED", "CANCELED"
ENDED = (COMPLETE, CACHED, CANCELED)
CHANNEL = re.compile(r"\{\{\$\.inputs\.parameters\['([^']+)'\]\}\}")
VALUE = re.compile(r"inputs\.parameter_values\['([^']+)'\]")

Object = dict[str, Any]
Executor = Callable[["Call"], Mapping[str, Any]]
"""A task's work: its output parameters; what it leaves out is made up from its inputs."""


class DriverError(Exception):
    """A driver that ends in an error; the text is its last line."""


class LauncherError(Exception):
    """A launcher that fails after its task's work."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What an executor gets."""

    function: str
    """Name of the component's function."""
    task: str
    """Display name of its task."""
    parameters: Object
    """As the launcher hands them over: defaults filled in, whole numbers as int."""
    artifacts: dict[str, list["Artifact"]]


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """An artifact in the metadata store."""

    number: int
    uri: str
    metadata: Object


@dataclass(kw_only=True)
class Execution:
    """One row of the metadata store: a task or a DAG."""

    name: str
    display_name: str
    state: str
    parent: "Execution | None" = None
    tasks_expected: int | None = None
    """For a DAG: how many of its tasks must have ended before it is complete."""
    iteration: int | None = None
    inputs: Object = field(default_factory=dict)
    input_artifacts: dict[str, list[Artifact]] = field(default_factory=dict)
    outputs: Object = field(default_factory=dict)
    output_artifacts: dict[str, Artifact] = field(default_factory=dict)
    dag_outputs: Object = field(default_factory=dict)
    children: list["Execution"] = field(default_factory=list)

    def child(self, name: str) -> "Execution | None":
        return next((item for item in self.children if item.name == name), None)


@dataclass(kw_only=True)
class Run:
    """What became of a run."""

    root: Execution
    state: str = "SUCCEEDED"
    failed_task: str = ""
    """Display name of the first task that failed."""
    error: str = ""
    calls: list[Call] = field(default_factory=list)

    def executions(self, parent: Execution | None = None) -> Iterator[Execution]:
        for item in (parent or self.root).children:
            yield item
            yield from self.executions(item)

    def states(self) -> dict[str, str]:
        """State of every task by its display name; of several tasks of one name the last one's."""
        return {item.display_name: item.state for item in self.executions() if item.tasks_expected is None}


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A compiled pipeline."""

    name: str
    spec: Object
    platform: Object

    @classmethod
    def load(cls, path: Path) -> "Pipeline":
        spec, *further = yaml.load_all(path.read_text(), yaml.CSafeLoader)
        return cls(name=spec["pipelineInfo"]["name"], spec=spec, platform=further[0] if further else {})

    def component(self, task: Object) -> Object:
        return dict(self.spec["components"][task["componentRef"]["name"]])

    def container(self, component: Object) -> Object:
        return dict(self.spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"])


class Backend:
    """A back end; its cache outlives its runs."""

    def __init__(self, executors: Mapping[str, Executor] | None = None) -> None:
        self.executors = dict(executors or {})
        """By the name of the component's function."""
        self.cache: dict[str, Execution] = {}
        self.runs = 0
        self.artifacts = 0

    def run(self, pipeline: Pipeline, arguments: Mapping[str, Any]) -> Run:
        self.runs += 1
        root = Execution(name="root", display_name="root", state=RUNNING, tasks_expected=0)
        definitions = pipeline.spec["root"].get("inputDefinitions", {}).get("parameters", {})
        defaults = {name: item["defaultValue"] for name, item in definitions.items() if "defaultValue" in item}
        root.inputs = as_json({**defaults, **arguments})
        run = Run(root=root)
        _Driver(self, pipeline, run).run_dag(pipeline.spec["root"], root)
        return run

    def new_artifact(self, uri: str, metadata: Object) -> Artifact:
        self.artifacts += 1
        return Artifact(number=self.artifacts, uri=uri, metadata=metadata)


@dataclass(frozen=True)
class _Driver:
    """Drivers and launchers of one run."""

    backend: Backend
    pipeline: Pipeline
    run: Run

    def run_dag(self, component: Object, dag: Execution) -> bool:
        """Run a DAG's tasks as Argo does; whether all went well."""
        tasks = component["dag"]["tasks"]
        left = dict(tasks)
        succeeded: set[str] = set()
        ended: set[str] = set()
        well = True
        while well and (ready := [name for name, task in left.items() if _ready(task, succeeded)]):
            name = min(ready, key=lambda name: (self.from_cache(left[name], dag), list(left).index(name)))
            outcome = self.run_task(name, left.pop(name), dag)
            ended.add(name)
            well = outcome is not False
            if outcome:
                succeeded.add(name)
        for name, task in left.items():
            strategy = task.get("triggerPolicy", {}).get("strategy")
            if strategy == "ALL_UPSTREAM_TASKS_COMPLETED" and set(task.get("dependentTasks", [])) <= ended:
                before = (self.run.state, self.run.failed_task, self.run.error)
                self.run_task(name, task, dag)
                self.run.state, self.run.failed_task, self.run.error = before
        return well

    def run_task(self, name: str, task: Object, dag: Execution) -> bool | None:
        """Run one task: True where it succeeded, None where its condition does not hold, False where it failed."""
        component = self.pipeline.component(task)
        display_name = task.get("taskInfo", {}).get("name", name)
        try:
            if "dag" in component and "parameterIterator" in task:
                return self.run_loop(name, task, component, dag)
            inputs, artifacts = self.resolve(task, component, dag)
            execution = Execution(
                name=name,
                display_name=display_name,
                state=RUNNING,
                parent=dag,
                inputs=inputs,
                input_artifacts=artifacts,
            )
            if not _holds(task.get("triggerPolicy", {}).get("condition", ""), inputs):
                execution.state = CANCELED
                dag.children.append(execution)
                if "dag" in component:
                    execution.tasks_expected = len(component["dag"]["tasks"])
                return None
            if "dag" in component:
                return self.run_sub_dag(component, execution)
            self.resources(component, inputs)
            return self.run_container(task, component, execution)
        except (DriverError, LauncherError) as error:
            self.fail(display_name, error)
            return False

    def run_sub_dag(self, component: Object, execution: Execution) -> bool:
        execution.tasks_expected = len(component["dag"]["tasks"])
        execution.dag_outputs = component["dag"].get("outputs", {})
        assert execution.parent
        execution.parent.children.append(execution)
        return self.run_dag(component, execution)

    def run_loop(self, name: str, task: Object, component: Object, dag: Execution) -> bool:
        """A DAG that holds one DAG for each item."""
        inputs, artifacts = self.resolve(task, component, dag)
        iterator = task["parameterIterator"]
        where = iterator["items"].get("inputParameter", "")
        items = inputs.pop(where) if where else json.loads(iterator["items"]["raw"])
        if isinstance(items, str):
            items = json.loads(items)
        head = Execution(
            name=name,
            display_name=task["taskInfo"]["name"],
            state=RUNNING,
            parent=dag,
            tasks_expected=len(items),
            dag_outputs=component["dag"].get("outputs", {}),
        )
        dag.children.append(head)
        if not items:
            raise DriverError(f"{name}: a loop over nothing: no launcher ends it, and Collected finds no producer")
        well = True
        for index, item in enumerate(items):
            values = _typed({**inputs, iterator["itemInput"]: item}, component)
            one = Execution(
                name=f"{name}-{index}",
                display_name=head.display_name,
                state=RUNNING,
                parent=head,
                iteration=index,
                inputs=values,
                input_artifacts=artifacts,
            )
            well = self.run_sub_dag(component, one) and well
        return well

    def run_container(self, task: Object, component: Object, execution: Execution) -> bool:
        assert execution.parent
        execution.parent.children.append(execution)
        definitions = component.get("outputDefinitions", {})
        key = self.cache_key(task, component, execution.inputs, execution.input_artifacts)
        if key and (hit := self.backend.cache.get(key)):
            execution.outputs, execution.output_artifacts = hit.outputs, hit.output_artifacts
            execution.state = CACHED
            return True
        call = Call(
            function=_function(self.pipeline.container(component)),
            task=execution.display_name,
            parameters=as_json({**_defaults(component), **execution.inputs}),
            artifacts=execution.input_artifacts,
        )
        self.run.calls.append(call)
        try:
            self.execute(call, definitions, execution)
            execution.state = COMPLETE
            if key:
                self.backend.cache[key] = execution
            return True
        except Exception as error:
            execution.state = FAILED
            self.fail(execution.display_name, error)
            return False
        finally:
            _close(execution.parent)

    def execute(self, call: Call, definitions: Object, execution: Execution) -> None:
        """The step's work, and what the launcher makes of its outputs."""
        stub = self.backend.executors.get(call.function, lambda _: {})
        answer = dict(stub(call))
        metadata = answer.pop("metadata", {})
        outputs = {}
        for name, definition in definitions.get("parameters", {}).items():
            outputs[name] = answer.get(name, _made_up(call, name, definition["parameterType"]))
            _finite(outputs[name], f"output {name}")
        execution.outputs = as_json(outputs)
        root = f"s3://bucket/kfp/{self.pipeline.name}/run-{self.backend.runs}/{call.task}"
        for name in definitions.get("artifacts", {}):
            _finite(metadata.get(name, {}), f"metadata of {name}")
            uri = f"{root}/{self.backend.artifacts}/{name}"
            execution.output_artifacts[name] = self.backend.new_artifact(uri, as_json(metadata.get(name, {})))

    def fail(self, display_name: str, error: Exception) -> None:
        if self.run.state != "FAILED":
            self.run.state, self.run.failed_task, self.run.error = "FAILED", display_name, str(error)

    def from_cache(self, task: Object, dag: Execution) -> bool:
        """Whether a task that is ready would be a cache hit."""
        component = self.pipeline.component(task)
        if "dag" in component:
            return False
        try:
            inputs, artifacts = self.resolve(task, component, dag)
        except DriverError:
            return False
        return self.cache_key(task, component, inputs, artifacts) in self.backend.cache

    def cache_key(self, task: Object, component: Object, inputs: Object, artifacts: dict[str, list[Artifact]]) -> str:
        """The key of a task whose caching is on, else nothing."""
        if not task.get("cachingOptions", {}).get("enableCache"):
            return ""
        container = self.pipeline.container(component)
        parts = [
            self.pipeline.name,
            container["image"],
            [*container.get("command", []), *container.get("args", [])],
            inputs,
            {name: [artifact.number for artifact in items] for name, items in artifacts.items()},
            {
                kind: {name: item.get("parameterType", "") for name, item in found.items()}
                for kind, found in component.get("outputDefinitions", {}).items()
            },
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def resolve(self, task: Object, component: Object, dag: Execution) -> tuple[Object, dict[str, list[Artifact]]]:
        """A task's inputs, from its DAG's inputs and the outputs of the tasks before it."""
        values: Object = {}
        if "dag" in component:
            definitions = component.get("inputDefinitions", {}).get("parameters", {})
            values = {name: item["defaultValue"] for name, item in definitions.items() if "defaultValue" in item}
        for name, source in task.get("inputs", {}).get("parameters", {}).items():
            value = self.parameter(source, dag)
            if selector := source.get("parameterExpressionSelector"):
                value = _select(value, selector)
            values[name] = value
        artifacts = {
            name: self.artifact(source, dag) for name, source in task.get("inputs", {}).get("artifacts", {}).items()
        }
        lacking = [
            name
            for name, item in component.get("inputDefinitions", {}).get("parameters", {}).items()
            if name not in values and not item.get("isOptional") and name != _item_of(task)
        ]
        if lacking:
            raise DriverError(f"neither value nor default value provided for non-optional parameter {lacking[0]!r}")
        return _typed(values, component), artifacts

    def parameter(self, source: Object, dag: Execution) -> Any:
        if "runtimeValue" in source:
            return source["runtimeValue"]["constant"]
        if name := source.get("componentInputParameter"):
            if name not in dag.inputs:
                raise DriverError(f"parent DAG does not have input parameter {name}")
            return dag.inputs[name]
        wanted = source["taskOutputParameter"]
        return _output(dag, wanted["producerTask"], wanted["outputParameterKey"])

    def artifact(self, source: Object, dag: Execution) -> list[Artifact]:
        if name := source.get("componentInputArtifact"):
            if name not in dag.input_artifacts:
                raise DriverError(f"parent DAG does not have input artifact {name}")
            return dag.input_artifacts[name]
        wanted = source["taskOutputArtifact"]
        return _output_artifacts(dag, wanted["producerTask"], wanted["outputArtifactKey"])

    def resources(self, component: Object, inputs: Object) -> None:
        """What a container asks for, resolved as the driver does: from the task's own inputs."""
        for name, text in _leaves(self.pipeline.container(component).get("resources", {})):
            for channel in CHANNEL.findall(str(text)):
                if channel not in inputs:
                    raise DriverError(f"executorInput did not contain {name} input parameter {channel}")
                if not isinstance(inputs[channel], str):
                    raise DriverError(
                        f"{name} from {channel}: a number is read as an empty text, and nothing is asked for"
                    )


def _item_of(task: Object) -> str:
    return str(task.get("parameterIterator", {}).get("itemInput", ""))


def _ready(task: Object, succeeded: set[str]) -> bool:
    exits = task.get("triggerPolicy", {}).get("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
    return not exits and set(task.get("dependentTasks", [])) <= succeeded


def _close(dag: Execution | None) -> None:
    """What a launcher does at its end: close its DAG where all tasks of it have ended, and then its parents."""
    while dag and dag.tasks_expected:
        states = [item.state for item in dag.children]
        if sum(state in ENDED for state in states) == dag.tasks_expected:
            dag.state = COMPLETE
        elif FAILED in states:
            dag.state = FAILED
        else:
            return
        dag = dag.parent


def _output(dag: Execution, task: str, key: str) -> Any:
    """An output parameter of a task, looked for inside where that is a DAG."""
    producer = dag.child(task)
    if producer is None:
        raise DriverError(f"producer task, {task}, not in tasks")
    if producer.tasks_expected is None:
        return producer.outputs[key]
    if any(item.iteration is not None for item in producer.children):
        return [_dag_output(item, key) for item in producer.children]
    return _dag_output(producer, key)


def _dag_output(dag: Execution, key: str) -> Any:
    found = dag.dag_outputs["parameters"][key]
    if source := found.get("valueFromParameter"):
        return _output(dag, source["producerSubtask"], source["outputParameterKey"])
    for selector in found["valueFromOneof"]["parameterSelectors"]:
        producer = dag.child(selector["producerSubtask"])
        if producer and producer.state in (CACHED, COMPLETE):
            return _output(dag, selector["producerSubtask"], selector["outputParameterKey"])
    raise DriverError(
        f'resolving input parameter: producer_task:"{dag.name}": processing OneOf: No successful task found for output '
        f'key "{key}"'
    )


def _output_artifacts(dag: Execution, task: str, key: str) -> list[Artifact]:
    producer = dag.child(task)
    if producer is None:
        raise DriverError(f"cannot find producer task {task!r}")
    if producer.tasks_expected is None:
        return [producer.output_artifacts[key]]
    found: list[Artifact] = []
    iterations = [item for item in producer.children if item.iteration is not None]
    for one in iterations or [producer]:
        source = one.dag_outputs["artifacts"][key]["artifactSelectors"][-1]
        found += _output_artifacts(one, source["producerSubtask"], source["outputArtifactKey"])
    return found


def _typed(values: Object, component: Object) -> Object:
    """Inputs as the driver checks and converts them by their types."""
    kinds = {
        "NUMBER_DOUBLE": (int, float),
        "NUMBER_INTEGER": (int, float),
        "BOOLEAN": bool,
        "LIST": list,
        "STRUCT": dict,
    }
    out = {}
    for name, value in values.items():
        kind = component.get("inputDefinitions", {}).get("parameters", {}).get(name, {}).get("parameterType", "")
        if value is None and kind:
            raise DriverError(f"got null for input parameter {name!r}")
        if kind == "STRING" and not isinstance(value, str):
            value = json.dumps(as_json(value), sort_keys=True)
        elif kind in kinds and (not isinstance(value, kinds[kind]) or (kind != "BOOLEAN" and isinstance(value, bool))):
            raise DriverError(f"input parameter {name!r} type mismatch: expect {kind}, got {type(value).__name__}")
        out[name] = as_json(value)
    return out


def _select(value: Any, selector: str) -> Any:
    match = re.fullmatch(r'parseJson\(string_value\)\["([^"]+)"\]', selector)
    assert match, selector
    found = json.loads(value) if isinstance(value, str) else value
    if match[1] not in found:
        raise DriverError(f"evaluation of parameter expression selector {selector} failed: no such key: {match[1]}")
    return found[match[1]]


def _holds(condition: str, inputs: Object) -> bool:
    """A trigger condition in CEL, which for what KFP compiles is nearly Python."""
    if not condition:
        return True
    text = VALUE.sub(lambda match: f"inputs[{match[1]!r}]", condition)
    text = text.replace("&&", " and ").replace("||", " or ").replace("!(", " not (")
    names = {"inputs": inputs, "int": int, "double": float, "true": True, "false": False}
    return bool(eval(text, {"__builtins__": {}}, names))


def _defaults(component: Object) -> Object:
    definitions = component.get("inputDefinitions", {}).get("parameters", {})
    return {name: item["defaultValue"] for name, item in definitions.items() if "defaultValue" in item}


def _function(container: Object) -> str:
    words = container["args"]
    if "--function_to_execute" in words:
        return str(words[words.index("--function_to_execute") + 1])
    return str(container["command"][-1].partition(".")[2])


def _made_up(call: Call, name: str, kind: str) -> Any:
    """An output of a stub that says nothing of it: the same for the same inputs."""
    numbers = {key: [artifact.number for artifact in items] for key, items in call.artifacts.items()}
    told = json.dumps([call.function, name, call.parameters, numbers], sort_keys=True, default=str)
    digest = hashlib.sha256(told.encode()).hexdigest()[:8]
    made: Object = {"STRING": f"{name}-{digest}", "BOOLEAN": True, "LIST": [], "STRUCT": {}}
    return made.get(kind, float(int(digest, 16)))


def as_json(value: Any) -> Any:
    """Values as they arrive in a step: a whole number is an int, however it was written."""
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _finite(value: Any, what: str) -> None:
    """Refuse what the launcher cannot publish.

    Raises:
        LauncherError: The task did its work and fails for it.
    """
    for _, item in _leaves(value):
        if item is None or (isinstance(item, float) and not math.isfinite(item)):
            raise LauncherError(f"failed to unmarshal ExecutorOutput: {what}: invalid value {item}")


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item, name)
    else:
        yield name, value
