"""Kubeflow's Model Registry in memory, held to its published OpenAPI: the models and paths of PyPI `model-registry`."""

import ast
import importlib
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..http_server import Answers, LocalServer

Document = dict[str, Any]
CREATED = {
    "registered_models": "RegisteredModelCreate",
    "registered_models/{registered_model_id}/versions": "ModelVersion",
    "model_versions/{model_version_id}/artifacts": "Artifact",
}
UPDATED = {"model_versions/{model_version_id}": "ModelVersionUpdate"}
ANSWERS = {"registered_model": "RegisteredModel", "model_version": "ModelVersion", "model_artifact": "ModelArtifact"}


def published_calls(package: Path) -> set[tuple[str, str]]:
    """Method and path of every call that the API knows, as the generated client sends them."""
    tree = ast.parse((package / "mr_openapi" / "api" / "model_registry_service_api.py").read_text())
    calls = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            words = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
            if "resource_path" in words:
                calls.add((words["method"], words["resource_path"].split("/v1/")[1]))
    return calls


class ModelRegistry(LocalServer):
    """What was registered; `calls` are those that it took."""

    def __init__(self, package: Path, version: str = "v1", token: str = "") -> None:
        super().__init__(RegistryAnswers)
        self.root, self.token = f"/api/model_registry/{version}/", token
        self.published = published_calls(package)
        self.models = importlib.import_module("mr_openapi.models")
        self.kept: dict[str, list[Document]] = {"registered_model": [], "model_version": [], "model_artifact": []}
        self.calls: list[str] = []
        self.start()

    def check(self, name: str, body: Document) -> str:
        """What of a body the API does not know or take; empty: nothing."""
        model = getattr(self.models, name)
        if name == "Artifact":
            model = (
                self.models.ModelArtifact if body.get("artifactType") == "model-artifact" else self.models.DocArtifact
            )
        fields = {item.alias or field for field, item in model.model_fields.items()}
        if unknown := sorted(set(body) - fields):
            return f"unknown fields {unknown} of {name}"
        try:
            model.from_dict(body)
        except ValueError as error:
            return str(error)
        return ""

    def add(self, kind: str, body: Document, **parent: str) -> Document | None:
        """Keep something; None where its name is there already."""
        same = [item for item in self.kept[kind] if item["name"] == body["name"]]
        if any(parent.items() <= item.items() for item in same) or (same and kind == "model_artifact"):
            return None
        item = {**body, **parent, "id": str(1 + sum(map(len, self.kept.values())))}
        self.kept[kind].append(item)
        return item


class RegistryAnswers(Answers):
    """Its answers."""

    server: ModelRegistry

    def do_GET(self) -> None:
        path, query = self._resource()
        if path in ANSWERS:
            found = [item for item in self.server.kept[path] if query.items() <= self._searched(item).items()]
            self.answer(200, found[0]) if found else self.answer(404, {"code": "404", "message": "not there"})
        elif path == "registered_models":
            items = self.server.kept["registered_model"]
            self.answer(200, {"items": items, "size": len(items), "pageSize": 1, "nextPageToken": ""})

    def do_POST(self) -> None:
        path, _ = self._resource()
        template, ids = self._template(path)
        body = self._body(CREATED.get(template, ""))
        if body is None:
            return
        kind = {"registered_models": "registered_model"}.get(path)
        parent = {"registeredModelId": ids[0]} if "versions" in path and "artifacts" not in path else {}
        if "artifacts" in path:
            kind, parent = "model_artifact", {"parent": ids[0]}
        item = self.server.add(kind or "model_version", body, **parent)
        self.answer(201, item) if item else self.answer(409, {"code": "409", "message": "already exists"})

    def do_PATCH(self) -> None:
        path, _ = self._resource()
        template, ids = self._template(path)
        body = self._body(UPDATED.get(template, ""))
        if body is None:
            return
        item = next(item for item in self.server.kept["model_version"] if item["id"] == ids[0])
        item |= body
        self.answer(200, item)

    def _resource(self) -> tuple[str, Document]:
        parts = urlsplit(self.path)
        if self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.answer(401, {"code": "401", "message": "no token"})
            return "", {}
        path = parts.path.removeprefix(self.server.root) if parts.path.startswith(self.server.root) else ""
        if not path or not any(
            self._fits(path, known) for method, known in self.server.published if method == self.command
        ):
            self.answer(404, {"code": "404", "message": f"no such path {parts.path}"})
            return "", {}
        self.server.calls.append(f"{self.command} {path}")
        return path, {key: values[0] for key, values in parse_qs(parts.query).items()}

    def _searched(self, item: Document) -> Document:
        parent = item.get("registeredModelId") or item.get("parent")
        return {"name": item["name"], **({"parentResourceId": parent} if parent else {})}

    def _template(self, path: str) -> tuple[str, list[str]]:
        known = [text for method, text in self.server.published if method == self.command and self._fits(path, text)]
        return (known[0], [part for part in path.split("/") if part.isdigit()]) if known else ("", [])

    def _fits(self, path: str, template: str) -> bool:
        return bool(re.fullmatch(re.sub(r"\{\w+\}", "[1-9][0-9]{0,8}", template), path))

    def _body(self, name: str) -> Document | None:
        if not name:
            return None
        body = self.body()
        problem = self.server.check(name, body)
        if problem:
            self.answer(400, {"code": "400", "message": problem})
            return None
        return dict(body)
