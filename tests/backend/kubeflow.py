"""A server that answers as Kubeflow Pipelines 2.17 does: experiments, runs, and their details, which hold Argo's nodes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..http_server import Answers, LocalServer
from .argo import Workflow

Object = dict[str, Any]
Move = Callable[[Workflow], None]
TASKS = ("fingerprint", "train", "compare")
"""What happens of a run where a test says nothing else; the other tasks are left out."""


def moves(ends: str) -> list[Move]:
    """One task begins at each look, and ends at the next."""
    listed: list[Move] = []
    for before, title in zip(("", *TASKS), TASKS, strict=False):
        listed.append(lambda run, before=before, title=title: _step(run, before, title))
    phase = "Failed" if ends == "FAILED" else "Succeeded"
    log = "mixtune.errors.TrainingError: step 3: GPU out of memory" if phase == "Failed" else ""
    listed.append(lambda run: run.end(TASKS[-1], phase, "Error (exit code 1)" if log else "", log))
    return listed


def _step(run: Workflow, before: str, title: str) -> None:
    if before:
        run.end(before)
    run.begin(title)


class Kubeflow(LocalServer):
    """Experiments and runs, v2beta1; a run moves on at each look."""

    def __init__(self) -> None:
        super().__init__(KubeflowAnswers)
        self.bodies: list[Object] = []
        self.runs: dict[str, Object] = {}
        self.workflows: dict[str, Workflow] = {}
        self.moves: list[Move] | None = None
        self.looks = 0
        self.token = ""
        self.ends = "SUCCEEDED"
        self.expires_at_look = -1
        self.deaf_at_look, self.deaf_for = -1, 0
        """From this look on so many requests get no answer."""
        self.details_until = 10**6
        """From this look on the details stand still, as those of a large workflow do."""
        self._details: list[Object] = []

    def look(self, run_id: str) -> Object:
        if self.moves is None:
            self.moves = moves(self.ends)
        run, workflow, self.looks = self.runs[run_id], self.workflows[run_id], self.looks + 1
        workflow.seconds += 10
        if self.moves:
            self.moves.pop(0)(workflow)
        if self.looks <= self.details_until:
            self._details = workflow.details()
        state = "RUNNING" if self.moves else self.ends
        return {**run, "state": state, "run_details": {"task_details": self._details}}


class KubeflowAnswers(Answers):
    """Its answers."""

    server: Kubeflow

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if self.refused():
            return
        if path.endswith("/healthz"):
            self.answer(200, {"multi_user": False})
        elif path.endswith("/experiments"):
            self.answer(200, {"experiments": [{"experiment_id": "e1", "display_name": "mixtune", "namespace": "team"}]})
        elif path.endswith("/runs"):
            self.answer(200, {"runs": list(self.server.runs.values())})
        elif (run_id := path.rsplit("/", 1)[-1]) in self.server.runs:
            self.answer(200, self.server.look(run_id))
        else:
            self.answer(404, {"message": f"{path} not found"})

    def do_POST(self) -> None:
        body = self.body()
        if self.refused():
            return
        self.server.bodies.append(body)
        self.server.moves = self.server.moves or None
        if body["runtime_config"]["parameters"].get("seed") == 13:
            self.answer(400, {"message": "parameter seed: 13 is not allowed here"})
            return
        run_id = f"run-{len(self.server.runs) + 1}"
        self.server.runs[run_id] = {**body, "run_id": run_id, "state": "PENDING", "created_at": "2026-11-25T10:00:00Z"}
        self.server.workflows[run_id] = Workflow(run_id, body["pipeline_spec"]["pipeline_spec"])
        self.answer(200, self.server.runs[run_id])

    def refused(self) -> bool:
        """Nobody answers now, or a token was given, and it is not the one that counts now."""
        if self.server.looks == self.server.deaf_at_look and self.server.deaf_for:
            self.server.deaf_for -= 1
            return True
        if self.server.token and self.headers.get("authorization") != f"Bearer {self.server.token}":
            self.answer(401, {"message": "Unauthenticated"})
            return True
        if self.server.looks == self.server.expires_at_look and self.server.token:
            self.server.token = "new"
        return False


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Kubeflow]:
    """A server that answers as Kubeflow Pipelines does; no cluster is configured, and the client has files of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp keeps a context file there
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    server = Kubeflow()
    with server.running():
        yield server
