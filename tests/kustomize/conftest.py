"""Fixtures: overlays as `kubectl kustomize` builds them, and the trainer's API models in more than one version."""

import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2] / "kustomize"
OVERLAYS = ("kind", "eks-p5", "hyperpod-eks", "profile")

Document = dict[str, Any]
Build = Callable[..., list[Document]]


@lru_cache
def kustomize(folder: Path) -> list[Document]:
    command = ["kubectl", "kustomize", str(folder)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


@pytest.fixture(scope="session")
def build() -> Build:
    """The documents of an overlay, or of any folder."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is not installed: overlays are not built")
    return lambda name: kustomize(name if isinstance(name, Path) else ROOT / "overlays" / name)


@pytest.fixture(scope="session")
def trainer_api(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Folder of the trainer's own models (PyPI `kubeflow-trainer-api`) in a given version, kept between runs."""

    def install(version: str) -> Path:
        installed = importlib.util.find_spec("kubeflow_trainer_api")
        if installed and installed.origin and Path(installed.origin).parent.with_name(_dist_info(version)).exists():
            return Path(installed.origin).parents[1]
        folder = Path(pytestconfig.cache.mkdir(f"kubeflow-trainer-api-{version}"))
        if not (folder / _dist_info(version)).exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
            answer = subprocess.run([*command, f"kubeflow-trainer-api=={version}"], capture_output=True, text=True)
            if answer.returncode:
                pytest.skip(f"kubeflow-trainer-api {version} cannot be installed here: {answer.stderr[-200:]}")
        return folder

    return install


def _dist_info(version: str) -> str:
    return f"kubeflow_trainer_api-{version}.dist-info"
