"""When a checkpoint is made, which ones stay, and what becomes of those that are torn or cannot be written."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from mixtune import storage
from mixtune.errors import ConfigError, TrainingError
from mixtune.train import checkpoints, loop
from mixtune.train.checkpoints import Checkpoints

Train = Callable[..., str]


def names(folder: Path) -> list[str]:
    """Steps of the whole checkpoints, and whether each was looked at."""
    found = sorted(path.parent.name for path in folder.glob("data/checkpoints/*/checkpoint.json"))
    return [f"{int(name.split('-')[1])}{'+' if name.endswith('within') else ''}" for name in found]


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let a training fail in the step after so many."""
    one_step = loop._one_step

    def stop(done: int) -> None:
        def failing(trainer: Any, step: int, *others: Any) -> Any:
            if step == done:
                raise KeyboardInterrupt
            return one_step(trainer, step, *others)

        monkeypatch.setattr(loop, "_one_step", failing)

    return stop


def interrupted(train: Train, folder: Path, **options: object) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(folder, **options)
    for thread in threading.enumerate():
        if thread.daemon and thread.name.startswith("checkpoint"):
            thread.join(20)


@pytest.mark.parametrize(("keep", "left"), [(1, ["8+"]), (3, ["4+", "6+", "8+"])])
def test_the_newest_checkpoints_stay(
    keep: int, left: list[str], train: Train, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    stop_at(9)
    interrupted(train, tmp_path, checkpoints={"every_steps": 2, "keep": keep})
    assert names(tmp_path) == left


def test_a_checkpoint_is_made_whenever_its_time_has_come_and_the_newest_looked_at_stays_too(
    train: Train, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    stop_at(9)
    interrupted(train, tmp_path, checkpoints={"every_steps": 5, "every_seconds": 1e-6})
    assert names(tmp_path) == ["5+", "8", "9"]


def test_training_goes_on_while_a_checkpoint_is_written(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    begun: list[int] = []
    go_on = threading.Event()
    one_step, write = loop._one_step, Checkpoints._write

    def counted(trainer: Any, step: int, *others: Any) -> Any:
        steps.append(step)
        if step == 5:
            go_on.set()
        return one_step(trainer, step, *others)

    def held(self: Checkpoints, *others: Any) -> None:
        begun.append(len(steps))
        assert go_on.wait(20)
        write(self, *others)

    monkeypatch.setattr(loop, "_one_step", counted)
    monkeypatch.setattr(Checkpoints, "_write", held)
    train(tmp_path, checkpoints={"every_steps": 4})
    assert begun[0] == 4
    assert len(steps) == 12


def test_a_checkpoint_that_cannot_be_written_stops_the_training_and_says_why(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoints.storage, "write_manifest", full)
    with pytest.raises(TrainingError, match=r"the checkpoint could not be written \(no space left on device\)"):
        train(tmp_path)
    assert names(tmp_path) == []


def test_a_torn_checkpoint_is_passed_over_and_the_one_before_gives_the_same_bits(
    train: Train, tmp_path: Path, stop_at: Callable[[int], None], capsys: pytest.CaptureFixture[str]
) -> None:
    whole = load_file(Path(storage.check_fingerprint(train(tmp_path / "whole"))) / "adapter_model.safetensors")
    stop_at(7)
    interrupted(train, tmp_path / "cut")
    (newest,) = (tmp_path / "cut/data/checkpoints").glob("step-00000006-*")
    (newest / "checkpoint.json").unlink()
    stop_at(-1)
    again = load_file(Path(storage.check_fingerprint(train(tmp_path / "cut"))) / "adapter_model.safetensors")
    assert "going on after step 4 of 12" in capsys.readouterr().out
    assert all(torch.equal(value, again[name]) for name, value in whole.items())


def test_a_training_that_is_told_to_end_saves_and_goes_on_with_the_same_bits(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    whole = load_file(Path(storage.check_fingerprint(train(tmp_path / "whole"))) / "adapter_model.safetensors")
    one_step = loop._one_step

    def told(trainer: Any, step: int, *others: Any) -> Any:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return one_step(trainer, step, *others)

    with (
        monkeypatch.context() as patched,
        pytest.raises(TrainingError, match=r"told to end \(SIGTERM\) after step [56]"),
    ):
        patched.setattr(loop, "_one_step", told)
        train(tmp_path / "cut", checkpoints={"every_steps": 100})
    assert names(tmp_path / "cut") in (["5"], ["6"])
    again = load_file(
        Path(storage.check_fingerprint(train(tmp_path / "cut", checkpoints={"every_steps": 100})))
        / "adapter_model.safetensors"
    )
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_checkpoints_of_another_training_are_not_taken_up(
    train: Train, tmp_path: Path, stop_at: Callable[[int], None]
) -> None:
    stop_at(5)
    interrupted(train, tmp_path)
    stop_at(-1)
    with pytest.raises(ConfigError, match="its checkpoints are another training's"):
        train(tmp_path, learning_rate=2e-4)
    assert names(tmp_path) == ["2+", "4+"]
