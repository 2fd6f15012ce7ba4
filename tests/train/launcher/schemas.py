"""Checks that refuse unknown fields: from the trainer's published models, or from CRDs in the folder `MIXTUNE_CRDS`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

Object = dict[str, Any]

MODEL_SCHEMA = """
import json
from kubeflow_trainer_api import models
print(json.dumps(models.TrainerV1alpha1TrainJob.model_json_schema(by_alias=True)))
"""
PYTORCHJOB = {
    "type": "object",
    "properties": {
        "apiVersion": {"const": "kubeflow.org/v1"},
        "kind": {"const": "PyTorchJob"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["pytorchReplicaSpecs"],
            "properties": {
                "nprocPerNode": {"type": "string"},
                "elasticPolicy": {"type": "object"},
                "runPolicy": {
                    "properties": {
                        "activeDeadlineSeconds": {"type": "integer"},
                        "backoffLimit": {"type": "integer"},
                        "cleanPodPolicy": {"enum": ["All", "Running", "None"]},
                        "suspend": {"type": "boolean"},
                        "ttlSecondsAfterFinished": {"type": "integer"},
                    }
                },
                "pytorchReplicaSpecs": {
                    "type": "object",
                    "propertyNames": {"enum": ["Master", "Worker"]},
                    "additionalProperties": {
                        "properties": {
                            "replicas": {"type": "integer", "minimum": 1},
                            "restartPolicy": {"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
                            "template": {"type": "object"},
                        }
                    },
                },
            },
        },
    },
}
"""The fields of Training Operator v1's own; the pod template is checked against Kubernetes' schema."""


def strict(schema: Any) -> Any:
    """The schema with every field that it does not name refused."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: strict(value) for key, value in schema.items()}
    if isinstance(out.get("properties"), dict) and "additionalProperties" not in out:
        out["additionalProperties"] = bool(out.get("x-kubernetes-preserve-unknown-fields"))
    return out


def crd(file: str, kind: str) -> Any | None:
    """A kind's schema from a file of the folder `MIXTUNE_CRDS`, if that is set."""
    folder = os.environ.get("MIXTUNE_CRDS", "")
    if not folder:
        return None
    for document in yaml.safe_load_all((Path(folder) / file).read_text()):
        if document and document["spec"]["names"]["kind"] == kind:
            return strict(document["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    raise AssertionError(f"{file} has no {kind}")


def trainjob_schema(version: str, models: Path) -> Any:
    """The schema of a TrainJob in a version of Kubeflow Trainer."""
    found = crd({"2.2.1": "trainer-v2.2.0.yaml", "2.3.0": "trainer-v2.3.yaml"}[version], "TrainJob")
    if found:
        return found
    environment = {**os.environ, "PYTHONPATH": str(models)}
    command = [sys.executable, "-c", MODEL_SCHEMA]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return strict(json.loads(answer.stdout))


def errors(schema: Any, value: Object) -> list[str]:
    """What is wrong with an object."""
    found = list(jsonschema.Draft202012Validator(schema).iter_errors(value))
    worst = jsonschema.exceptions.best_match(found)
    return [f"{'.'.join(map(str, worst.absolute_path))}: {worst.message[:300]}"] if worst else []


def pytorchjob_errors(value: Object) -> list[str]:
    """What is wrong with a PyTorchJob."""
    found = errors(crd("pytorchjob-v1.yaml", "PyTorchJob") or strict(PYTORCHJOB), value)
    for replica in value["spec"].get("pytorchReplicaSpecs", {}).values():
        template = {
            "apiVersion": "v1",
            "kind": "PodTemplate",
            "metadata": {"name": "x"},
            "template": replica["template"],
        }
        try:
            kubernetes_validate.validate(template, "1.33", strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(str(error.message))
    return found
