"""The acceptance run against the tests' Kubeflow and cluster: it is to work at the first try on a real one."""

import json
import sys
from pathlib import Path

import pytest

from mixtune import storage

from .kubeflow import Kubeflow
from .kubernetes import Kubernetes
from .kubernetes import cluster as cluster

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks import backend as acceptance


def test_the_acceptance_run_submits_twice_kills_and_prints_a_table(
    kubeflow: Kubeflow, cluster: Kubernetes, bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digests = {f"mixtune-python-{part}": f"sha256:{'ab' * 32}" for part in ("data", "train", "evaluate")}
    (tmp_path / "images.json").write_text(json.dumps(digests))
    for run_id in ("run-1", "run-2"):
        storage.write_json(f"{bucket}/kfp/finetune/{run_id}/compare/7/comparison", {"verdict": "pass", "axes": []})
    words = ["--host", kubeflow.url, "--bucket", bucket, "--namespace", "team", "--poll", "0.01", "--kill"]
    further = ["--digests", str(tmp_path / "images.json"), "--pipelines", "finetune", "--nodes", "2"]
    assert acceptance.main([*words, *further]) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.startswith("| finetune | 2 nodes | 1 | SUCCEEDED |") and "| pass |" in first
    assert second.startswith("| finetune | 2 nodes | 2 | SUCCEEDED |")
    assert "| launcher | nothing |" in first and cluster.deleted, "a launcher's pod was deleted"
    parameters = kubeflow.bodies[0]["runtime_config"]["parameters"]
    assert parameters["customer_uri"].startswith(f"{bucket}/acceptance/world/")
    assert storage.list_files(parameters["base_model"])
    with storage.open_read(parameters["customer_uri"]) as stream:
        assert len(stream.read().splitlines()) <= 60
