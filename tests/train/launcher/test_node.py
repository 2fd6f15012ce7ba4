"""The first process of a job's container: it hands signals on from its first moment, as process 1 must."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

IMPORTING = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
HANDLING = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print('importing', flush=True)
time.sleep(60)
"""


def start(folder: Path, torchrun: str, *before: str) -> "subprocess.Popen[str]":
    """Start the node's command with a torchrun that a test wrote; returns once that runs."""
    package = folder / "torch" / "distributed"
    package.mkdir(parents=True)
    for path in (package.parent / "__init__.py", package / "__init__.py"):
        path.touch()
    (package / "run.py").write_text(torchrun)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    command = [*before, sys.executable, "-m", "mixtune.train.launcher.node", "--nnodes=2", "s3://b/job.json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout and process.stdout.readline() == "importing\n"
    return process


@pytest.mark.parametrize(("torchrun", "status"), [(IMPORTING, 143), (HANDLING, 7)])
def test_a_signal_reaches_torchrun_and_its_status_comes_back(tmp_path: Path, torchrun: str, status: int) -> None:
    process = start(tmp_path, torchrun)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == status
    assert time.monotonic() - begin < 5


def test_process_1_of_a_container_ends_at_once_where_torchrun_itself_would_stand_out_its_grace(tmp_path: Path) -> None:
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "--fork", "--pid", "true"], capture_output=True).returncode:
        pytest.skip("no process namespace can be made here")
    inside = (unshare, "--fork", "--pid", "--kill-child")
    process = start(tmp_path, IMPORTING, *inside)
    (first,) = psutil.Process(process.pid).children()
    first.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 143
    torchrun = subprocess.Popen([*inside, sys.executable, "-c", IMPORTING], stdout=subprocess.PIPE, text=True)
    assert torchrun.stdout and torchrun.stdout.readline() == "importing\n"
    (first,) = psutil.Process(torchrun.pid).children()
    first.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        torchrun.wait(timeout=1)
    torchrun.kill()
    torchrun.wait()


def test_a_node_without_a_job_says_how_it_is_used() -> None:
    answer = subprocess.run([sys.executable, "-m", "mixtune.train.launcher.node"], capture_output=True, text=True)
    assert (answer.returncode, answer.stderr[:6]) == (2, "usage:")
