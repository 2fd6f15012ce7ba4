"""Fixtures that several parts share: a local S3 server, a hub, a Kubeflow Pipelines, a small run's arguments, the trainer's API models."""

import fcntl
import importlib.metadata
import importlib.util
import itertools
import json
import logging
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from tqdm.std import TqdmDefaultWriteLock

from mixtune import storage
from mixtune.commands.local import task_processes
from mixtune.commands.local.warm_steps import StepServer
from mixtune.demo.demo_data import write_world
from mixtune.storage import streams, transfer

from .backend.kubeflow import kubeflow as kubeflow
from .faulty_s3 import FaultyS3, no_fault
from .http_server import Answers, LocalServer

SLOWEST = (
    "tests/pipelines/test_runs.py",
    "tests/train/test_worker.py",
    "tests/test_readme.py",
    "tests/train/test_restoring.py",
    "tests/preflight/test_wrong.py",
    "tests/test_faults.py",
    "tests/train/test_gpu_benchmark.py",
    "tests/demo/test_demo.py",
    "tests/train/launcher/test_command.py",
    "tests/train/test_checkpoints.py",
    "tests/train/test_gpu_on_cpu.py",
    "tests/train/test_speed.py",
    "tests/test_examples.py",
    "tests/policies/test_pipeline.py",
)
"""Files that take half a minute of CPU or more begin first: no process still works through one when the others are done."""
SLOW_TESTS = Path(__file__).parent / "slow_tests.txt"
"""What `make check` leaves out beside the tests that are marked; `benchmarks/test_times.py` writes it."""

TqdmDefaultWriteLock.mp_lock = None  # tests kill forks of this process: one that held this lock would keep it for ever


def pytest_configure() -> None:
    """Let Ctrl-C end what tests start, also where a shell began pytest in the background and so ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what was measured to be slow; put the slowest files first, then those with a slow test, then the others."""
    measured = {tuple(line.split("::")) for line in SLOW_TESTS.read_text().splitlines()}
    for item in items:
        if (item.path.relative_to(config.rootpath).as_posix(), item.name.partition("[")[0]) in measured:
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    first = {config.rootpath / name: place for place, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: (first.get(item.path, len(first)), item.path not in slow))


@pytest.fixture(autouse=True)
def no_handler_of_earlier_tests() -> None:
    """Drop handlers of logs that a library made in an earlier test, whose stream is closed: each would print an error."""
    loggers = (logging.getLogger(), *logging.Logger.manager.loggerDict.values())
    for logger in (item for item in loggers if isinstance(item, logging.Logger)):
        for handler in list(logger.handlers):
            if isinstance(handler, logging.StreamHandler) and getattr(handler.stream, "closed", False):
                logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def environment_of_its_own() -> Iterator[None]:
    """Undo what a test leaves in the environment: a pipeline that runs in this process sets its run and its MLflow."""
    before = dict(os.environ)
    yield
    for name in set(os.environ) - set(before) - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A real S3 server (moto) on a free local port; its URL."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """`s3://` URI of a fresh bucket; child processes reach it too."""
    for name, value in {
        "AWS_ENDPOINT_URL_S3": s3_server,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    storage.s3_client.cache_clear()
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    storage.s3_client().create_bucket(Bucket=name)
    yield f"s3://{name}"
    storage.s3_client.cache_clear()


@pytest.fixture
def faulty_s3(bucket: str, s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """An S3 server before that of `bucket`, which fails as a test tells it; a request is tried twice, at once."""
    server = FaultyS3(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
    monkeypatch.setattr(streams, "TRIES", 2)
    monkeypatch.setattr(transfer, "TRIES", 2)
    storage.s3_client.cache_clear()
    with server.running():
        yield server
        server.fault = no_fault


class Hub(LocalServer):
    """Data sets and models of the hub: each one's files by name, all at one commit, which `v1` names, too."""

    COMMIT = "c" * 40

    def __init__(self) -> None:
        super().__init__(HubAnswers)
        self.repos: dict[str, dict[str, bytes]] = {}
        self.asked: list[str] = []


class HubAnswers(Answers):
    """Its answers."""

    server: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        found = re.match(
            r"/(?:api/)?(?:datasets/)?([^/]+/[^/]+)/(revision/v1|tree|resolve)(?:/(?:c{40}|v1)/?)?([^?]*)", self.path
        )
        files = self.server.repos.get(found[1]) if found else None
        if not found or files is None or (found[2] == "resolve" and found[3] not in files):
            self.send_error(404)
            return
        if found[2] == "resolve":
            self.server.asked.append(found[3])
            data = files[found[3]]
        else:
            listed = [{"type": "file", "path": path, "size": len(data), "oid": "0"} for path, data in files.items()]
            data = json.dumps(listed if found[2] == "tree" else {"id": found[1], "sha": Hub.COMMIT}).encode()
        self.send_response(200)
        for header, value in {"ETag": f'"{hash(data)}"', "X-Repo-Commit": Hub.COMMIT}.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with no data set in it yet, and an empty cache."""
    from huggingface_hub import constants

    server = Hub()
    template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    storage.files._fetch_from_hub.cache_clear()
    with server.running():
        yield server
    storage.files._fetch_from_hub.cache_clear()


@pytest.fixture(scope="session")
def empty_mlflow(pytestconfig: pytest.Config) -> Path:
    """An MLflow database without runs, kept between runs: to make its tables takes seconds."""
    folder = Path(pytestconfig.cache.mkdir(f"mlflow-{importlib.metadata.version('mlflow')}"))
    path = folder / "empty.db"
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not path.exists():
            from mlflow import MlflowClient

            unfinished = folder / f"{uuid.uuid4().hex}.db"
            MlflowClient(f"sqlite:///{unfinished}").search_experiments()
            unfinished.rename(path)
    return path


@pytest.fixture
def mlflow_uri(empty_mlflow: Path, tmp_path: Path) -> str:
    """A fresh SQLite database for MLflow."""
    return f"sqlite:///{shutil.copy(empty_mlflow, tmp_path / 'mlflow.db')}"


@pytest.fixture(scope="session")
def trainer_api(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """Folder of the trainer's own models (PyPI `kubeflow-trainer-api`) in a given version, kept between runs."""

    def install(version: str) -> Path:
        installed = importlib.util.find_spec("kubeflow_trainer_api")
        name = f"kubeflow_trainer_api-{version}.dist-info"
        if installed and installed.origin and Path(installed.origin).parent.with_name(name).exists():
            return Path(installed.origin).parents[1]
        return install_beside(pytestconfig, f"kubeflow-trainer-api=={version}")

    return install


def install_beside(config: pytest.Config, *packages: str) -> Path:
    """Folder of published packages that are too large or too old to be installed, kept between runs."""
    folder = Path(config.cache.mkdir(packages[0].replace("==", "-")))
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # tests run in several processes
        if not (folder / ".whole").exists():
            command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), *packages]
            answer = subprocess.run(command, capture_output=True, text=True)
            if answer.returncode:
                pytest.skip(f"{' '.join(packages)} cannot be installed here: {answer.stderr[-200:]}")
            (folder / ".whole").touch()
    return folder


ROUND_TRIP = """
import json, sys
from kubeflow_trainer_api import models
for document in json.load(sys.stdin):
    model = getattr(models, "TrainerV1alpha1" + document["kind"])
    print(json.dumps(model.from_dict(document).to_dict()))
"""


@pytest.fixture(scope="session")
def round_trip(trainer_api: Callable[[str], Path]) -> Callable[[str, list[Any]], list[tuple[Any, Any]]]:
    """Objects before and after they went through the trainer's models of a version: a field it does not know is lost."""

    def there_and_back(version: str, documents: list[Any]) -> list[tuple[Any, Any]]:
        answer = subprocess.run(
            [sys.executable, "-c", ROUND_TRIP],
            input=json.dumps(documents),
            env={**os.environ, "PYTHONPATH": str(trainer_api(version))},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert answer.returncode == 0, answer.stderr[-2000:]
        after = [json.loads(line) for line in answer.stdout.splitlines()]
        return list(zip(map(_normal, documents), map(_normal, after), strict=True))

    return there_and_back


def _normal(value: Any) -> Any:
    """Quantities may be written as numbers or as text; empty values may be left out."""
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_normal(item) for item in value]
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Arguments of a finetune run that goes well, on sixty lines of every file of the demo's."""
    world = write_world(tmp_path_factory.mktemp("small"))
    for uri in (world.customer_uri, world.test_uri, *(pool["uri"] for pool in world.general_pools)):
        with open(uri) as stream:
            lines = list(itertools.islice(stream, 60))
        Path(uri).write_text("".join(lines))
    return {**world.arguments("lora", 75.0), "benchmarks": {}, "max_steps": 1}


@pytest.fixture(scope="module")
def one_server() -> Iterator[StepServer]:
    """Let all runs of a module fork their steps from one process: for each run another would load the same libraries."""
    server = StepServer()
    with mock.patch.object(task_processes, "StepServer", lambda *_: server), mock.patch.object(server, "close"):
        yield server
    server.close()


@pytest.fixture(scope="module")
def no_network() -> Iterator[None]:
    """Let every connection that leaves this machine fail, here and in the processes that are started from now on."""
    blocked = Path(__file__).parent / "blocked"
    path = os.pathsep.join(filter(None, [str(blocked), os.environ.get("PYTHONPATH")]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        patch.setattr(socket.socket, "connect", socket.socket.connect)  # what the file puts there is undone with this
        runpy.run_path(str(blocked / "sitecustomize.py"))
        yield
