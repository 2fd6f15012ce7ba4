"""Checks of KServe's objects that refuse unknown fields.

InferenceService: the fields of KServe's own published models (PyPI `kserve`). These leave out LLMInferenceService's
specification, so its fields stand here as its CRD has them; its pod is checked against Kubernetes' schema. With the
folder `MIXTUNE_CRDS` both are checked against the CRDs themselves, where they are in it. Rules in CEL are evaluated.
"""

import ast
import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from ..crd_rules import PRESERVE, strict_errors

Object = dict[str, Any]
POSITIVE = {"type": "integer", "minimum": 1}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
REFS = {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}}
PLACED = {"type": "object", "properties": {key: {"type": "string"} for key in ("name", "namespace", "sectionName")}}
LLM_SPEC = {
    "type": "object",
    "required": ["model"],
    "properties": {
        "annotations": TEXTS,
        "labels": TEXTS,
        "baseRefs": REFS,
        "model": {
            "type": "object",
            "required": ["uri"],
            "properties": {
                "uri": {"type": "string"},
                "name": {"type": "string"},
                "lora": {
                    "type": "object",
                    "properties": {
                        "adapters": {
                            "type": "array",
                            "items": {
                                "type": "object",
                                "required": ["uri", "name"],
                                "properties": {"uri": {"type": "string"}, "name": {"type": "string"}},
                            },
                        },
                        "maxAdapters": POSITIVE,
                        "maxCpuAdapters": POSITIVE,
                        "maxRank": POSITIVE,
                    },
                },
            },
        },
        "parallelism": {
            "type": "object",
            "properties": {
                **dict.fromkeys(("data", "dataLocal", "dataRPCPort", "pipeline", "tensor"), POSITIVE),
                "expert": {"type": "boolean"},
            },
        },
        "replicas": {"type": "integer", "minimum": 0},
        "router": {
            "type": "object",
            "properties": {
                "gateway": {"type": "object", "properties": {"refs": {"type": "array", "items": PLACED}}},
                "route": {"type": "object", "properties": {"http": {"type": "object", PRESERVE: True}}},
                "scheduler": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
            },
        },
        "storageInitializer": {"type": "object", "properties": {"enabled": {"type": "boolean"}}},
        "template": {"type": "object", PRESERVE: True},
        "worker": {"type": "object", PRESERVE: True},
        "scaling": {"type": "object", PRESERVE: True},
    },
    "x-kubernetes-validations": [
        {"rule": rule}
        for rule in (
            "!(has(self.replicas) && has(self.scaling))",
            "!has(self.worker) || (has(self.parallelism) && (has(self.parallelism.data) || has(self.parallelism.pipeline)))",
            "!has(self.parallelism) || has(self.parallelism.data) == has(self.parallelism.dataLocal)",
            "!has(self.parallelism) || !(has(self.parallelism.data) && has(self.parallelism.pipeline))",
            "!has(self.model.lora) || self.model.lora.adapters.all(a, !(a.name in ['', '.', '..']))",
            "!has(self.model.lora) || self.model.lora.adapters.all(a, a.name != self.model.name)",
            "!has(self.model.lora) || self.model.lora.adapters.all(a, "
            "self.model.lora.adapters.exists_one(b, b.name == a.name))",
            "!has(self.router) || !has(self.router.scheduler) || !has(self.router.scheduler.replicas) || "
            "self.router.scheduler.replicas > 0",
        )
    ],
}
"""What of an LLMInferenceService's specification is ours to write, v1alpha2, with the rules of its CRD and its webhook."""
FILES = {
    "LLMInferenceService": "serving.kserve.io_llminferenceservices.yaml",
    "InferenceService": "serving.kserve.io_inferenceservices.yaml",
}


def llm_errors(value: Object, cel: Path) -> list[str]:
    """What is wrong with an LLMInferenceService."""
    if schema := crd(value):
        return strict_errors(schema, value, cel)
    envelope = {
        "type": "object",
        "properties": {
            "apiVersion": {"const": "serving.kserve.io/v1alpha2"},
            "kind": {"const": "LLMInferenceService"},
            "metadata": {"type": "object"},
            "spec": LLM_SPEC,
        },
    }
    found = strict_errors(envelope, value, cel)
    return found or pod_errors(value["spec"]["template"])


def inference_errors(value: Object, package: Path, cel: Path) -> list[str]:
    """What is wrong with an InferenceService."""
    if schema := crd(value):
        return strict_errors(schema, value, cel)
    found = model_errors(package, "V1beta1InferenceService", value)
    fields = {key: item for key, item in value["spec"]["predictor"].items() if key not in OF_KSERVE}
    return found or pod_errors(fields)


OF_KSERVE = ("minReplicas", "maxReplicas", "storageUris")


def pod_errors(spec: Object) -> list[str]:
    """What Kubernetes says of a pod's specification."""
    template = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "x"}, "template": {"spec": spec}}
    try:
        kubernetes_validate.validate(template, "1.33", strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error.message)]
    return []


def model_errors(package: Path, name: str, value: Any, where: str = "") -> list[str]:
    """What of a value its published model does not know, or has of another type; Kubernetes' own are left out."""
    fields = read_fields(package, name)
    if fields is None:
        return []
    if not isinstance(value, dict):
        return [f"{where}: an object of {name}"]
    found = [f"{where}.{key}: {name} has no such field" for key in value if key not in fields]
    for key, item in value.items():
        kind = fields.get(key, "")
        inner = re.fullmatch(r"list\[(\w+)\]", kind)
        if inner and isinstance(item, list):
            for place, entry in enumerate(item):
                found += model_errors(package, inner[1], entry, f"{where}.{key}[{place}]")
        elif kind in PLAIN:
            found += [] if type(item) is PLAIN[kind] else [f"{where}.{key}: {item!r} is no {kind}"]
        else:
            found += model_errors(package, kind, item, f"{where}.{key}")
    return found


PLAIN = {"str": str, "int": int, "bool": bool, "float": float}


def read_fields(package: Path, name: str) -> dict[str, str] | None:
    """Type by JSON name of a model's fields; None where KServe's models do not have it."""
    words = re.sub(r"(?<!^)(?=[A-Z][a-z])|(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    path = package / "kserve" / "models" / f"{words}.py"
    if not path.is_file():
        return None
    tables: dict[str, dict[str, str]] = {}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") in ("openapi_types", "attribute_map"):
            tables[node.targets[0].id] = ast.literal_eval(node.value)  # type: ignore[attr-defined]
    return {tables["attribute_map"][key]: kind for key, kind in tables["openapi_types"].items()}


def crd(value: Object) -> Any | None:
    """The schema of an object's version in the folder `MIXTUNE_CRDS`, where that has it."""
    path = Path(os.environ.get("MIXTUNE_CRDS", "")) / FILES[value["kind"]]
    if not os.environ.get("MIXTUNE_CRDS") or not path.is_file():
        return None
    versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    wanted = value["apiVersion"].split("/")[1]
    return next(item for item in versions if item["name"] == wanted)["schema"]["openAPIV3Schema"]
