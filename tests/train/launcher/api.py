"""A Kubernetes API server for tests: real HTTP, real state, and no unknown field gets in."""

import contextlib
import copy
import re
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ...http_server import Answers, LocalServer, write_kubeconfig

Object = dict[str, Any]
Check = Callable[[Object], list[str]]

JOBS = re.compile(r"^/apis/([^/]+)/([^/]+)/namespaces/team/(trainjobs|pytorchjobs)(?:/([^/]+))?$")
CORE = re.compile(r"^/api/v1/namespaces/team/(pods|configmaps|podtemplates|events)(?:/([^/]+))?(/log)?$")


TRAINER = {"app.kubernetes.io/component": "trainer"}


class SimulatedClock:
    """An hour in a queue takes no time; things happen at their moment, while the launcher sleeps."""

    def __init__(self) -> None:
        self.time = 1_800_000_000.0
        self.plans: list[tuple[float, Callable[[], None]]] = []

    def now(self) -> float:
        return self.time

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        """Do something so many seconds from now; at once where it is none."""
        if not seconds:
            action()
            return
        self.plans.append((self.time + seconds, action))
        self.plans.sort(key=lambda item: item[0])

    def sleep(self, seconds: float) -> None:
        until = self.time + seconds
        while self.plans and self.plans[0][0] <= until:
            self.time, action = self.plans.pop(0)
            action()
        self.time = until


class FakeCluster:
    """The state behind the API, and what a test does to it."""

    def __init__(self, clock: SimulatedClock, checks: dict[str, Check]) -> None:
        self.clock, self.checks = clock, checks
        self.objects: dict[tuple[str, str], Object] = {}
        self.logs: dict[str, list[tuple[float, str]]] = {}
        self.requests: list[str] = []
        self.created: list[Object] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        """Answered to the next requests, whatever they ask."""
        self.away = False
        self.forbidden: set[str] = set()
        self.number = 0
        self.ending_seconds = 0.0
        """How long a deleted job's pods take to end."""
        self.environment = [{"name": "MIXTUNE_RUN_ID", "value": "run-1"}]
        """Of every pod."""
        self.on_create: Callable[[Object], None] = lambda body: None

    def put(self, plural: str, name: str, **fields: Any) -> Object:
        self.number += 1
        metadata = {"name": name, "namespace": "team", "uid": f"uid-{self.number}", **fields.pop("metadata", {})}
        self.objects[plural, name] = {"metadata": metadata, **fields}
        return self.objects[plural, name]

    def job(self, name: str = "") -> Object:
        (found,) = [item for (plural, key), item in self.objects.items() if "jobs" in plural and name in key]
        return found

    def pod(self, name: str, labels: dict[str, str], phase: str = "Running", **status: Any) -> None:
        stamp = datetime.fromtimestamp(self.clock.now(), UTC).isoformat()
        self.put(
            "pods",
            name,
            metadata={"labels": labels, "creationTimestamp": stamp},
            spec={"nodeName": f"node-of-{name}", "containers": [{"name": "node", "env": self.environment}]},
            status={"phase": phase, **status},
        )

    def say(self, pod: str, *lines: str) -> None:
        self.logs.setdefault(pod, []).extend((self.clock.now() + 1e-6 * n, line) for n, line in enumerate(lines))

    def condition(self, kind: str, reason: str = "", message: str = "") -> None:
        conditions = self.job().setdefault("status", {}).setdefault("conditions", [])
        conditions[:] = [item for item in conditions if item["type"] != kind]
        conditions.append({"type": kind, "status": "True", "reason": reason, "message": message})

    def event(self, about: str, reason: str, message: str) -> None:
        name = f"{about}.{self.number}"
        self.put("events", name, reason=reason, message=message, involvedObject={"kind": "Workload", "name": about})

    def answer(self, method: str, url: str, body: Object | None) -> tuple[int, Any]:
        parts = urlsplit(url)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        if found := JOBS.match(parts.path):
            return self._jobs(method, found[3], found[4] or "", query, body, f"{found[1]}/{found[2]}")
        if (found := CORE.match(parts.path)) and method == "GET":
            if found[3]:
                return self._log(found[2], query)
            return self._read(found[1], found[2] or "", query)
        return 404, {"message": f"no such path {parts.path}"}

    def _jobs(
        self, method: str, plural: str, name: str, query: dict[str, str], body: Object | None, version: str
    ) -> tuple[int, Any]:
        if plural not in self.checks:
            return 404, {"message": "the server could not find the requested resource"}
        if plural in self.forbidden:
            return 403, {"message": f"{plural} is forbidden: cannot {method}"}
        if method == "GET":
            return self._read(plural, name, query)
        if method == "DELETE":
            found = self.objects.get((plural, name))
            if found is None:
                return 404, {"message": f"{plural} {name} not found"}
            self._delete(plural, name, query.get("propagationPolicy", "Background"))
            return 200, found
        assert method == "POST" and body is not None
        assert query.get("fieldValidation") == "Strict", "every create is strict"
        if wrong := self.checks[plural](body):
            return 400, {"message": f"strict decoding error: {wrong[0]}"}
        if body["apiVersion"] != version:
            return 400, {"message": f"apiVersion {body['apiVersion']} does not match {version}"}
        name = body["metadata"]["name"]
        if (plural, name) in self.objects:
            return 409, {"message": "already exists"}
        self.created.append(copy.deepcopy(body))
        self.put(plural, name, **body)
        self.on_create(self.objects[plural, name])
        return 201, self.objects[plural, name]

    def _delete(self, plural: str, name: str, policy: str) -> None:
        """The garbage collector, and Kubeflow Trainer 2.3, which looks at no mark of deletion.

        Under background deletion the job is gone at once and its pods end. Under foreground deletion it stays until
        they have, and as long as it is there, Trainer makes new pods for those that went, two minutes after one another.
        """
        if policy == "Background":
            self.objects.pop((plural, name), None)
            pods = [key for key in self.objects if key[0] == "pods" and key[1].startswith(name)]
            self.clock.at(self.ending_seconds, lambda: [self.objects.pop(key, None) for key in pods])
            return
        self.objects[plural, name]["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        for number in (1, 2):
            self.clock.at(120.0 * number, lambda number=number: self.pod(f"{name}-again-{number}", TRAINER))
        self.clock.at(max(270.0, self.ending_seconds), lambda: self.remove(plural, name))

    def remove(self, plural: str, name: str) -> None:
        """The job is gone, and its pods with it."""
        self.objects.pop((plural, name), None)
        for key in [key for key in self.objects if key[0] == "pods" and key[1].startswith(name)]:
            del self.objects[key]

    def _read(self, plural: str, name: str, query: dict[str, str]) -> tuple[int, Any]:
        if name:
            found = self.objects.get((plural, name))
            return (200, found) if found else (404, {"message": f"{plural} {name} not found"})
        wanted = dict(item.split("=", 1) for item in query.get("labelSelector", "").split(",") if item)
        items = [
            item
            for (kind, _), item in self.objects.items()
            if kind == plural and wanted.items() <= item["metadata"].get("labels", {}).items()
        ]
        return 200, {"items": items}

    def _log(self, pod: str, query: dict[str, str]) -> tuple[int, str]:
        if ("pods", pod) not in self.objects:
            return 404, "no such pod"
        lines = self.logs.get(pod, [])
        if since := query.get("sinceSeconds"):
            lines = [item for item in lines if item[0] >= self.clock.now() - int(since)]
        if tail := query.get("tailLines"):
            lines = lines[-int(tail) :]
        text = [f"{stamp(when)} {line}" if query.get("timestamps") else line for when, line in lines]
        return 200, "".join(f"{line}\n" for line in text)


def stamp(when: float) -> str:
    moment = datetime.fromtimestamp(int(when), UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{moment}.{round((when % 1) * 1e9):09d}Z"


class Server:
    """The cluster, served; `kubeconfig` reaches it."""

    def __init__(self, cluster: FakeCluster, folder: Path) -> None:
        state = cluster

        class Handler(Answers):
            protocol_version = "HTTP/1.1"
            wbufsize = -1
            disable_nagle_algorithm = True

            def do(self) -> None:
                body = self.body()
                state.requests.append(f"{self.command} {self.path}")
                if state.away:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                headers: dict[str, str] = {}
                if state.answers:
                    status, headers = state.answers.pop(0)
                    answer: Any = {"message": "not now"}
                else:
                    status, answer = state.answer(self.command, self.path, body)
                self.answer(status, answer, **headers)

            do_GET = do_POST = do_DELETE = do

            def handle(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    super().handle()

        self.http = LocalServer(Handler)
        self.http.start()
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", self.http.url)

    def close(self) -> None:
        self.http.stop()
