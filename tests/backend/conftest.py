"""Fixture: the pipelines as a real back end ran them."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def pipeline_before(tmp_path: Path) -> Callable[[str], Path]:
    """The YAML of a pipeline at commit b36d641."""

    def unpack(name: str) -> Path:
        packed = Path(__file__).parent / "pipelines_b36d641" / f"{name}.yaml.gz"
        path = tmp_path / f"{name}.yaml"
        path.write_bytes(gzip.decompress(packed.read_bytes()))
        return path

    return unpack
