"""Steps whose files lie in an S3 that fails: what passes changes nothing, what does not is named, and a rerun ends the same."""

import itertools
import multiprocessing
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from kfp import dsl

from mixtune import storage
from mixtune.artifacts.typed_json import write_artifact
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import MixtuneError
from mixtune.find_mix.run import proceed
from mixtune.find_mix.search import start_search
from mixtune.prices import read_prices
from mixtune.rehearse.component import rehearse
from mixtune.serve.serve_model import ServeRequest, serve_model
from mixtune.settings.serving import ServeSettings

from .faulty_s3 import FaultyS3, no_fault
from .find_mix.test_search import EPOCHS, SETTINGS, compare, proxies, samples
from .limits import limited

pytestmark = pytest.mark.slow
torch.set_num_threads(1)  # bits depend on the number of threads
Step = Callable[[str, Path], bytes]
"""Does a step in a folder of a bucket and one of this machine; returns what it wrote."""


def put_inputs(place: str) -> None:
    """Bring the demo's base model and a search that has begun to S3."""
    for file in sorted(path for path in BASE_MODEL.iterdir() if path.is_file()):
        storage.copy(str(file), f"{place}/base/{file.name}")
    write_artifact(f"{place}/search", start_search(proxies(rate=12), samples(), SETTINGS, EPOCHS, seed=1))


def ask_itself(place: str, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    pool, summary = dsl.Dataset(name="p", uri=str(folder / "p")), dsl.Markdown(name="s", uri=str(folder / "s"))
    options = {"max_prompt_tokens": 32, "max_new_tokens": 16}
    uri = rehearse.python_func(
        pool=pool, summary=summary, base_model=f"{place}/base", num_records=40, out_uri=f"{place}/out", options=options
    )
    return storage.read_bytes(uri)


def serve(place: str, folder: Path) -> bytes:
    request = ServeRequest(name="desk", model_uri=storage.fingerprint(f"{place}/base"), base_model=f"{place}/base")
    return serve_model(request, ServeSettings(), read_prices("")).objects.encode()


def search(place: str, folder: Path) -> bytes:
    folder.mkdir(exist_ok=True)
    write_artifact(str(folder / "comparison"), compare(75, 1, 12))
    proceed(str(folder / "comparison"), f"{place}/search", 1, f"{place}/next")
    return storage.read_bytes(f"{place}/next")


FAULTS = ("SlowDown", "reset", "slow")
STEPS: dict[str, Step] = {"rehearse": ask_itself, "serve": serve, "find_mix": search}


def fresh(monkeypatch: pytest.MonkeyPatch, server: FaultyS3, place: str, folder: Path) -> None:
    """Bring the inputs to a place, and forget what an earlier run fetched."""
    server.fault = no_fault
    put_inputs(place)
    monkeypatch.setenv("MIXTUNE_CACHE_DIR", str(folder))


@pytest.mark.parametrize("name", STEPS)
def test_a_step_goes_on_where_each_request_fails_once(
    name: str, bucket: str, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, results = STEPS[name], set()
    for number, faults in enumerate([("",), FAULTS]):
        place = f"{bucket}/{number}"
        fresh(monkeypatch, faulty_s3, place, tmp_path / f"cache-{number}")
        faulty_s3.fail_once(*faults)
        results.add(step(place, tmp_path / f"{number}").replace(place.encode(), b""))
    assert len(results) == 1 and {fault for *_, fault in faulty_s3.faults} == set(FAULTS)


@pytest.mark.parametrize("name", STEPS)
def test_a_step_that_is_refused_halfway_names_the_place_and_ends_the_same_when_it_is_run_again(
    name: str, bucket: str, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, place = STEPS[name], f"{bucket}/whole"
    fresh(monkeypatch, faulty_s3, place, tmp_path / "cache")
    before = faulty_s3.num_requests
    whole = step(place, tmp_path / "whole").replace(place.encode(), b"")
    total = faulty_s3.num_requests - before
    for number in (total // 3, total - 1):
        place = f"{bucket}/{number}"
        fresh(monkeypatch, faulty_s3, place, tmp_path / f"cache-{number}")
        faulty_s3.refuse_after(number)
        with pytest.raises(MixtuneError, match=r"s3://\S+: (AccessDenied|403): no right to do this"):
            step(place, tmp_path / f"{number}")
        faulty_s3.fault = no_fault
        assert step(place, tmp_path / f"{number}").replace(place.encode(), b"") == whole


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_rehearsal_whose_disk_is_full_leaves_nothing_half_and_ends_the_same_when_it_is_run_again(
    size: int, bucket: str, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/here"
    fresh(monkeypatch, faulty_s3, place, tmp_path / "cache-whole")
    whole = ask_itself(place, tmp_path / "whole")
    storage.delete(f"{place}/out")
    fresh(monkeypatch, faulty_s3, place, tmp_path / "cache")
    with limited(resource.RLIMIT_FSIZE, size), pytest.raises(OSError, match="File too large"):
        ask_itself(place, tmp_path / "again")
    left = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert all(path.stat().st_size == (BASE_MODEL / path.name).stat().st_size for path in left), left
    assert ask_itself(place, tmp_path / "again") == whole


def test_a_rehearsal_in_s3_that_is_killed_at_any_request_ends_the_same_when_it_is_run_again(
    bucket: str, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"{bucket}/whole"
    fresh(monkeypatch, faulty_s3, place, tmp_path / "cache-whole")
    before = faulty_s3.num_requests
    whole = ask_itself(place, tmp_path / "whole")
    total = faulty_s3.num_requests - before
    for number in (total // 2, total - 2):
        place, reached = f"{bucket}/{number}", threading.Event()
        fresh(monkeypatch, faulty_s3, place, tmp_path / f"cache-{number}")
        left = itertools.count(number, -1)

        def stop(method: str, path: str, left: Iterator[int] = left, reached: threading.Event = reached) -> str:
            if next(left) <= 0:
                reached.set()
                return "slow"
            return ""

        faulty_s3.fault = stop
        storage.s3_client.cache_clear()
        process = multiprocessing.get_context("fork").Process(target=ask_itself, args=(place, tmp_path / f"{number}"))
        process.start()
        while not reached.wait(0.1):
            assert process.is_alive(), "it ended by itself"
        process.kill()
        process.join()
        faulty_s3.fault = no_fault
        assert ask_itself(place, tmp_path / f"{number}") == whole
