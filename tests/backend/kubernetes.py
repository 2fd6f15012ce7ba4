"""The part of the Kubernetes API that a run's user sees: Argo's workflows, the pods of steps, their logs."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ..http_server import Answers, LocalServer, write_kubeconfig
from .argo import Workflow
from .kubeflow import Kubeflow

PATH = re.compile(r"^/(?:api/v1|apis/argoproj.io/v1alpha1)/namespaces/team/(pods|workflows)(?:/([^/]+))?(/log)?$")


class Kubernetes(LocalServer):
    """A namespace `team` with the workflows of a Kubeflow; `kubeconfig` leads to it."""

    def __init__(self, workflows: Mapping[str, Workflow], folder: Path) -> None:
        super().__init__(KubernetesAnswers)
        self.workflows = workflows
        self.compressed = False
        self.forbidden: set[str] = set()
        self.deleted: list[str] = []
        self.kubeconfig = write_kubeconfig(folder / "kubeconfig", self.url)

    def items(self, plural: str, run_id: str) -> list[dict[str, Any]]:
        runs = [run for key, run in self.workflows.items() if run_id in ("", key)]
        if plural == "workflows":
            return [run.document(compressed=self.compressed) for run in runs]
        return [pod for run in runs for pod in run.pods()]

    def log(self, pod: str) -> str:
        for run in self.workflows.values():
            for item in run.pods():
                if item["metadata"]["name"] == pod:
                    return run.logs.get(item["metadata"]["annotations"]["workflows.argoproj.io/node-id"], "")
        return ""


class KubernetesAnswers(Answers):
    """Its answers."""

    server: Kubernetes

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        match = PATH.match(url.path)
        if not match:
            self.answer(404, {"message": f"no such path {url.path}"})
        elif match[1] in self.server.forbidden:
            self.answer(403, {"message": f"{match[1]} is forbidden"})
        elif match[3]:
            self.answer(200, self.server.log(match[2]))
        else:
            selector = parse_qs(url.query).get("labelSelector", [""])[0]
            self.answer(200, {"items": self.server.items(match[1], selector.removeprefix("pipeline/runid="))})

    def do_DELETE(self) -> None:
        match = PATH.match(urlsplit(self.path).path)
        assert match
        self.server.deleted.append(match[2])
        self.answer(200, {})


@pytest.fixture
def cluster(kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    """The cluster on which the runs of the Kubeflow run, and a kubeconfig that leads there."""
    server = Kubernetes(kubeflow.workflows, tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    with server.running():
        yield server
