"""What every step of a compiled pipeline runs, and the metrics that it leaves."""

import json
import math
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mixtune import storage
from mixtune.errors import ConfigError, DataError, MixtuneError, StorageError
from mixtune.report.metrics_artifact import write_metrics
from mixtune.step import explained, read_environment, refuse_once, run

from .limits import limited

ROOT = Path(__file__).parents[1]


def launched(artifact: str, outputs: Path | None = None, **values: object) -> str:
    """What KFP's launcher hands a step in."""
    names = ("action", "customer_data_percent", "train_options", "ladder_uri")
    parameters = {name: {"outputFile": str(outputs / name)} for name in names} if outputs else {}
    return json.dumps(
        {
            "inputs": {"parameterValues": values},
            "outputs": {
                "parameters": parameters,
                "artifacts": {
                    "executor-logs": {"artifacts": [{"uri": artifact, "type": {"schemaTitle": "system.Artifact"}}]}
                },
                "outputFile": str(outputs / "metadata.json") if outputs else "",
            },
        }
    )


def test_a_step_runs_a_component_by_its_name_and_writes_its_outputs(tmp_path: Path) -> None:
    given = {
        "action": "stop",
        "customer_data_percent": 50,
        "train_options": {"lora_rank": 16},
        "ladder_uri": "s3://b/c",
    }
    run("kfp.dsl.executor_main", "choose.go_on", launched(str(tmp_path / "logs"), tmp_path / "out", **given))
    values = json.loads((tmp_path / "out" / "metadata.json").read_text())["parameterValues"]
    assert values == given and type(values["customer_data_percent"]) is float


def test_mounted_settings_and_secrets_are_the_steps_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "of-the-image")
    data = tmp_path / "..2026_11_28"  # as a kubelet lays a mounted ConfigMap out
    data.mkdir()
    (data / "AWS_REGION").write_text("eu-west-1\n")
    (tmp_path / "..data").symlink_to(data)
    (tmp_path / "AWS_REGION").symlink_to(tmp_path / "..data" / "AWS_REGION")
    before = set(os.environ)
    read_environment([str(tmp_path), str(tmp_path / "missing")])
    assert os.environ["AWS_REGION"] == "eu-west-1" and set(os.environ) == before


def test_bad_input_is_worked_on_once_and_any_other_failure_again(bucket: str) -> None:
    task = launched(f"{bucket}/kfp/run-1/sanitize/7/executor-logs")
    with pytest.raises(RuntimeError), refuse_once(task):
        raise RuntimeError("node lost")
    with pytest.raises(DataError), refuse_once(task):
        raise DataError("line 3 of a.jsonl is no JSON")
    words = r"line 3 of a.jsonl is no JSON \(said by the first attempt"
    with pytest.raises(ConfigError, match=words), refuse_once(task):
        pytest.fail("the work began again")
    with refuse_once(launched(f"{bucket}/kfp/run-2/sanitize/9/executor-logs")):
        pass


class Shown:
    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.values: dict[str, float] = {}

    def log_metric(self, metric: str, value: float) -> None:
        self.values[metric] = value


def test_a_metric_that_the_launcher_refuses_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(tmp_path / "metrics")
    write_metrics(shown, {"loss": 1, "nll": math.nan, "rate": math.inf, "kappa": None})
    assert shown.values == storage.read_json(shown.path) == {"loss": 1.0}
    assert (
        capsys.readouterr().out == "warning: not shown, since no finite number: nll (nan), rate (inf), kappa (None)\n"
    )


def test_no_other_module_hands_metrics_to_kfp() -> None:
    modules = sorted((ROOT / "components").rglob("*.py"))
    names = [path.name for path in modules if ".log_metric(" in path.read_text()]
    assert names == ["metrics_artifact.py"]


def fill_a_disk() -> None:
    with open("/dev/full", "wb") as stream:
        stream.write(b"x")


def open_too_many_files() -> None:
    with limited(resource.RLIMIT_NOFILE, os.dup(0) + 1), open("/dev/zero"), open("/dev/zero"):
        pass


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (fill_a_disk, r"the run's folder: No space left on device; free some there, or give another disk"),
        (open_too_many_files, r"/dev/zero: Too many open files; raise the limit on open files \(ulimit -n\)"),
        (Path("/proc/self/mem/x").read_text, r"/proc/self/mem/x: Not a directory; name a path that can be read"),
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_what_the_system_refuses_ends_a_step_with_the_place_and_the_way_out(
    fail: Callable[[], object], words: str
) -> None:
    with pytest.raises(StorageError, match=words), explained():
        fail()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        np.zeros,
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
    ids=("bare", "numpy", "torch"),
)
def test_a_step_that_runs_out_of_memory_says_which_and_the_way_out(error: Any) -> None:
    words = r"train.train ran out of memory \(.+\); this machine, .* has [\d.]+ GB; close other programs"
    with pytest.raises(MixtuneError, match=words), explained("train.train"):
        if callable(error):
            error(2**50)
        raise error
    with pytest.raises(RuntimeError, match="other"), explained("train.train"):
        raise RuntimeError("other")


def test_a_full_gpu_is_no_full_machine() -> None:
    words = r"\(CUDA out of memory\. .+\); the GPU is full, give it less at once"
    with pytest.raises(MixtuneError, match=words), explained("train.train"):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
