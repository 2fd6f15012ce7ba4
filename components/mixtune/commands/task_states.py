"""The tasks of a run on Kubeflow by their display names: what each does, since when, and why it waits or failed.

Argo has six nodes of a task, each with its attempts: `train-driver`, `train-driver(0)`, `train`, `train(0)`, `executor`
and `executor(0)`, the last of which is the step's pod. They are read from the run's details, from the workflow itself,
or from the labels of the pods.
"""

import base64
import gzip
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mixtune.kubernetes_api import Object
from mixtune.settings.foreign import JsonObject

PENDING, RUNNING, SUCCEEDED, CACHED, SKIPPED, FAILED = "pending", "running", "succeeded", "cached", "skipped", "failed"
PHASES = {"error": FAILED, "omitted": SKIPPED, "canceled": FAILED, "unknown": PENDING, "runtime_state_unspecified": ""}
"""What Argo and KFP call otherwise."""
STARTING = ("", "PodInitializing", "ContainerCreating")
"""Reasons for which every pod waits a moment."""
NODE_NAME = "workflows.argoproj.io/node-name"
_ATTEMPT = re.compile(r"\(\d+\)$")
_ITERATION = re.compile(r"iteration-iterations\((\d+):")


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node of Argo's graph."""

    node_id: str
    name: str
    """Its display name."""
    phase: str
    children: tuple[str, ...] = ()
    """Ids of the nodes inside of it, and of those that follow it."""
    message: str = ""
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class TaskState:
    """A task of the pipeline, as it stands."""

    title: str
    """Its display name; with its key where several have that, and its number in a loop."""
    folder: str
    """Its display name, the name of its folder among the artifacts."""
    phase: str
    reason: str = ""
    """Why it waits or failed, in the words of the scheduler, the kubelet or the driver."""
    attempt: int = 1
    start: datetime | None = None
    seconds: float | None = None
    """From the step's first start to its end."""
    pod: str = ""
    """Node id of the step's newest pod."""

    def __str__(self) -> str:
        """One line, such as `train: succeeded in 4 min 43 s`."""
        again = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        if self.phase == CACHED:
            return f"{self.title}: from the cache"
        if self.phase == PENDING:
            return f"{self.title}: waits{again}{f': {self.reason}' if self.reason else ''}"
        took = f"{' in' if self.phase == SUCCEEDED else ' after'} {duration(self.seconds)}" if self.seconds else ""
        return f"{self.title}: {self.phase}{again}{took if self.phase in (SUCCEEDED, FAILED) else ''}"


def titles_of(spec: JsonObject) -> dict[str, str]:
    """Return the display name of every task that runs a container, by its key in the pipeline's specification."""
    components = spec.get("components", {})
    graphs = [spec.get("root", {}), *components.values()]
    tasks = {name: task for graph in graphs for name, task in graph.get("dag", {}).get("tasks", {}).items()}
    return {
        name: str(task.get("taskInfo", {}).get("name", name))
        for name, task in tasks.items()
        if "dag" not in components.get(task["componentRef"]["name"], {})
    }


def task_states(nodes: Iterable[Node], titles: Mapping[str, str]) -> list[TaskState]:
    """Return the state of every task that has begun or waits for its pod, in the order in which they started."""
    graph = _NodeGraph(nodes)
    names = list(titles.values())
    states = []
    for key, iteration, node, driver in graph.tasks(titles):
        title = titles[key] if names.count(titles[key]) == 1 else f"{titles[key]} ({key})"
        state = graph.state(node, driver, f"{title} [{iteration + 1}]" if iteration >= 0 else title, titles[key])
        if state.phase in (PENDING, RUNNING, SUCCEEDED, CACHED, FAILED):
            states.append(state)
    return sorted(states, key=lambda state: state.start.timestamp() if state.start else float("inf"))


class _NodeGraph:
    """Argo's nodes with the ways between them."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = {node.node_id: node for node in nodes}
        self.parents: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for child in node.children:
                self.parents.setdefault(child, []).append(node.node_id)

    def tasks(self, titles: Mapping[str, str]) -> Iterator[tuple[str, int, Node | None, Node | None]]:
        """Yield each task's key, number of its iteration (-1: in no loop), node and driver's node."""
        pairs: dict[tuple[str, int], dict[str, Node]] = {}
        for node in self.nodes.values():
            key = node.name.removesuffix("-driver") if node.name not in titles else node.name
            if key in titles:
                part = "task" if node.name == key else "driver"
                pairs.setdefault((key, self.iteration(node)), {})[part] = node
        for (key, iteration), pair in pairs.items():
            yield key, iteration, pair.get("task"), pair.get("driver")

    def iteration(self, node: Node) -> int:
        """Return the number of the loop's iteration that a node lies in; -1: in none."""
        visited, open_ids = {node.node_id}, [node.node_id]
        while open_ids:
            for parent in self.parents.get(open_ids.pop(0), []):
                if match := _ITERATION.match(self.nodes[parent].name):
                    return int(match[1])
                if parent not in visited:
                    visited.add(parent)
                    open_ids.append(parent)
        return -1

    def state(self, node: Node | None, driver: Node | None, title: str, folder: str) -> TaskState:
        """Return the state of a task from its own node, its driver's and those of its pods."""
        if driver and driver.phase == FAILED:
            return TaskState(title=title, folder=folder, phase=FAILED, reason=driver.message, start=driver.start)
        if node is None:
            return TaskState(title=title, folder=folder, phase="")
        executors = self.inside(node, "executor")
        attempts = [attempt for executor in executors for attempt in self.inside(executor, "executor")]
        last = max(attempts, key=lambda attempt: attempt.name, default=None)
        if node.phase == SUCCEEDED and (not last or last.phase == SKIPPED):
            return TaskState(title=title, folder=folder, phase=CACHED, start=node.start)
        phase = node.phase if node.phase != RUNNING or not last else last.phase
        if phase == SUCCEEDED != node.phase:
            phase = RUNNING
        start = min((attempt.start for attempt in attempts if attempt.start), default=node.start)
        end = (last.end if last else None) or node.end
        return TaskState(
            title=title,
            folder=folder,
            phase=phase,
            reason=(last.message if last else "") or node.message if phase in (PENDING, FAILED) else "",
            attempt=max(1, len(attempts)),
            start=start,
            seconds=(end - start).total_seconds() if start and end and phase in (SUCCEEDED, FAILED) else None,
            pod=last.node_id if last else "",
        )

    def inside(self, node: Node, name: str) -> list[Node]:
        """Return the nodes of a name inside a node's attempts; the node itself where it is its only attempt."""
        attempts = [self.nodes[child] for child in node.children if child in self.nodes]
        attempts = [child for child in attempts if _ATTEMPT.sub("", child.name) == node.name] or [node]
        if name == node.name:
            return attempts
        return [
            self.nodes[child]
            for attempt in attempts
            for child in attempt.children
            if child in self.nodes and self.nodes[child].name == name
        ]


def nodes_of_details(details: Iterable[Any]) -> list[Node]:
    """Return the nodes that the details of a KFP run list; KFP stops to update them where a workflow is large."""
    return [
        Node(
            node_id=task.pod_name or task.task_id or "",
            name=task.display_name or "",
            phase=_phase(task.state),
            children=tuple(child.pod_name or child.task_id or "" for child in task.child_tasks or []),
            message=(task.error and task.error.message) or "",
            start=task.start_time,
            end=task.end_time if task.end_time and task.end_time.year > 1970 else None,
        )
        for task in details
    ]


def nodes_of_workflow(workflow: Object) -> list[Node]:
    """Return the nodes of an Argo workflow, compressed or not."""
    status = workflow.get("status", {})
    nodes: dict[str, Object] = status.get("nodes") or {}
    if packed := status.get("compressedNodes"):
        nodes = json.loads(gzip.decompress(base64.b64decode(packed)))
    return [
        Node(
            node_id=node["id"],
            name=node["displayName"],
            phase=_phase(node.get("phase")),
            children=tuple(node.get("children", [])),
            message=node.get("message", ""),
            start=_time(node.get("startedAt")),
            end=_time(node.get("finishedAt")),
        )
        for node in nodes.values()
    ]


def nodes_of_pods(pods: Iterable[Object]) -> list[Node]:
    """Return nodes for the pods of steps: a task each with its attempts; what came from the cache has no pod."""
    nodes: dict[str, Node] = {}
    children: dict[str, list[str]] = {}
    for pod in pods:
        path = pod["metadata"].get("annotations", {}).get(NODE_NAME, "")
        head, _, last = path.rpartition(".")
        if not last.startswith("executor("):
            continue
        task = _ATTEMPT.sub("", head)
        if match := _ITERATION.search(path):
            loop = path[: match.end()]
            nodes[loop] = Node(node_id=loop, name=match[0], phase=RUNNING)
            children.setdefault(loop, []).append(task)
        status = pod.get("status", {})
        node = Node(
            node_id=pod["metadata"]["name"],
            name=last,
            phase=_phase(status.get("phase")),
            message=_why(status),
            start=_time(status.get("startTime")),
            end=_ended_at(status),
        )
        nodes |= {node.node_id: node, task: Node(node_id=task, name=task.rpartition(".")[2], phase=node.phase)}
        nodes[f"{task}.executor"] = Node(node_id=f"{task}.executor", name="executor", phase=node.phase)
        children.setdefault(task, [f"{task}.executor"])
        children.setdefault(f"{task}.executor", []).append(node.node_id)
    return [replace(node, children=tuple(dict.fromkeys(children.get(node.node_id, ())))) for node in nodes.values()]


def duration(seconds: float | None) -> str:
    """Return seconds as `42 s`, `4 min 43 s` or `2 h 5 min`."""
    whole = round(seconds or 0)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _phase(text: str | None) -> str:
    lower = str(text or "").lower()
    return PHASES.get(lower, lower)


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _why(status: Object) -> str:
    """Return why a pod waits or failed, as the scheduler or the kubelet says."""
    for condition in status.get("conditions", []):
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
        state = container.get("state", {})
        waiting, ended = state.get("waiting", {}), state.get("terminated", {})
        if waiting.get("reason", "") not in STARTING:
            return f"{waiting['reason']}: {waiting.get('message', '')}"
        if ended.get("exitCode"):
            return f"{ended.get('reason', 'Error')} (exit code {ended['exitCode']})"
    return str(status.get("message", ""))


def _ended_at(status: Object) -> datetime | None:
    ends = [
        container.get("state", {}).get("terminated", {}).get("finishedAt")
        for container in status.get("containerStatuses", [])
    ]
    return _time(max(ends)) if ends and all(ends) else None
