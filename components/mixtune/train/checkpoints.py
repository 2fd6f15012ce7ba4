"""Checkpoints: what a killed training goes on from, exactly, local or in S3, whatever the number of processes then.

A checkpoint is a folder `step-<steps done>-<attempt>` of safetensors files (trained weights and AdamW's moments, from
every process the rows that it holds) and a manifest `checkpoint.json`, which is written last: a folder without it is
torn and never read. Files are written by a thread while training goes on. The order of the data and dropout need no
state: step `s` is step `s` of the shards.
"""

import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save

from mixtune import storage
from mixtune.errors import ConfigError, TrainingError
from mixtune.settings.train import TrainSettings
from mixtune.train.distributed import World
from mixtune.train.divergence_guard import Guard
from mixtune.train.modeling.model import Trainable, local_rows

KINDS = ("weights", "exp_avg", "exp_avg_sq")
MANIFEST = "checkpoint.json"
WITHIN = "-within"
"""How the name ends of a checkpoint that was looked at and found to forget no more than it may."""
PEERS_SECONDS = 900.0
"""How long rank 0 waits for the files of the other processes."""


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, uri: str, config: TrainSettings, identity: dict[str, Any], world: World) -> None:
        self.uri, self._config, self._identity, self._world = uri, config, identity, world
        self.attempts = [0]
        """Steps after which this training began or went on: its lineage."""
        self.num_parts = world.size
        """Processes that the training began with: its global batches are cut for them, whoever goes on."""
        self._attempt = world.text(uuid.uuid4().hex[:8])
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._saved_at = time.monotonic()
        self._terminated = False

    @contextmanager
    def until_told(self) -> Iterator[None]:
        """A block in which SIGTERM is a wish to save and stop, not the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _on_sigterm(self, _number: int, _frame: Any) -> None:
        self._terminated = True

    def wishes(self) -> torch.Tensor:
        """What this process wants after the step: float64, (stop, save); any process's wish counts for all."""
        interval = self._config.checkpoints.every_seconds
        due = self._world.is_main and interval > 0 and time.monotonic() - self._saved_at >= interval
        return torch.tensor([float(self._terminated), float(due)], dtype=torch.float64)

    def after_step(
        self, done: int, model: Trainable, optimizer: torch.optim.Optimizer, guard: Guard, wishes: torch.Tensor
    ) -> None:
        """Save where it is time to.

        Raises:
            TrainingError: A process was told to end (SIGTERM); the checkpoint is whole.
        """
        stop, due = (bool(wish) for wish in wishes.tolist())
        if stop or due or done % self._config.checkpoints.every_steps == 0:
            self.save(done, model, optimizer, guard, within=done % self._config.checkpoints.every_steps == 0)
        if stop:
            self.wait()
            raise TrainingError(f"told to end (SIGTERM) after step {done}, which is saved; run it again to go on")

    def save(
        self, done: int, model: Trainable, optimizer: torch.optim.Optimizer, guard: Guard, *, within: bool = False
    ) -> None:
        """Copy the state, and begin to write it.

        Args:
            done: Steps done.
            model: In training.
            optimizer: Its optimizer.
            guard: What remembers the last steps.
            within: Whether it is known not to forget too much: the newest such checkpoint stays too.
        """
        self.wait()
        self._saved_at = time.monotonic()
        parts = _snapshot(model, optimizer, self._world.is_main)
        state = {"losses": guard.losses, "norms": guard.norms, "num_parts": self.num_parts, "attempts": self.attempts}
        name = f"step-{done:08d}-{self._attempt}{WITHIN if within else ''}"
        self._thread = threading.Thread(None, self._write, "checkpoint", (name, done, parts, state), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until what was begun is written; an error in it is raised here."""
        if self._thread:
            self._thread.join()
            self._thread = None
        if self._error:
            raise TrainingError(f"{self.uri}: the checkpoint could not be written ({self._error})") from self._error

    def load(self, model: Trainable, optimizer: torch.optim.Optimizer, guard: Guard, *, within: bool = False) -> int:
        """Take up the newest whole checkpoint, or the newest `within`; the steps done come back, 0 where there is none.

        Raises:
            ConfigError: It is another training's.
        """
        self.wait()
        whole, torn = self._listed() if self._world.is_main else ([], [])
        for name in torn:
            storage.delete(storage.join(self.uri, name))
        fitting = [name for name in whole if not within or name.endswith(WITHIN)]
        name = self._world.text(fitting[-1] if fitting else "")
        if not name:
            return 0
        folder = storage.join(self.uri, name)
        manifest = storage.read_manifest(storage.join(folder, MANIFEST), "checkpoint")
        if manifest["identity"] != self._identity:
            raise ConfigError(f"{self.uri}: its checkpoints are another training's; delete them, or write elsewhere")
        with tempfile.TemporaryDirectory() as scratch:
            local = storage.fetch(folder, Path(scratch))
            storage.verify(manifest, str(local))
            _restore([local / item["path"] for item in manifest["files"]], manifest["steps_done"], model, optimizer)
        guard.losses, guard.norms = manifest["state"]["losses"], manifest["state"]["norms"]
        self.num_parts = manifest["state"]["num_parts"]
        self.attempts = [*manifest["state"]["attempts"], manifest["steps_done"]]
        return int(manifest["steps_done"])

    def delete(self) -> None:
        """Delete them all: the training is done."""
        self.wait()
        if self._world.is_main:
            storage.delete(self.uri)

    def _listed(self) -> tuple[list[str], list[str]]:
        """Folders of whole and of torn checkpoints, oldest first."""
        if not storage.exists(self.uri):
            return [], []
        paths = [entry.path for entry in storage.list_files(self.uri)]
        folders = sorted({path.split("/")[0] for path in paths})
        whole = [name for name in folders if f"{name}/{MANIFEST}" in paths]
        return whole, [name for name in folders if name not in whole]

    def _clear(self) -> None:
        """Delete all but the newest, and the newest that is `within`."""
        whole = self._listed()[0]
        kept = whole[-self._config.checkpoints.keep :] + [name for name in whole if name.endswith(WITHIN)][-1:]
        for name in set(whole) - set(kept):
            storage.delete(storage.join(self.uri, name))

    def _write(
        self, name: str, done: int, parts: dict[str, tuple[dict[str, torch.Tensor], dict[str, str]]], state: Any
    ) -> None:
        try:
            folder = storage.join(self.uri, name)
            entries = []
            for kind, (tensors, offsets) in parts.items():
                file = f"{kind}-{self._world.rank:05d}-of-{self._world.size:05d}.safetensors"
                with storage.open_write(storage.join(folder, file)) as stream:
                    stream.write(save(tensors, offsets))
                entries.append(stream.entry(file))
            mine = [vars(entry) for entry in entries]
            if not self._world.is_main:
                storage.write_json(storage.join(folder, f"written-{self._world.rank:05d}.json"), mine)
                return
            entries += self._peers(folder)
            manifest = {"kind": "checkpoint", "identity": self._identity, "steps_done": done, "state": state}
            storage.write_manifest(storage.join(folder, MANIFEST), manifest, folder, entries)
            self._clear()
        except BaseException as error:
            self._error = error

    def _peers(self, folder: str) -> list[storage.FileEntry]:
        """The entries that the other processes leave when their files are written."""
        entries = []
        deadline = time.monotonic() + PEERS_SECONDS
        for rank in range(1, self._world.size):
            note = storage.join(folder, f"written-{rank:05d}.json")
            while not storage.file_exists(note):
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nothing from rank {rank}; checkpoints of several nodes need shared storage")
                time.sleep(0.1)
            entries += [storage.FileEntry(**item) for item in storage.read_json(note)]
        return entries


def _snapshot(
    model: Trainable, optimizer: torch.optim.Optimizer, is_main: bool
) -> dict[str, tuple[dict[str, torch.Tensor], dict[str, str]]]:
    """By kind: this process's rows on the CPU, and the first row of each as the file's metadata."""
    parts: dict[str, tuple[dict[str, torch.Tensor], dict[str, str]]] = {kind: ({}, {}) for kind in KINDS}
    for name, parameter in model.parameters().items():
        state = optimizer.state[parameter]
        for kind, value in zip(KINDS, (parameter, *(state[key] for key in KINDS[1:])), strict=True):
            rows, offset, owned = local_rows(value.detach(), is_main)
            if owned and rows.numel():
                parts[kind][0][name] = rows.to("cpu", copy=True).contiguous()
                parts[kind][1][name] = str(offset)
    return {kind: part for kind, part in parts.items() if part[0]}


def _restore(files: list[Path], steps_done: int, model: Trainable, optimizer: torch.optim.Optimizer) -> None:
    """Fill in this process's rows from whichever files hold them."""
    read: dict[str, dict[str, list[tuple[int, torch.Tensor]]]] = {kind: {} for kind in KINDS}
    for file in files:
        with safe_open(file, "pt") as handle:
            offsets = handle.metadata() or {}
            for name in handle.keys():  # noqa: SIM118
                read[file.name.split("-")[0]].setdefault(name, []).append((int(offsets[name]), handle.get_slice(name)))
    step = torch.tensor(float(steps_done))
    with torch.no_grad():
        for name, parameter in model.parameters().items():
            state = {kind: torch.zeros_like(parameter) for kind in KINDS[1:]}
            for kind, value in zip(KINDS, (parameter, *state.values()), strict=True):
                rows, offset, _ = local_rows(value, True)
                rows.copy_(_rows(read[kind].get(name, []), offset, offset + rows.shape[0], rows))
            optimizer.state[parameter] = {**state, "step": step.clone()}


def _rows(pieces: list[tuple[int, Any]], begin: int, end: int, like: torch.Tensor) -> torch.Tensor:
    """Rows `begin` to `end` of a tensor that lies in pieces."""
    found = []
    for offset, piece in sorted(pieces, key=lambda item: item[0]):
        low, high = max(begin, offset), min(end, offset + piece.get_shape()[0])
        if low < high:
            found.append(piece[low - offset : high - offset])
    return torch.cat(found) if found else like.detach().cpu()[:0]
