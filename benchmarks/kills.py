"""kill -9 at random moments: does every resume work, and does the training end with the same weights?

    python benchmarks/kills.py SHARDS BASE_MODEL --kills 20 --results benchmarks/results/kills.md

SHARDS is the manifest of a shards artifact, made with BASE_MODEL (a `mixtune demo` leaves some). For LoRA and full SFT:
once without a kill; then with kills in one process; then with kills and another number of processes after each. Half
of the kills come in the middle of a save, as soon as a checkpoint's folder is there without its manifest.
"""

import argparse
import itertools
import multiprocessing
import os
import random
import signal
import socket
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from mixtune import storage
from mixtune.artifacts.model import read_model
from mixtune.artifacts.shards import open_shards
from mixtune.artifacts.typed_json import write_artifact
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import TrainSettings
from mixtune.train.task import TrainInputs, TrainJobFile, TrainOutputs, TrainTask
from mixtune.train.worker import run_job

PATIENCE_SECONDS = 120.0


@dataclass(kw_only=True)
class Tally:
    """What a training went through."""

    kills: int = 0
    in_saves: int = 0
    """Kills that left a checkpoint without its manifest."""
    resumed_after: list[int] = field(default_factory=list)
    """Steps that were saved at each kill."""


def write_job(folder: Path, shards: str, base_model: str, place: str = "", **options: Any) -> str:
    """A job for `mixtune.train.worker`, in a folder; what it makes goes to `place`, by default the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    artifact = storage.join(place or str(folder), "model")
    steps = options.pop("validation_steps", 0)
    settings = {"method": "lora", "learning_rate": 1e-5, "checkpoints": {"every_steps": 1}, **options}
    task = TrainTask(
        settings=from_dict(TrainSettings, settings, "settings"),
        inputs=TrainInputs(shards_path=shards, base_model=base_model),
        outputs=TrainOutputs(model_path=artifact, model_uri=artifact),
        validation_steps=steps,
    )
    write_artifact(str(folder / "job.json"), TrainJobFile(task=task))
    return str(folder / "job.json")


def weights_of(place: str, folder: Path) -> dict[str, torch.Tensor]:
    """The weights that a job left at `place`; what lies in S3 is fetched to `folder`."""
    manifest = read_model(storage.join(place, "model"))
    (name,) = [entry.path for entry in manifest.files if entry.path.endswith("model.safetensors")]
    return load_file(storage.fetch(manifest.data_uri, folder) / name)


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Largest difference of a weight."""
    assert set(one) == set(other)
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def _process(job: str, rank: int, size: int, nodes: int, port: int) -> None:
    torch.set_num_threads(1)  # torch makes its pool anew after a fork: before loading threads race for it
    local = size // nodes
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size)}
    os.environ |= {"LOCAL_RANK": str(rank % local), "LOCAL_WORLD_SIZE": str(local)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    run_job(job)


def start_forked(job: str, size: int, nodes: int = 1) -> list[ForkProcess]:
    """Start a job in processes that need not import anything again, as if on so many nodes."""
    context = multiprocessing.get_context("fork")
    with socket.socket() as held:
        # Bound and not listened on, also in the forks: no other program is given the port, and the first of these may take it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        processes = [context.Process(target=_process, args=(job, rank, size, nodes, port)) for rank in range(size)]
        for process in processes:
            process.start()
    return processes


def run_forked(job: str, size: int, nodes: int = 1) -> None:
    """Run a job to its end."""
    processes = start_forked(job, size, nodes)
    for process in processes:
        process.join(PATIENCE_SECONDS)
    codes = [process.exitcode for process in processes]
    assert codes == [0] * size, f"processes ended with {codes}"


def run_with_kills(job: str, sizes: Iterable[int], num_kills: int, steps_between: int, draw: random.Random) -> Tally:
    """Run a job, kill all its processes again and again, and let the last attempt end.

    Args:
        job: From `write_job`, in a folder of its own.
        sizes: Processes of each attempt.
        num_kills: How often.
        steps_between: Steps that an attempt gets on with before it is killed, at most.
        draw: Decides the moments.
    """
    checkpoints, tally, of_attempt = Path(job).parent / "data" / "checkpoints", Tally(), iter(sizes)
    for number in range(num_kills):
        target = _saved(checkpoints) + draw.randint(0, steps_between)
        processes = start_forked(job, next(of_attempt))
        _wait_for(lambda target=target: _saved(checkpoints) >= target, processes)
        if number % 2:
            _stop_in_save(checkpoints, processes)
        else:
            time.sleep(draw.uniform(0, 0.1))
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        tally.kills += 1
        tally.in_saves += _torn(checkpoints)
        tally.resumed_after.append(_saved(checkpoints))
    run_forked(job, next(of_attempt))
    return tally


def _wait_for(condition: Any, processes: list[ForkProcess]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert all(process.is_alive() for process in processes), "a process ended by itself"
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.001)


def _stop_in_save(checkpoints: Path, processes: list[ForkProcess]) -> None:
    """Stop the processes while a checkpoint is half written, for sure."""
    while True:
        _wait_for(lambda: _torn(checkpoints), processes)
        _send(signal.SIGSTOP, processes)
        time.sleep(0.01)  # until they have stopped
        if _torn(checkpoints):
            return
        _send(signal.SIGCONT, processes)


def _send(number: signal.Signals, processes: list[ForkProcess]) -> None:
    for process in processes:
        os.kill(int(process.pid or 0), number)


def _saved(checkpoints: Path) -> int:
    """Steps in the newest whole checkpoint."""
    return max((int(path.parent.name.split("-")[1]) for path in checkpoints.glob("*/checkpoint.json")), default=0)


def _torn(checkpoints: Path) -> bool:
    folders = list(checkpoints.iterdir()) if checkpoints.exists() else []
    return any(not (folder / "checkpoint.json").exists() for folder in folders)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards")
    parser.add_argument("base_model")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        steps = open_shards(given.shards, Path(scratch) / "shards").num_steps
        between = max(1, 2 * steps // given.kills - 2)
        for method in ("lora", "sft"):
            run_forked(write_job(Path(scratch) / method, given.shards, given.base_model, method=method), 1)
            whole = weights_of(str(Path(scratch) / method), Path(scratch))
            for name, sizes in (("1", [1]), ("1, 2, 4 in turn", [1, 2, 4])):
                folder = Path(scratch) / f"{method}-{len(sizes)}"
                job = write_job(folder, given.shards, given.base_model, method=method)
                draw = random.Random(given.seed)
                tally = run_with_kills(job, itertools.cycle(sizes), given.kills, between, draw)
                gap = furthest(whole, weights_of(str(folder), folder))
                row = f"| {method} | {name} | {tally.kills} | {tally.in_saves} | {tally.kills} of {tally.kills} | {gap:.1g} |"
                print(row, flush=True)
                rows.append(row)
    if given.results:
        given.results.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
