"""Sanitize in pieces: killed and run again, or spread over pods, with the bytes of one undisturbed run."""

import inspect
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.artifacts.pools import read_pools
from mixtune.errors import ConfigError
from mixtune.sanitize.component import sanitize as shell
from mixtune.sanitize.indexed_job import make_share
from mixtune.sanitize.reading.sources import list_sources
from mixtune.sanitize.run import read_parameters
from mixtune.settings.sanitize import SourceSettings

from .conftest import sanitize

RUN = """
import json, sys
from mixtune.sanitize.run import Outputs, read_parameters, run
folder = sys.argv[1]
places = {"json_path": "pools", "data_uri": "data", "html_path": "r.html", "markdown_path": "s.md"}
outputs = Outputs(**{name: f"{folder}/{place}" for name, place in places.items()})
run(*read_parameters({"splits": {"test_ratio": 0}, **json.load(open(sys.argv[2]))}), outputs)
"""


def write_job(folder: Path, **options: Any) -> Path:
    """A job of some eight parts, with near copies, a test split and a held-out benchmark, told in a file."""
    draw = random.Random(3)
    words = [f"word{number}" for number in range(3000)]
    asked = [" ".join(draw.choices(words, k=60)) for _ in range(400)]
    rows = [
        {"prompt": f"System: {text} at jane{n % 7}@example.org", "completion": "done"} for n, text in enumerate(asked)
    ]
    rows += [{"prompt": f"{row['prompt']} once more", "completion": "done"} for row in rows[::9]]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "broken\n")
    (folder / "bench.jsonl").write_text(json.dumps({"prompt": asked[5]}) + "\n")
    (folder / "yes.txt").write_text("\n".join(words[:50]))
    job = {
        "sources": [{"name": "chat", "uri": str(folder / "a.jsonl")}],
        "benchmarks": {"held": {"uri": str(folder / "bench.jsonl")}},
        "consent": {"list_uri": str(folder / "yes.txt"), "required": False},
        "range_bytes": 30_000,
        "work_uri": str(folder / "work"),
        **options,
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def finish(job: Path, folder: Path) -> dict[str, str]:
    """Path and digest of every file that a run of the job leaves."""
    options = {key: value for key, value in json.loads(job.read_text()).items() if key != "num_workers"}
    folder.mkdir(exist_ok=True)
    sanitize(folder, **options, num_workers=1)
    return result(folder)


def result(folder: Path) -> dict[str, str]:
    manifest = read_pools(str(folder / "pools"))
    visible = {
        path.relative_to(folder / "data").as_posix() for path in (folder / "data").rglob("[!.]*") if path.is_file()
    }
    assert visible == {entry.path for entry in manifest.files}
    report = storage.sha256_file(str(folder / "r.html"))
    return {"report": report, **{entry.path: entry.sha256 for entry in manifest.files}}


def test_nothing_of_an_earlier_run_lies_beside_the_pools(tmp_path: Path) -> None:
    job = write_job(tmp_path / "in", work_uri="")
    finish(job, tmp_path / "out")
    write_job(tmp_path / "in", work_uri="", sources=[{"name": "other", "uri": str(tmp_path / "in/a.jsonl")}])
    again = finish(job, tmp_path / "out")
    assert all(path.startswith(("other/", "quarantine")) for path in again if path != "report")


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    job = write_job(tmp_path / "in")
    whole = finish(write_job(tmp_path / "in", work_uri=""), tmp_path / "whole")
    write_job(tmp_path / "in", num_workers=1)
    command, kills, left = [sys.executable, "-c", RUN, str(tmp_path / "killed"), str(job)], 0, []
    (tmp_path / "killed").mkdir()
    draw = random.Random(7)
    for _ in range(3):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            began = time.monotonic()
            wanted = len(left) + draw.randint(1, 2)
            while process.poll() is None and len(left) < wanted and time.monotonic() - began < 60:
                left = [path for path in (tmp_path / "in/work").glob("0*.json")]
                time.sleep(0.005)
            kills += process.poll() is None
            process.kill()
        assert not (tmp_path / "killed/pools").exists()
    assert kills == 3
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert result(tmp_path / "killed") == whole


def test_pods_in_any_order_one_of_them_killed_make_the_parts_of_one_pod(tmp_path: Path) -> None:
    whole = finish(write_job(tmp_path / "in", work_uri=""), tmp_path / "whole")
    job = write_job(tmp_path / "in", num_workers=1)
    work = tmp_path / "in/work"

    def pod(index: int) -> "subprocess.Popen[bytes]":
        place = {**os.environ, "JOB_COMPLETION_INDEX": str(index), "JOB_COMPLETIONS": "3"}
        command = [sys.executable, "-m", "mixtune.sanitize.indexed_job", str(job)]
        return subprocess.Popen(command, env=place, stdout=subprocess.DEVNULL)

    with pod(2) as killed:
        while not list(work.glob("0*.json")):
            assert killed.poll() is None
            time.sleep(0.005)
        killed.kill()
    for index in (1, 2, 0):
        with pod(index) as process:
            assert process.wait() == 0
    stamps = {path: path.stat().st_mtime_ns for path in work.glob("0*")}
    assert (
        len(stamps)
        == 4 * len(list_sources([SourceSettings(**item) for item in json.loads(job.read_text())["sources"]], 30_000))
        >= 20
    )
    assert finish(job, tmp_path / "ended") == whole
    assert {path: path.stat().st_mtime_ns for path in work.glob("0*")} == stamps, "parts were made again"


def test_a_file_of_the_same_size_and_other_bytes_makes_its_parts_anew(tmp_path: Path) -> None:
    job = write_job(tmp_path / "in")
    finish(job, tmp_path / "first")
    source = tmp_path / "in/a.jsonl"
    source.write_text(source.read_text().replace("once more", "ever more"))
    assert finish(job, tmp_path / "second") == finish(write_job_again(job), tmp_path / "third")


def write_job_again(job: Path) -> Path:
    options = json.loads(job.read_text())
    job.write_text(json.dumps({**options, "work_uri": ""}))
    return job


def test_a_pod_without_a_place_for_its_parts_and_an_unknown_parameter_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without work_uri the parts would be lost"):
        make_share(str(write_job(tmp_path / "in", work_uri="")), 0, 1)
    with pytest.raises(ConfigError, match="pod 3 of 3"):
        make_share(str(write_job(tmp_path / "in")), 3, 3)
    answer = subprocess.run(
        [sys.executable, "-m", "mixtune.sanitize.indexed_job", str(write_job(tmp_path / "in", colour="red"))],
        capture_output=True,
        text=True,
    )
    assert (answer.returncode, answer.stderr) == (
        2,
        "error: sanitize: unknown key 'colour'; there are dedup, splits, text, personal_data, consent, chat, seed\n",
    )


def test_the_shells_parameters_are_the_jobs_with_the_same_defaults() -> None:
    parameters = inspect.signature(shell.python_func).parameters.values()
    own = {"sources", "pools", "report", "summary", "against", "storage"}
    options = {item.name: item.default for item in parameters if item.name not in own}
    sources = [{"name": "a", "uri": "b"}]
    assert read_parameters({"sources": sources, **options}) == read_parameters({"sources": sources})
