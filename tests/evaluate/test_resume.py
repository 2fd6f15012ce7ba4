"""An evaluation that is cut, spread or kept from the network gives the rows of one that is not."""

import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mixtune.evaluate import loading, spreading
from mixtune.evaluate.evaluation import Data, EvaluationInputs, plan_axes
from mixtune.evaluate.samples import read_parts
from mixtune.pools import read_pools

from .test_evaluation import evaluate, rows

SCRIPT = """
import json, sys
from mixtune.evaluate.evaluation import EvaluationInputs, EvaluationOutputs, run_evaluation
inputs, outputs = json.loads(sys.argv[1])
run_evaluation(EvaluationInputs(**inputs), EvaluationOutputs(**outputs))
"""


def start(world: Any, folder: Path) -> subprocess.Popen[bytes]:
    import json

    inputs = {
        "base_model": str(world.base),
        "customer_path": str(world.customer),
        "general_path": str(world.general),
        "benchmarks": world.benchmarks,
    }
    names = ("samples_uri", "samples_path", "report_path", "summary_path")
    outputs = {name: str(folder / name.split("_")[0]) for name in names}
    folder.mkdir()
    return subprocess.Popen([sys.executable, "-c", SCRIPT, json.dumps([inputs, outputs])], stderr=subprocess.DEVNULL)


def test_a_killed_evaluation_goes_on_and_gives_the_same_rows(world: Any, tmp_path: Path) -> None:
    whole = rows(evaluate(world, tmp_path / "whole"))
    data = tmp_path / "killed" / "data" / "samples"
    process = start(world, tmp_path / "killed")
    while not list(data.rglob("*.parquet")) and process.poll() is None:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "killed" / "samples").exists(), "killed too late: the manifest is there"
    written = {path: path.stat().st_mtime_ns for path in data.rglob("*.parquet")}
    assert rows(evaluate(world, tmp_path / "killed")) == whole
    assert all(path.stat().st_mtime_ns == moment for path, moment in written.items())


def test_parts_of_another_evaluation_are_not_kept(world: Any, tmp_path: Path) -> None:
    evaluate(world, tmp_path / "out")
    changed = evaluate(world, tmp_path / "out", model_uri=str(world.damaged))
    assert rows(changed) == rows(evaluate(world, tmp_path / "fresh", model_uri=str(world.damaged)))


def test_the_rows_do_not_depend_on_the_number_of_processes(world: Any, tmp_path: Path) -> None:
    inputs = EvaluationInputs(
        base_model=str(world.base),
        customer_path=str(world.customer),
        general_path=str(world.general),
        benchmarks=world.benchmarks,
    )
    fetched = loading.fetch(inputs.model)
    data = Data(customer=read_pools(inputs.customer_path), general=read_pools(inputs.general_path))
    axes = plan_axes(inputs, data, loading.load_tokenizer(fetched))
    parts = [part for axis in axes for part in axis.parts]
    found = []
    for count in (1, 2):
        folder = str(tmp_path / str(count))
        load = partial(loading.load_engine, inputs.model, fetched)
        spreading.score_parts(parts, folder, load, ["cpu"] * count)
        table = read_parts(f"{folder}/{part.path}" for part in parts)
        found.append(table.drop_columns(["latency_seconds"]))
    assert found[0].equals(found[1])


def test_an_evaluation_needs_no_network(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert os.environ.get("HF_HUB_OFFLINE") != "1"
    evaluate(world, tmp_path / "out")
