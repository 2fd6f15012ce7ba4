"""An evaluation that is cut, spread or kept from the network gives the rows of one that is not."""

import multiprocessing
import os
import random
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mixtune import processes, storage
from mixtune.artifacts.pools import read_pools
from mixtune.artifacts.samples import read_parts
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.evaluate.run import EvaluationPools, plan_axes
from mixtune.inference import loading, parallel
from mixtune.inference.loading import ModelSource
from mixtune.inference.parallel import PROGRESS
from mixtune.settings.inference import EvaluateSettings

from ..evaluation import evaluate, rows


@pytest.fixture(scope="module")
def whole(world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, float]:
    """The rows of an evaluation that nothing disturbs, and its seconds."""
    folder = tmp_path_factory.mktemp("whole")
    evaluate(world, folder / "first")  # imports and warms up
    started = time.perf_counter()
    return rows(evaluate(world, folder / "second")), time.perf_counter() - started


@pytest.mark.parametrize("share", [round(random.Random(seed).uniform(0.1, 1.0), 3) for seed in range(5)])
def test_an_evaluation_killed_at_any_moment_goes_on_and_gives_the_same_rows(
    world: Any, whole: tuple[Any, float], tmp_path: Path, share: float
) -> None:
    expected, seconds = whole
    process = multiprocessing.get_context("fork").Process(target=evaluate, args=(world, tmp_path / "killed"))
    process.start()
    process.join(share * seconds)
    process.kill()
    process.join()
    data = tmp_path / "killed" / "data" / "samples"
    written = {path: path.stat().st_mtime_ns for path in data.rglob("*.parquet")}
    again = evaluate(world, tmp_path / "killed")
    assert rows(again) == expected
    assert all(path.stat().st_mtime_ns == moment for path, moment in written.items()), "a part was scored again"
    there = {path.relative_to(data).as_posix() for path in data.rglob("*") if path.is_file()}
    there = {path for path in there if "/." not in path}  # a file that was being written stays hidden
    assert there == {item.path for item in again.files} | {PROGRESS}


def test_an_evaluation_killed_after_its_first_part_keeps_it(
    world: Any, whole: tuple[Any, float], tmp_path: Path
) -> None:
    data = tmp_path / "killed" / "data" / "samples"
    process = multiprocessing.get_context("fork").Process(target=evaluate, args=(world, tmp_path / "killed"))
    process.start()
    while not list(data.rglob("*.parquet")) and process.is_alive():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not (tmp_path / "killed" / "samples").exists(), "killed too late: the manifest is there"
    assert rows(evaluate(world, tmp_path / "killed")) == whole[0]


def test_parts_in_s3_are_kept_too(
    world: Any, whole: tuple[Any, float], tmp_path: Path, bucket: str, capsys: pytest.CaptureFixture[str]
) -> None:
    at = storage.join(bucket, "run", "samples")
    evaluate(world, tmp_path / "out", samples_uri=at)
    lost = storage.join(storage.data_uri(at, "samples"), "mmlu", "anatomy-00000.parquet")
    storage.delete(lost)
    capsys.readouterr()
    assert rows(evaluate(world, tmp_path / "out", samples_uri=at)) == whole[0]
    assert "mmlu: 10 of 10 items, " in capsys.readouterr().out


def test_parts_of_another_evaluation_are_not_kept(world: Any, tmp_path: Path) -> None:
    evaluate(world, tmp_path / "out")
    changed = evaluate(world, tmp_path / "out", model_uri=str(world.damaged))
    assert rows(changed) == rows(evaluate(world, tmp_path / "fresh", model_uri=str(world.damaged)))


def test_no_manifest_names_parts_that_are_another_evaluations(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(world, tmp_path / "out")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(parallel, "score_parts", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate(world, tmp_path / "out", model_uri=str(world.damaged))
    assert not (tmp_path / "out" / "samples").exists()


@pytest.mark.slow
def test_the_rows_do_not_depend_on_the_number_of_processes(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forked = multiprocessing.get_context("fork")  # what GPUs forbid; everything is pickled as for spawned processes
    for module in (processes, parallel):
        monkeypatch.setattr(module, "SPAWN", forked)
    source = ModelSource(base_model=str(world.base))
    fetched = loading.fetch(source)
    pools = EvaluationPools(*(read_pools(str(path)) for path in (world.customer, world.general)))
    axes = plan_axes(
        EvaluateSettings(), parse_benchmarks(world.benchmarks), pools, loading.load_tokenizer(source, fetched)
    )
    parts = [part for axis in axes for part in axis.parts]
    found = []
    for count in (1, 2, 3):
        folder = str(tmp_path / str(count))
        load = partial(loading.load_engine, source, fetched)
        parallel.score_parts(parts, folder, load, ["cpu"] * count)
        table = read_parts(f"{folder}/{part.path}" for part in parts)
        found.append(table.drop_columns(["latency_seconds"]))
    assert found[0].equals(found[1]) and found[0].equals(found[2])


def test_an_evaluation_needs_no_network(world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert os.environ.get("HF_HUB_OFFLINE") != "1"
    evaluate(world, tmp_path / "out")
