"""The images themselves, in real containers: `.ci/containers` builds them and runs this; elsewhere it is skipped."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import components, local

from mixtune import __version__, images
from mixtune.demo.demo_data import World, write_world

ROOT = Path(__file__).parents[2]
NAMES = {"data": images.DATA, "train": images.TRAIN, "evaluate": images.EVALUATE}
SHUT_IN: dict[str, Any] = {
    "network_mode": "none",
    "read_only": True,
    "tmpfs": {"/tmp": "size=1g,mode=1777"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "pids_limit": 512,
    "mem_limit": "6g",
}
"""What a pod of a `restricted` namespace has, and no network at all."""
LINES = 60
"""Records kept of each of the demo's files: enough for every step to have work."""

pytestmark = [
    pytest.mark.skipif("MIXTUNE_CONTAINERS" not in os.environ, reason="no images here: .ci/containers builds them"),
    pytest.mark.timeout(1500),
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    import docker

    client = docker.from_env()
    yield client
    client.close()


def say(engine: Any, image: str, *command: str) -> str:
    return str(engine.containers.run(image, list(command), remove=True, **SHUT_IN).decode().strip())


@pytest.mark.parametrize("part", NAMES)
def test_an_image_says_what_it_is_and_runs_as_nobody(engine: Any, part: str) -> None:
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    config = engine.images.get(NAMES[part]).attrs["Config"]
    assert config["User"] == "10001:10001"
    assert not config["Entrypoint"]
    assert config["Labels"]["org.opencontainers.image.version"] == __version__
    assert config["Labels"]["org.opencontainers.image.revision"] == commit
    told = "from mixtune import tracking; import os; print(tracking.commit_hash(), os.getuid())"
    assert say(engine, NAMES[part], "python3", "-c", told) == f"{commit} 10001"


@pytest.mark.parametrize("part", NAMES)
def test_an_image_has_all_that_its_components_import_and_no_dependency_of_kfp(engine: Any, part: str) -> None:
    folders = {"data": ("sanitize", "mix_shard", "preflight"), "train": ("train",), "evaluate": ("evaluate",)}[part]
    modules = [
        f"mixtune.{folder}.{path.stem}"
        for folder in folders
        for path in sorted((ROOT / "components/mixtune" / folder).glob("*.py"))
        if path.stem not in ("__init__", "component")
    ]
    script = f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n"
    script += "import importlib.util as u, sagemaker_mlflow; print(u.find_spec('kfp_server_api'))"
    assert say(engine, NAMES[part], "python3", "-c", script) == "None"


def test_no_program_raises_its_rights_and_nothing_is_written_outside_tmp(engine: Any) -> None:
    assert say(engine, images.TRAIN, "sh", "-c", "find / -xdev -type f -perm /6000 2>/dev/null || true") == ""
    script = "touch /opt/mixtune/x 2>/dev/null || touch /x 2>/dev/null || touch /tmp/x && ls /tmp"
    assert say(engine, images.TRAIN, "sh", "-c", script) == "x"


def small_run(world: World) -> dict[str, Any]:
    for file in [*world.folder.rglob("*.csv"), *world.folder.rglob("*.jsonl")]:
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:LINES]))
    arguments = world.arguments("lora", 75.0)
    return {
        **arguments,
        "benchmarks": {"ifeval": {**arguments["benchmarks"]["ifeval"], "max_new_tokens": 8}},
        "max_steps": 2,
    }


def test_the_finetune_pipeline_runs_in_containers_without_network_root_or_a_writable_root(tmp_path: Path) -> None:
    umask = os.umask(0)  # user 10001 writes where KFP's local runner, perhaps root, makes folders
    try:
        root = tmp_path / "run"
        root.mkdir(mode=0o777)
        arguments = small_run(write_world(root / "world"))
        local.init(local.DockerRunner(**SHUT_IN), pipeline_root=str(root), enable_caching=False)
        components.load_component_from_file(str(ROOT / "components/mixtune/compiled/finetune.yaml"))(**arguments)
    finally:
        os.umask(umask)
    (file,) = root.glob("finetune-*/compare/comparison")
    comparison = json.loads(file.read_text())
    assert comparison["verdict"] in ("pass", "fail", "inconclusive")
    assert Path(comparison["model_uri"].split("#")[0]).is_dir()
    assert file.with_name("report").read_text().startswith("<!DOCTYPE html>")
