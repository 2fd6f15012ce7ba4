"""Fixtures: overlays as `kubectl kustomize` builds them."""

import shutil
import subprocess
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
