"""An Argo workflow of a compiled pipeline as KFP 2.17 makes it: its nodes, and what KFP tells of them."""

import base64
import gzip
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

Object = dict[str, Any]
START = datetime(2026, 11, 25, 10, 0, tzinfo=UTC)


class Workflow:
    """The nodes of a run; a test lets tasks begin, wait and end, ten seconds after one another."""

    def __init__(self, run_id: str, spec: Object, name: str = "") -> None:
        self.run_id, self.spec = run_id, spec
        self.name = name or f"{spec['pipelineInfo']['name']}-xjrmm"
        self.nodes: dict[str, Object] = {}
        self.logs: dict[str, str] = {}
        """Of pods, by node id."""
        self.seconds = 0
        self.where: dict[str, str] = {}
        """Path of the graph that each task lies in, by the task's key."""
        self._pair(self.name, "Running")
        self._pair(f"{self.name}(0).root-driver", "Succeeded")
        self._pair(f"{self.name}(0).root", "Running")
        self._enter(f"{self.name}(0).root(0)", spec["root"])

    def _enter(self, path: str, component: Object) -> None:
        """Start the graphs that lie in a graph; loops have one iteration here."""
        for key, task in component["dag"]["tasks"].items():
            inner = self.spec["components"][task["componentRef"]["name"]]
            self.where[key] = path
            if "dag" not in inner:
                continue
            loop = f"{path}.{key}(0).iteration-iterations(0:0)(0).iteration-item"
            below = loop if "parameterIterator" in task else f"{path}.{key}"
            if "parameterIterator" in task:
                self._pair(f"{path}.{key}", "Running")
                self._pair(f"{path}.{key}(0).iteration-iterations(0:0)", "Running")
            self._pair(f"{below}-driver", "Succeeded")
            self._pair(below, "Running")
            self._enter(f"{below}(0)", inner)

    def key(self, title: str) -> str:
        """The key of a task by its display name, or by its key."""
        graphs = (self.spec["root"], *self.spec["components"].values())
        tasks = {key: task for graph in graphs for key, task in graph.get("dag", {}).get("tasks", {}).items()}
        return next((key for key, task in tasks.items() if task["taskInfo"]["name"] == title), title)

    def wait(self, title: str, reason: str = "PodInitializing") -> None:
        """The task's driver has ended, and its pod is there but does not run."""
        path = self._path(title)
        self._pair(f"{path}-driver", "Succeeded")
        self._pair(path, "Running")
        self._pair(f"{path}(0).executor", "Pending", reason)

    def begin(self, title: str, attempt: int = 0) -> None:
        """The task's pod runs."""
        self.wait(title)
        self._node(f"{self._path(title)}(0).executor({attempt})", "Running")

    def end(self, title: str, phase: str = "Succeeded", message: str = "", log: str = "") -> None:
        """The task's newest pod ends."""
        executor = f"{self._path(title)}(0).executor"
        newest = max(node["name"] for node in self.nodes.values() if node["name"].startswith(f"{executor}("))
        self._node(newest, phase, message)
        self._node(executor, phase, message)
        self._pair(self._path(title), phase)
        self.logs[self._id(newest)] = log

    def lose(self, title: str) -> None:
        """The pod is deleted with its node; Argo will make another."""
        self._node(f"{self._path(title)}(0).executor(0)", "Error", "pod deleted")

    def take_from_cache(self, title: str) -> None:
        """The driver finds the task in the cache: its executor is skipped."""
        path = self._path(title)
        self._pair(f"{path}-driver", "Succeeded")
        self._pair(path, "Succeeded")
        self._node(f"{path}(0).executor", "Skipped", "when 'true != true' evaluated false")

    def fail_driver(self, title: str, message: str) -> None:
        """The driver ends in an error, and the task is never begun."""
        path = self._path(title)
        self._pair(f"{path}-driver", "Failed", message)
        self._node(path, "Omitted", "omitted: depends condition not met")

    def _path(self, title: str) -> str:
        key = self.key(title)
        return f"{self.where[key]}.{key}"

    def _pair(self, path: str, phase: str, message: str = "") -> None:
        """A node for a template's retries and its first attempt."""
        self._node(path, phase, message)
        self._node(f"{path}(0)", phase, message)

    def _id(self, path: str) -> str:
        return f"{self.name}-{sum(map(ord, path)) * 7919 + len(path)}"

    def _node(self, path: str, phase: str, message: str = "") -> None:
        now = START + timedelta(seconds=self.seconds)
        node = self.nodes.setdefault(
            self._id(path),
            {"id": self._id(path), "name": path, "displayName": path.rpartition(".")[2], "children": []},
        )
        if phase == "Running" != node.get("phase"):
            node["startedAt"] = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        if phase in ("Succeeded", "Failed", "Error"):
            node.setdefault("startedAt", f"{now:%Y-%m-%dT%H:%M:%SZ}")
            node["finishedAt"] = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        node |= {"phase": phase, "message": message}
        parent = re.sub(r"\(\d+\)$", "", path) if path.endswith(")") else path.rpartition(".")[0]
        for above in (parent, path.rpartition(".")[0]):
            if above != path and self._id(above) in self.nodes:
                children = self.nodes[self._id(above)]["children"]
                children += [node["id"]] if node["id"] not in children else []
                break

    def details(self) -> list[Object]:
        """The tasks of the run's details: all of Argo's nodes."""
        states = {"Error": "FAILED", "Omitted": "SKIPPED"}
        return [
            {
                "run_id": self.run_id,
                "task_id": f"task-{number}",
                "display_name": node["displayName"],
                "pod_name": node["id"],
                "state": states.get(node["phase"], node["phase"].upper()),
                "child_tasks": [{"pod_name": child} for child in node["children"]],
                **({"start_time": node["startedAt"]} if "startedAt" in node else {}),
                "end_time": node.get("finishedAt", "0001-01-01T00:00:00Z"),
                **({"error": {"code": 1, "message": node["message"]}} if node["phase"] == "Failed" else {}),
            }
            for number, node in enumerate(self.nodes.values())
        ]

    def document(self, *, compressed: bool = False) -> Object:
        """The object in the cluster."""
        status: Object = {"phase": "Running", "nodes": self.nodes}
        if compressed:
            packed = gzip.compress(json.dumps(self.nodes).encode())
            status = {"phase": "Running", "nodes": {}, "compressedNodes": base64.b64encode(packed).decode()}
        return {
            "metadata": {"name": self.name, "namespace": "team", "labels": {"pipeline/runid": self.run_id}},
            "status": status,
        }

    def pods(self) -> list[Object]:
        """The pods of its steps."""
        return [
            {
                "metadata": {
                    "name": f"{self.name}-system-container-impl-{node['id'].rpartition('-')[2]}",
                    "namespace": "team",
                    "labels": {"pipeline/runid": self.run_id},
                    "annotations": {
                        "workflows.argoproj.io/node-name": node["name"],
                        "workflows.argoproj.io/node-id": node["id"],
                    },
                },
                "status": _pod_status(node),
            }
            for node in self.nodes.values()
            if re.search(r"\.executor\(\d+\)$", node["name"])
        ]


def _pod_status(node: Object) -> Object:
    status: Object = {"phase": node["phase"], **({"startTime": node["startedAt"]} if "startedAt" in node else {})}
    if node["phase"] == "Pending" and node["message"].startswith("Unschedulable"):
        message = node["message"].partition(": ")[2]
        status["conditions"] = [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
        ]
    if "finishedAt" in node:
        code = 0 if node["phase"] == "Succeeded" else 1
        ended = {"exitCode": code, "reason": "Error" if code else "Completed", "finishedAt": node["finishedAt"]}
        status["containerStatuses"] = [{"name": "main", "state": {"terminated": ended}}]
    return status
