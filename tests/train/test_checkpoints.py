"""When a checkpoint is made, which ones stay, and what becomes of those that are torn or cannot be written."""

import os
import re
import signal
import threading
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load, load_file
from transformers import AutoConfig, AutoModelForCausalLM

from mixtune import storage
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ConfigError, StorageError, TrainingError
from mixtune.train import checkpoints
from mixtune.train.checkpoints import CheckpointManifest, Checkpoints
from mixtune.train.distributed import ProcessGroup
from mixtune.train.loop import OnStep
from mixtune.train.metrics import StepMetrics
from mixtune.train.run import run_training
from mixtune.train.saving import rows
from mixtune.train.task import TrainTask
from mixtune.train.trainer import Trainer

from ..faulty_s3 import FaultyS3
from .conftest import task_in
from .test_loss import SHAPE

Train = Callable[..., str]


def names(folder: Path) -> list[str]:
    """Steps of the whole checkpoints, and whether each was looked at."""
    folders = sorted(path.parent.name for path in folder.glob("data/checkpoints/*/checkpoint.json"))
    return [f"{int(name.split('-')[1])}{'+' if name.endswith('healthy') else ''}" for name in folders]


def stop_after(step: int) -> OnStep:
    """End a training after that many steps, as kill -9 would, but that files that are begun are written."""

    def stop(trainer: Trainer, metrics: StepMetrics) -> None:
        if metrics.step == step:
            raise KeyboardInterrupt

    return stop


def join_writers() -> None:
    """Wait until no checkpoint is being written."""
    for thread in threading.enumerate():
        if thread.name == "checkpoint":
            thread.join(20)


def interrupted(train: Train, folder: Path, step: int, **options: object) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(folder, on_step=stop_after(step), **options)
    join_writers()


@pytest.mark.parametrize(("keep", "left"), [(1, ["8+"]), (3, ["4+", "6+", "8+"])])
def test_the_newest_checkpoints_stay(keep: int, left: list[str], train: Train, tmp_path: Path) -> None:
    interrupted(train, tmp_path, 9, checkpoints={"every_steps": 2, "keep": keep})
    assert names(tmp_path) == left


def test_a_checkpoint_is_made_whenever_its_time_has_come_and_the_newest_looked_at_stays_too(
    train: Train, tmp_path: Path
) -> None:
    interrupted(train, tmp_path, 9, checkpoints={"every_steps": 5, "every_seconds": 1e-6})
    assert names(tmp_path) == ["5+", "8", "9"]


def test_training_goes_on_while_a_checkpoint_is_written(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written_at: list[int] = []
    steps: list[int] = []
    go_on = threading.Event()

    def slow(*arguments: Any) -> storage.FileEntry:
        assert go_on.wait(20)
        written_at.append(len(steps))
        return write_artifact(*arguments)

    def count(trainer: Trainer, metrics: StepMetrics) -> None:
        steps.append(metrics.step)
        if metrics.step == 6:
            go_on.set()

    monkeypatch.setattr(checkpoints, "write_artifact", slow)
    train(tmp_path, on_step=count, checkpoints={"every_steps": 4})
    assert written_at[0] >= 6
    assert len(steps) == 12


def test_a_checkpoint_that_cannot_be_written_stops_the_training_and_says_why(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints, "write_artifact", full)
    with pytest.raises(StorageError, match=r"the checkpoint could not be written \(no space left on device\)"):
        train(tmp_path)
    assert names(tmp_path) == []


def in_s3(bucket: str, shards_path: str, folder: Path, every_steps: int = 2) -> TrainTask:
    """A training whose checkpoints and model lie in S3."""
    task = task_in(folder, shards_path, checkpoints={"every_steps": every_steps})
    return replace(task, outputs=replace(task.outputs, model_uri=f"{bucket}/run/model"))


@pytest.mark.parametrize("fault", ["SlowDown", "reset"])
def test_a_checkpoint_that_s3_does_not_take_for_a_while_costs_that_one_alone(
    train: Train,
    shards_path: str,
    bucket: str,
    faulty_s3: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    whole = load_file(Path(storage.check_fingerprint(train(tmp_path / "whole"))) / "adapter_model.safetensors")
    monkeypatch.setattr(checkpoints, "RETRY_SECONDS", 0.0)
    faulty_s3.fault = lambda method, path: fault if method == "PUT" and "/step-00000008-" in path else ""

    def settle(trainer: Trainer, metrics: StepMetrics) -> None:
        join_writers()
        if metrics.step == 11:
            raise KeyboardInterrupt

    task = in_s3(bucket, shards_path, tmp_path / "cut", every_steps=4)
    with pytest.raises(KeyboardInterrupt):
        run_training(task, settle)
    printed = capsys.readouterr().out
    assert printed.count("warning: ") == 1 and faulty_s3.faults
    assert re.search(
        r"warning: s3://\S+/checkpoints: the checkpoint could not be written \(s3://\S+step-00000008", printed
    )
    assert "the training goes on" in printed
    places = [entry.path for entry in storage.list_files(f"{bucket}/run/data/checkpoints")]
    assert {place.split("-")[1] for place in places if place.endswith("checkpoint.json")} == {"00000004", "00000010"}
    model = storage.check_fingerprint(run_training(task).uri)
    assert "going on after step 10 of 12" in capsys.readouterr().out
    again = load(storage.read_bytes(f"{model}/adapter_model.safetensors"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_training_ends_where_s3_takes_no_checkpoint_for_long_and_earlier_ones_stay(
    shards_path: str,
    bucket: str,
    faulty_s3: FaultyS3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: 600.0 * len(steps)))
    monkeypatch.setattr(checkpoints, "OUTAGE_SECONDS", 1800.0)
    taken = ("/step-00000004-", "/step-00000005-")
    faulty_s3.fault = lambda method, path: (
        "SlowDown" if method == "PUT" and "/step-" in path and not any(name in path for name in taken) else ""
    )

    def settle(trainer: Trainer, metrics: StepMetrics) -> None:
        steps.append(metrics.step)
        join_writers()

    task = in_s3(bucket, shards_path, tmp_path / "cut")
    with pytest.raises(StorageError, match=r"S3 has taken none for 30 minutes.*earlier ones stay; run it again once"):
        run_training(task, settle)
    assert steps[-1] == 8 and capsys.readouterr().out.count("warning: ") == 2
    faulty_s3.fault = lambda method, path: ""
    run_training(task)
    assert "going on after step 4 of 12" in capsys.readouterr().out


def test_a_training_ends_where_for_long_each_checkpoint_lacks_the_part_of_one_process_or_another(
    shards_path: str, bucket: str, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    monkeypatch.setattr(checkpoints, "time", SimpleNamespace(monotonic=lambda: 600.0 * len(steps)))
    monkeypatch.setattr(checkpoints, "OUTAGE_SECONDS", 2400.0)
    monkeypatch.setattr(ProcessGroup, "any_process", lambda group, flag: True)
    faulty_s3.fault = lambda method, path: (
        "SlowDown" if method == "PUT" and re.search("/step-000000(02|06|10)-", path) else ""
    )

    def settle(trainer: Trainer, metrics: StepMetrics) -> None:
        steps.append(metrics.step)
        join_writers()

    with pytest.raises(StorageError, match=r"S3 has taken none for 60 minutes"):
        run_training(in_s3(bucket, shards_path, tmp_path / "cut"), settle)
    assert steps[-1] == 6


def test_a_checkpoint_is_whole_though_older_ones_cannot_be_listed(
    shards_path: str, bucket: str, faulty_s3: FaultyS3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[int] = []
    faulty_s3.fault = lambda method, path: (
        "AccessDenied"
        if method == "GET" and "list-type" in path and "checkpoints" in path and 2 <= len(steps) < 6
        else ""
    )

    def settle(trainer: Trainer, metrics: StepMetrics) -> None:
        steps.append(metrics.step)
        join_writers()

    run_training(in_s3(bucket, shards_path, tmp_path / "cut"), settle)
    printed = capsys.readouterr().out
    assert steps[-1] == 12 and faulty_s3.faults
    assert "checkpoints: not listed, so older checkpoints stay for now" in printed
    assert "could not be written" not in printed


def test_a_checkpoint_that_s3_refuses_ends_the_training_at_the_next_step(
    shards_path: str, bucket: str, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    faulty_s3.fault = lambda method, path: "AccessDenied" if method == "PUT" and "/step-00000002-" in path else ""
    steps = []

    def settle(trainer: Trainer, metrics: StepMetrics) -> None:
        steps.append(metrics.step)
        join_writers()

    with pytest.raises(StorageError, match=r"could not be written \(s3://.*AccessDenied: no right to do this"):
        run_training(in_s3(bucket, shards_path, tmp_path / "cut"), settle)
    assert steps == [1, 2]


def test_the_last_checkpoint_is_not_waited_for_in_vain_where_the_model_follows(
    shards_path: str, bucket: str, faulty_s3: FaultyS3, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faulty_s3.fault = lambda method, path: "AccessDenied" if method == "PUT" and "/step-00000010-" in path else ""
    task = in_s3(bucket, shards_path, tmp_path / "cut")

    def settle(trainer: Trainer, metrics: StepMetrics) -> None:
        if metrics.step == 11:
            join_writers()

    assert storage.exists(storage.check_fingerprint(run_training(task, settle).uri))
    assert "AccessDenied" in (printed := capsys.readouterr().out) and "; the model follows" in printed


def test_a_training_that_is_told_to_end_and_cannot_save_says_so(
    shards_path: str, bucket: str, faulty_s3: FaultyS3, tmp_path: Path
) -> None:
    faulty_s3.fault = lambda method, path: "SlowDown" if method == "PUT" and "/step-0000000" in path else ""

    def terminate(trainer: Trainer, metrics: StepMetrics) -> None:
        if metrics.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    task = in_s3(bucket, shards_path, tmp_path / "cut")
    with pytest.raises(StorageError, match=r"could not be written .*SlowDown: S3 is overloaded"):
        run_training(task, terminate)


def test_a_torn_checkpoint_is_passed_over_and_the_one_before_gives_the_same_bits(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load_file(Path(storage.check_fingerprint(train(tmp_path / "whole"))) / "adapter_model.safetensors")
    interrupted(train, tmp_path / "cut", 7)
    (newest,) = (tmp_path / "cut/data/checkpoints").glob("step-00000006-*")
    (newest / "checkpoint.json").unlink()
    again = load_file(Path(storage.check_fingerprint(train(tmp_path / "cut"))) / "adapter_model.safetensors")
    assert "going on after step 4 of 12" in capsys.readouterr().out
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_training_that_is_told_to_end_saves_and_goes_on_with_the_same_bits(train: Train, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    whole = load_file(Path(storage.check_fingerprint(train(tmp_path / "whole"))) / "adapter_model.safetensors")

    def terminate(trainer: Trainer, metrics: StepMetrics) -> None:
        if metrics.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(TrainingError, match=r"told to end \(SIGTERM\) after step [56]"):
        train(tmp_path / "cut", on_step=terminate, checkpoints={"every_steps": 100})
    assert names(tmp_path / "cut") in (["5"], ["6"])
    again = load_file(
        Path(storage.check_fingerprint(train(tmp_path / "cut", checkpoints={"every_steps": 100})))
        / "adapter_model.safetensors"
    )
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_training_is_done_where_its_checkpoints_may_not_be_deleted(
    shards_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    delete = storage.delete

    def refuse(uri: str) -> None:
        if uri.endswith("checkpoints"):
            raise StorageError(f"{uri}: AccessDenied: no right to do this")
        delete(uri)

    monkeypatch.setattr(storage, "delete", refuse)
    first, again = (run_training(task_in(tmp_path, shards_path)) for _ in range(2))
    assert str(first) == str(again)
    shown = capsys.readouterr().out
    assert shown.count("are not deleted") == 2 and "AccessDenied: no right to do this" in shown


def test_a_process_reads_its_own_rows_of_a_checkpoint_in_s3_and_no_others(
    shards_path: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_in(tmp_path, shards_path, method="sft", checkpoints={"every_steps": 4})
    place = f"{bucket}/model"
    task = replace(task, outputs=replace(task.outputs, model_path=place, model_uri=place))
    monkeypatch.setattr(Checkpoints, "delete", Checkpoints.finish)
    trained: list[Trainer] = []
    run_training(task, lambda trainer, metrics: trained.append(trainer))
    folder = storage.join(bucket, "data/checkpoints")
    name = sorted({entry.path.split("/")[0] for entry in storage.list_files(folder)})[-1]
    manifest = read_artifact(CheckpointManifest, storage.join(folder, name, "checkpoint.json"))
    whole = sum(entry.num_bytes for entry in manifest.files)
    num_read = [0]
    read_into = storage.RangeReader.read_into

    def count(reader: storage.RangeReader, offset: int, buffer: memoryview) -> None:
        num_read[0] += len(buffer)
        read_into(reader, offset, buffer)

    def second_quarter(value: torch.Tensor, is_main: bool) -> tuple[torch.Tensor, int, bool]:
        quarter = value.shape[0] // 4
        return value[quarter : 2 * quarter], quarter, is_main

    monkeypatch.setattr(storage.RangeReader, "read_into", count)
    monkeypatch.setattr(rows, "HEADER_BYTES", 16 * 1024)
    monkeypatch.setattr(rows, "local_rows", second_quarter)
    before = {key: value.detach().clone() for key, value in trained[-1].model.parameters().items()}
    rows.restore_rows(storage.join(folder, name), manifest.files, manifest.steps_done, trained[-1])
    assert num_read[0] < 0.3 * whole
    for key, value in trained[-1].model.parameters().items():
        own, _, _ = second_quarter(value, True)
        assert not torch.equal(own, second_quarter(before[key], True)[0]) or not own.numel()
        assert torch.equal(value[: value.shape[0] // 4], before[key][: value.shape[0] // 4])


def test_a_checkpoints_file_is_written_without_a_copy_in_the_interpreter_which_would_stand_still(
    tmp_path: Path,
) -> None:
    size = 128 * 2**20  # the S3 server of other tests may read 10 MB meanwhile
    tracemalloc.start()
    try:
        rows.write_part(({"w": torch.ones(size // 4)}, {"w": "0"}), tmp_path, str(tmp_path / "weights.safetensors"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "weights.safetensors").stat().st_size > size
    assert peak < size // 4


def test_the_checkpoints_of_another_training_are_not_taken_up(train: Train, tmp_path: Path) -> None:
    interrupted(train, tmp_path, 5)
    with pytest.raises(ConfigError, match="its checkpoints are another training's"):
        train(tmp_path, learning_rate=2e-4)
    assert names(tmp_path) == ["2+", "4+"]


def test_a_model_that_is_half_replaced_has_no_manifest(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tmp_path)

    def full(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(storage, "upload", full)
    with pytest.raises(OSError, match="no space left"):
        train(tmp_path, learning_rate=2e-4)
    assert not (tmp_path / "model").exists()


def test_a_model_with_a_vision_tower_is_trained_and_saved_without_it(
    shards_path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trained weight without a gradient has no moments: the first checkpoint would have failed."""
    text = {**SHAPE, "sliding_window": 8, "query_pre_attn_scalar": 8}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 8, "patch_size": 4}
    config = AutoConfig.for_model("gemma3", text_config=text, vision_config=vision, mm_tokens_per_image=4)
    base = tmp_path / "base"
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(base)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (base / name).write_bytes((BASE_MODEL / name).read_bytes())
    (base / "preprocessor_config.json").write_text("{}")
    task = task_in(tmp_path / "out", shards_path, method="sft", memory={"dtype": "bfloat16"})
    monkeypatch.setattr(Checkpoints, "delete", Checkpoints.finish)
    run_training(replace(task, inputs=replace(task.inputs, base_model=str(base))))
    assert names(tmp_path / "out") == ["8+", "10+"]
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "out/data/model"))
    assert (tmp_path / "out/data/model/preprocessor_config.json").is_file()
    towers = [name for name in before if "vision" in name]
    assert towers and all(torch.equal(before[name], after[name]) for name in towers)
    assert any(not torch.equal(before[name].to(torch.bfloat16), value) for name, value in after.items())
