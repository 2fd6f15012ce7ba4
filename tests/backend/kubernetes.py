"""The part of the Kubernetes API that a run's user sees: Argo's workflows, the pods of steps, their logs."""

import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from .argo import Workflow
from .kubeflow import Kubeflow

PATH = re.compile(r"^/(?:api/v1|apis/argoproj.io/v1alpha1)/namespaces/team/(pods|workflows)(?:/([^/]+))?(/log)?$")


class Kubernetes(http.server.ThreadingHTTPServer):
    """A namespace `team` with the workflows of a Kubeflow; `kubeconfig` leads to it."""

    def __init__(self, workflows: Mapping[str, Workflow], folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), KubernetesAnswers)
        self.workflows = workflows
        self.compressed = False
        self.forbidden: set[str] = set()
        self.deleted: list[str] = []
        self.kubeconfig = folder / "kubeconfig"
        address = f"http://127.0.0.1:{self.server_port}"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "clusters": [{"name": "c", "cluster": {"server": address}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "team"}}],
        }
        self.kubeconfig.write_text(yaml.safe_dump(document))

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


class KubernetesAnswers(http.server.BaseHTTPRequestHandler):
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

    def answer(self, status: int, value: Any) -> None:
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def cluster(kubeflow: Kubeflow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kubernetes]:
    """The cluster on which the runs of the Kubeflow run, and a kubeconfig that leads there."""
    server = Kubernetes(kubeflow.workflows, tmp_path)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig))
    yield server
    server.shutdown()
    server.server_close()
