"""The first process of a job's container: it hands signals on from its first moment, as process 1 must."""

import os
import shutil
import signal
import subprocess
import sys
import time
import venv
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from torch.distributed.run import config_from_args, parse_args

from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import ClusterError
from mixtune.settings.train import TrainSettings
from mixtune.train import worker
from mixtune.train.launcher.follower import Follower
from mixtune.train.launcher.jobs import BACKENDS, Job
from mixtune.train.launcher.launch import job_file
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

from .operator import nodes_of

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


IMAGES = Path(__file__).parents[3]
SAVING = """
import os, signal, time
def save(number, frame):
    time.sleep(SECONDS)
    open(os.environ["SAVED"], "w").close()
    os._exit(0)
signal.signal(signal.SIGTERM, save)
os.write(1, b"training\\n")  # in one piece: torchrun's workers do not buffer, and print writes the line's end by itself
time.sleep(300)
"""


def pod_of(runtime: str) -> dict[str, Any]:
    text = (IMAGES / f"kustomize/cluster/runtime-{runtime}/runtime.yaml").read_text()
    (job,) = yaml.safe_load(text)["spec"]["template"]["spec"]["replicatedJobs"]
    return dict(job["template"]["spec"]["template"]["spec"])


@pytest.mark.parametrize("runtime", ["p5", "cpu"])
def test_a_large_checkpoint_has_almost_the_whole_grace_of_the_pod(
    runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    told = "import os\nprint('importing', flush=True)\nprint(os.environ['TORCH_ELASTIC_SHUTDOWN_TIMEOUT'])\n"
    process = start(tmp_path, told)
    assert process.stdout
    seconds = int(process.stdout.read())
    assert process.wait(10) == 0
    assert 400 < seconds < pod_of(runtime)["terminationGracePeriodSeconds"]
    monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(seconds))
    arguments = parse_args(["--nnodes=1", "--nproc-per-node=1", "-m", "mixtune.train.worker", "s3://b/job.json"])
    assert config_from_args(arguments)[0].shutdown_timeout == seconds, "torchrun reads it"


@pytest.mark.parametrize("runtime", ["p5", "cpu"])
def test_a_model_from_the_hub_and_compiled_kernels_go_to_the_nodes_disk_not_to_a_small_tmp(runtime: str) -> None:
    pod = pod_of(runtime)
    (container,) = pod["containers"]
    mounts = {item["mountPath"]: item["name"] for item in container["volumeMounts"]}
    env = {item["name"]: item["value"] for item in container["env"] if "value" in item}
    for name in ("HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "MIXTUNE_CACHE_DIR"):
        assert mounts["/" + env[name].split("/")[1]] != mounts["/tmp"], name
    place = "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"
    told = subprocess.run([sys.executable, "-c", place], env=env, capture_output=True, text=True, check=True)
    assert told.stdout.startswith(env["HF_HOME"] + "/")


def test_a_log_is_of_the_training_not_of_nccl() -> None:
    (container,) = pod_of("p5")["containers"]
    env = {item["name"]: item.get("value") for item in container["env"]}
    assert env["NCCL_DEBUG"] == "WARN"  # the base image's /etc/nccl.conf says INFO


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [int(os.environ.get("SAVE_SECONDS", "2"))])
def test_a_worker_that_is_told_to_end_is_let_save(seconds: int, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SAVING.replace("SECONDS", str(seconds)))
    environment = {**os.environ, "SAVED": str(tmp_path / "saved"), "PYTHONPATH": f"{tmp_path}:{IMAGES}/components"}
    code = "from mixtune.train.launcher import node; node.WORKER = ['-m', 'worker']; node.main()"
    command = [sys.executable, "-c", code, "--nproc-per-node=2", "--master-port=0", "job.json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    running = (line for line in process.stdout if line == "training\n")
    assert next(running) and next(running)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=seconds + 60)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_job_runs_the_python_that_knows_mixtune_whatever_lies_first_on_the_path(backend: str, tmp_path: Path) -> None:
    """As in the training image: the base's environment with PyTorch, and ours that sees its packages."""
    for name in ("base", "ours"):
        venv.create(tmp_path / name, with_pip=False, symlinks=True)
    torchrun = tmp_path / "base/bin/torchrun"
    torchrun.write_text(f"#!{tmp_path}/base/bin/python\nimport mixtune\n")
    torchrun.chmod(0o755)
    (site,) = (tmp_path / "ours/lib").glob("python*/site-packages")
    (site / "ours.pth").write_text(f"{IMAGES / 'components'}\n{tmp_path / 'shim'}\n")
    package = tmp_path / "shim/torch/distributed"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "run.py").write_text("import mixtune, sys\nprint(sys.executable, *sys.argv[1:])\n")
    job = Job(
        name="train-x",
        run_id="run-1",
        job_uri="s3://b/job.json",
        image="i",
        python=str(tmp_path / "ours/bin/python"),
        num_nodes=2,
        processes_per_node=8,
        runtime="r",
    )
    body = BACKENDS[backend].body(job, {"spec": pod_of("cpu")})
    (command, _), _ = nodes_of(body, {"spec": pod_of("cpu")}, 29500)
    path = f"{tmp_path}/base/bin:{tmp_path}/ours/bin:/usr/bin:/bin"
    answer = subprocess.run(command, env={"PATH": path}, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split()[0] == str(tmp_path / "ours/bin/python")
    assert answer.stdout.split()[-3:] == ["-m", "mixtune.train.worker", "s3://b/job.json"]


FAILING = """
import os, sys, time
if os.environ["RANK"] == "5":
    for line in range(30):
        print("loading", line, flush=True)
    MESSAGE
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("sys.exit('error: the loss of step 7 is not finite; lower the learning rate')", "the loss of step 7 is not"),
        ("raise KeyError('exp_avg')", "KeyError: 'exp_avg'"),
    ],
)
def test_the_reason_of_one_worker_of_eight_is_what_the_user_sees(message: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(FAILING.replace("MESSAGE", message))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=8", "--master-port=0"]
    answer = subprocess.run([*command, str(tmp_path / "worker.py")], capture_output=True, text=True, timeout=120)
    assert answer.returncode == 1
    lines = [f"2026-11-28T10:00:00Z {line}" for line in (answer.stdout + answer.stderr).splitlines()]
    api = PodLog(lines)
    follower = Follower(api=api, backend=BACKENDS["trainjob"], name="train-x", start=0.0)
    status = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}
    follower._show_death({"metadata": {"name": "train-x-0", "uid": "u"}, "status": status})
    assert reason in follower.failures[0]


class PodLog:
    """The last lines of a pod's log, as the API gives them."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def log(self, pod: str, tailLines: int, **_: object) -> list[str]:  # noqa: N803
        return self.lines[-tailLines:]


def test_a_worker_that_was_promised_gpus_and_sees_none_refuses_before_it_reads_anything(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "there" / "is" / "nothing")
    task = TrainTask(
        settings=TrainSettings(method="lora"),
        inputs=TrainInputs(shards_path=nowhere, base_model=nowhere),
        outputs=TrainOutputs(model_path=nowhere, model_uri=nowhere),
    )
    write_artifact(str(tmp_path / "job.json"), job_file(task, gpus_per_node=8))
    with pytest.raises(
        ClusterError, match=r"asked for with 8 GPUs, and PyTorch \S+ sees 0 \(.+\); look at `nvidia-smi`"
    ):
        worker.run_job(str(tmp_path / "job.json"))


def test_a_node_without_a_job_says_how_it_is_used() -> None:
    answer = subprocess.run([sys.executable, "-m", "mixtune.train.launcher.node"], capture_output=True, text=True)
    assert (answer.returncode, answer.stderr[:6]) == (2, "usage:")
