"""A model version in Kubeflow's Model Registry, by its REST API: registered model, version, artifact.

The API is `/api/model_registry/v1`; before, it was `v1alpha3` with the same resources. The registry says which it has.
"""

import json
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from mixtune.errors import ClusterError
from mixtune.http_post import Reply, read_authorization, send_json
from mixtune.kubernetes_api import pod_namespace
from mixtune.registry.registry_entry import Entry
from mixtune.settings.model_registry import RegistrySettings

API = "/api/model_registry"
VERSIONS = ("v1", "v1alpha3")
TRIES, TIMEOUT_SECONDS = 3, 30
FORMATS = {"adapter": "peft", "weights": "safetensors"}
"""Name of the model format, by the model's kind."""
_REFUSAL_CHARACTERS = 300

Body = dict[str, object]


def find_or_create_version(entry: Entry, settings: RegistrySettings) -> str:
    """Return the id of the model's version in the registry; the same model keeps its version.

    Raises:
        ClusterError: The registry does not answer, or refuses.
    """
    registry = _Registry(settings)
    model = registry.find("registered_model", name=entry.name)
    if not model:
        description = f"Models tuned from {entry.properties.get('base_model', 'an unknown base')}"
        fields: Body = {"name": entry.name, "description": description, **_named("owner", settings.owner)}
        model = registry.create("registered_models", fields, "registered_model", name=entry.name)
    model_id = str(model["id"])
    name = entry.digest[:16]
    described: Body = {"description": entry.card, "customProperties": _properties(entry.properties), "state": "LIVE"}
    version = registry.find("model_version", name=name, parentResourceId=model_id)
    if version:
        registry.update(f"model_versions/{version['id']}", described)
    else:
        described |= {"name": name, "registeredModelId": model_id, **_named("author", settings.owner)}
        path = f"registered_models/{model_id}/versions"
        version = registry.create(path, described, "model_version", name=name, parentResourceId=model_id)
    version_id = str(version["id"])
    if not registry.find("model_artifact", name=_artifact_name(entry), parentResourceId=version_id):
        where = {"name": _artifact_name(entry), "parentResourceId": version_id}
        registry.create(f"model_versions/{version_id}/artifacts", _artifact(entry), "model_artifact", **where)
    return version_id


def _artifact_name(entry: Entry) -> str:
    """Return a name that no other model's artifact has: it has to be unique in the whole registry."""
    return f"{entry.name}-{entry.digest[:16]}"


def _artifact(entry: Entry) -> Body:
    namespace = pod_namespace()
    source = {"modelSourceKind": "kfp", "modelSourceClass": "pipelinerun", "modelSourceId": entry.run_id}
    return {
        "artifactType": "model-artifact",
        "name": _artifact_name(entry),
        "uri": entry.uri,
        "modelFormatName": FORMATS.get(entry.kind, entry.kind),
        "state": "LIVE",
        "customProperties": _properties({"model_digest": entry.digest}),
        **(source if entry.run_id else {}),
        **_named("modelSourceGroup", namespace if entry.run_id else ""),
    }


def _named(key: str, value: str) -> Body:
    return {key: value} if value else {}


def _properties(values: Mapping[str, str]) -> Body:
    return {key: {"metadataType": "MetadataStringValue", "string_value": value} for key, value in values.items()}


class _Registry:
    """Calls of the registry's REST API."""

    def __init__(self, settings: RegistrySettings) -> None:
        self._headers = read_authorization(settings.token_file, "registry token_file")
        self._url = settings.url.rstrip("/")
        for version in VERSIONS:
            self._root = f"{self._url}{API}/{version}"
            reply = self._send("GET", "registered_models?pageSize=1")
            if reply.is_ok:
                return
            if reply.status != 404:
                raise self._refusal("GET", "registered_models", reply)
        raise ClusterError(f"{self._url}: no Model Registry there: it has neither {' nor '.join(VERSIONS)} of {API}")

    def find(self, resource: str, **query: str) -> Body | None:
        """Return the resource that a query names; None where there is none."""
        path = f"{resource}?{urlencode(query, quote_via=quote)}"
        reply = self._send("GET", path)
        if reply.status == 404:
            return None
        return self._read("GET", path, reply)

    def create(self, path: str, body: Body, resource: str, **query: str) -> Body:
        """Make something; where somebody made it meanwhile, return that, by its resource and query."""
        reply = self._send("POST", path, body, tries=1)
        if reply.status in (0, 409) and (existing := self.find(resource, **query)):
            return existing
        return self._read("POST", path, reply)

    def update(self, path: str, body: Body) -> Body:
        """Change some of its fields."""
        return self._read("PATCH", path, self._send("PATCH", path, body))

    def _send(self, method: str, path: str, body: Body | None = None, tries: int = TRIES) -> Reply:
        where = f"{self._root}/{path}"
        return send_json(where, body, self._headers, method=method, tries=tries, timeout_seconds=TIMEOUT_SECONDS)

    def _read(self, method: str, path: str, reply: Reply) -> Body:
        if not reply.is_ok:
            raise self._refusal(method, path, reply)
        try:
            content = json.loads(reply.body)
        except ValueError as error:
            raise ClusterError(f"{self._root}/{path}: the registry's answer is not JSON") from error
        if not isinstance(content, dict) or "id" not in content:
            raise ClusterError(f"{self._root}/{path}: no id in the answer, so no Model Registry; check registry url")
        return dict(content)

    def _refusal(self, method: str, path: str, reply: Reply) -> ClusterError:
        reason = reply.refusal.decode(errors="replace").strip()[:_REFUSAL_CHARACTERS]
        if not reply.status:
            return ClusterError(
                f"{self._url}: the Model Registry does not answer ({reply.problem}); check registry url"
            )
        advice = "; give registry token_file, or a service account that may" if reply.status in (401, 403) else ""
        if 300 <= reply.status < 400:
            advice = "; it sends on to another address, such as a login; give the registry's own as registry url"
        return ClusterError(f"{self._url}: {method} {path.partition('?')[0]}: HTTP {reply.status} {reason}{advice}")
