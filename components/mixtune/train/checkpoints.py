"""Checkpoints: what a killed training goes on from, exactly, local or in S3, whatever the number of processes then.

A checkpoint is a folder `step-<steps done>-<attempt>` of safetensors files (trained weights and AdamW's moments, from
every process the rows that it holds) and a manifest `checkpoint.json`, which is written last: a folder without it is
torn and never read. Files are written by a thread while training goes on. The order of the data and dropout need no
state: step `s` is step `s` of the shards. Not `torch.distributed.checkpoint`, whose metadata is a pickle.

What S3 does not take for a while costs one checkpoint: training goes on, and another is begun soon. What it refuses for
good, or a full disk, ends the training.
"""

import math
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch

from mixtune import storage
from mixtune.artifacts.typed_json import Manifest, read_artifact, write_artifact
from mixtune.errors import ConfigError, StorageError, TrainingError
from mixtune.train.distributed import ProcessGroup
from mixtune.train.saving.rows import Part, copy_rows, restore_rows, write_part
from mixtune.train.trainer import Trainer

MANIFEST = "checkpoint.json"
HEALTHY = "-healthy"
"""Suffix of a checkpoint whose held-out loss was within `max_nll_rise`."""
PEERS_SECONDS = 900.0
"""How long rank 0 waits for the files of the other processes."""
RETRY_SECONDS = 60.0
"""After a checkpoint that S3 did not take, until another is begun."""
OUTAGE_SECONDS = 3600.0
"""How long a training goes on while S3 takes no checkpoint: what it would lose grows, and nobody may be looking."""


@dataclass(frozen=True, kw_only=True)
class CheckpointManifest(Manifest):
    """The metadata of a checkpoint."""

    KIND: ClassVar[str] = "checkpoint"
    VERSION: ClassVar[int] = 1

    identity: dict[str, object]
    """What decides the trajectory."""
    steps_done: int
    losses: list[float]
    """Of the last steps, as the divergence guard remembers them."""
    norms: list[float]
    num_parts: int
    lineage: list[int]


def delete_checkpoints(uri: str) -> None:
    """Delete checkpoints that a newer one or the model has replaced; where they stay, the log says so."""
    try:
        storage.delete(uri)
    except (StorageError, OSError) as error:
        print(f"warning: the checkpoints in {uri} are not deleted ({error}); they are not needed any more", flush=True)


class NoCheckpoints:
    """For a run that nothing goes on from."""

    def __init__(self, group: ProcessGroup) -> None:
        self.num_parts = group.size

    def load(self, trainer: Trainer, *, healthy: bool = False) -> int:
        """Return 0: no steps are done."""
        return 0

    def stop_and_save_flags(self) -> torch.Tensor:
        """Return float64, (3,): none."""
        return torch.zeros(3, dtype=torch.float64)

    def after_step(self, steps_done: int, trainer: Trainer, flags: torch.Tensor) -> None:
        """Save nothing."""


class Checkpoints:
    """The checkpoints of one training.

    Args:
        uri: Their folder.
        identity: What decides the trajectory; those with another are not taken up.
        trainer: The training.
    """

    def __init__(self, uri: str, identity: dict[str, object], trainer: Trainer) -> None:
        self.uri, self._identity = uri, identity
        self._settings, self._group = trainer.settings.checkpoints, trainer.group
        self.lineage = [0]
        """Steps after which this training began or went on."""
        self.num_parts = self._group.size
        """Processes that the training began with: its global batches are cut for them, whoever goes on."""
        self._attempt = self._group.broadcast_text(uuid.uuid4().hex[:8])
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._torn = threading.Event()
        """Set where a process could not write its part of the checkpoint that is being written."""
        self._is_missing = False
        self._failing_since = math.inf
        """When the first of the checkpoints that S3 did not take was begun; infinite: it took the last one."""
        self._saved_at = time.monotonic()
        self._terminated = False

    @contextmanager
    def catch_sigterm(self) -> Iterator[None]:
        """While the block runs, SIGTERM asks to save and stop; it is not the end."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

    def _on_sigterm(self, _number: int, _frame: object) -> None:
        self._terminated = True

    def stop_and_save_flags(self) -> torch.Tensor:
        """Return whether this process has to stop, to save, and could not write, float64, (3,).

        Summed, any process's flag counts.
        """
        intervals = [self._settings.every_seconds or math.inf, RETRY_SECONDS if self._is_missing else math.inf]
        due = self._group.is_main and time.monotonic() - self._saved_at >= min(intervals)
        return torch.tensor([self._terminated, due, self._error is not None], dtype=torch.float64)

    def after_step(self, steps_done: int, trainer: Trainer, flags: torch.Tensor) -> None:
        """Save where the summed flags say so, or it is due; the last step needs none, its model follows.

        Raises:
            TrainingError: A process was told to end (SIGTERM); the checkpoint is whole.
            StorageError: A checkpoint cannot be written, now or later; or not now, and a process was told to end.
        """
        if steps_done == trainer.num_steps:
            return
        stop, due, failed = (bool(flag) for flag in flags.tolist())
        if failed:
            self._give_up()
        regular = steps_done % self._settings.every_steps == 0
        if stop or due or regular:
            self._save(steps_done, trainer, healthy=regular)
        if stop:
            if self._settle():
                raise self._explain() from self._error
            raise TrainingError(f"told to end (SIGTERM) after step {steps_done}, which is saved; run it again to go on")

    def _save(self, steps_done: int, trainer: Trainer, *, healthy: bool) -> None:
        """Copy the state, and begin to write it; `healthy`: its held-out loss is within the limit."""
        if self._settle():
            self._give_up()
        elif not self._is_missing:
            self._failing_since = math.inf
        self._torn.clear()
        self._saved_at, self._is_missing = time.monotonic(), False
        manifest = CheckpointManifest(
            identity=self._identity,
            steps_done=steps_done,
            losses=trainer.guard.losses,
            norms=trainer.guard.norms,
            num_parts=self.num_parts,
            lineage=self.lineage,
        )
        folder = storage.join(self.uri, f"step-{steps_done:08d}-{self._attempt}{HEALTHY if healthy else ''}")
        arguments = (folder, copy_rows(trainer), manifest)
        self._thread = threading.Thread(None, self._write, "checkpoint", arguments, daemon=True)
        self._thread.start()

    def _settle(self) -> bool:
        """Wait until the last checkpoint is written or given up; return whether a process could not write its part.

        All processes call this. Rank 0 waits for the others' files, so it is told first where one of them has none.
        """
        if not self._group.is_main:
            self._join()
        if self._group.any_process(self._error is not None):
            self._torn.set()
        self._join()
        return self._group.any_process(self._error is not None)

    def _give_up(self) -> None:
        """Go on without a checkpoint that a process could not write; all processes do so after the same step.

        Raises:
            StorageError: The next would not be written either, or none was for too long.
        """
        self._torn.set()
        self._failing_since = min(self._failing_since, self._saved_at)
        self._saved_at, self._is_missing = time.monotonic(), True
        lasted = self._saved_at - self._failing_since
        if isinstance(self._error, StorageError) and self._error.passes:
            if lasted >= OUTAGE_SECONDS:
                way = "earlier ones stay; run it again once S3 answers, and it goes on from the last"
                text = f"{self._explain()}; S3 has taken none for {lasted / 60:.0f} minutes, so the training ends"
                raise StorageError(f"{text}: {way}") from self._error
            print(
                f"warning: {self._explain()}; the training goes on and writes another in {RETRY_SECONDS:.0f} s, or "
                "when it is due; if it is ended before, it goes on from the one before",
                flush=True,
            )
        elif self._error:
            raise self._explain() from self._error
        self._error = None

    def _explain(self) -> StorageError:
        error = self._error or "another process could not write its part"
        return StorageError(f"{self.uri}: the checkpoint could not be written ({error})")

    def _join(self) -> None:
        if self._thread:
            self._thread.join()
            self._thread = None

    def finish(self) -> None:
        """Wait until nothing is written any more; what could not be is not needed: the model follows."""
        if self._settle() and self._error:
            print(f"warning: {self._explain()}; the model follows", flush=True)

    def load(self, trainer: Trainer, *, healthy: bool = False) -> int:
        """Take up the newest whole checkpoint, or the newest healthy one; return the steps done, 0 where there is none.

        Raises:
            ConfigError: It is another training's.
        """
        if self._settle():
            self._give_up()
        whole, torn = self._listed() if self._group.is_main else ([], [])
        for name in torn:
            storage.delete(storage.join(self.uri, name))
        names = [name for name in whole if not healthy or name.endswith(HEALTHY)]
        name = self._group.broadcast_text(names[-1] if names else "")
        if not name:
            return 0
        folder = storage.join(self.uri, name)
        manifest = read_artifact(CheckpointManifest, storage.join(folder, MANIFEST))
        if manifest.identity != self._identity:
            raise ConfigError(f"{self.uri}: its checkpoints are another training's; delete them, or write elsewhere")
        restore_rows(folder, manifest.files, manifest.steps_done, trainer)
        trainer.guard.losses, trainer.guard.norms = manifest.losses, manifest.norms
        self.num_parts = manifest.num_parts
        self.lineage = [*manifest.lineage, manifest.steps_done]
        return manifest.steps_done

    def delete(self) -> None:
        """Delete them all: the training is done."""
        if self._group.is_main:
            delete_checkpoints(self.uri)

    def _listed(self) -> tuple[list[str], list[str]]:
        """Return the folders of whole and of torn checkpoints, oldest first."""
        if not storage.exists(self.uri):
            return [], []
        paths = [entry.path for entry in storage.list_files(self.uri)]
        folders = sorted({path.split("/")[0] for path in paths})
        whole = [name for name in folders if f"{name}/{MANIFEST}" in paths]
        return whole, [name for name in folders if name not in whole]

    def _delete_old(self) -> None:
        """Delete all but the newest, and the newest healthy one; and torn ones before it, which nobody writes now."""
        try:
            whole, torn = self._listed()
        except (StorageError, OSError) as error:
            print(f"warning: {self.uri}: not listed, so older checkpoints stay for now ({error})", flush=True)
            return
        newest = whole[-self._settings.keep :] + [name for name in whole if name.endswith(HEALTHY)][-1:]
        for name in set(whole) - set(newest) | {name for name in torn if name < whole[-1]}:
            delete_checkpoints(storage.join(self.uri, name))

    def _write(self, folder: str, parts: dict[str, Part], manifest: CheckpointManifest) -> None:
        try:
            names = {kind: f"{kind}-{self._group.rank:05d}-of-{self._group.size:05d}.safetensors" for kind in parts}
            with tempfile.TemporaryDirectory(prefix=".writing-", dir=self._scratch(folder)) as scratch:
                entries = [
                    write_part(part, Path(scratch), storage.join(folder, names[kind])) for kind, part in parts.items()
                ]
            if not self._group.is_main:
                note = storage.join(folder, f"written-{self._group.rank:05d}.json")
                storage.write_json(note, [vars(entry) for entry in entries])
                return
            entries += self._peers(folder)
            if self._torn.is_set():
                return
            files = tuple(sorted(entries, key=lambda entry: entry.path))
            write_artifact(storage.join(folder, MANIFEST), replace(manifest, data_uri=folder, files=files))
            self._delete_old()
        except BaseException as error:
            self._error = error

    def _scratch(self, folder: str) -> str | None:
        """Return where files are written before they get their place: on the same disk, where that is a local one."""
        if storage.is_s3(folder):
            return None
        Path(self.uri).mkdir(parents=True, exist_ok=True)
        return self.uri

    def _peers(self, folder: str) -> list[storage.FileEntry]:
        """Return the entries that the other processes leave when they have written; fewer where one has failed."""
        entries: list[storage.FileEntry] = []
        deadline = time.monotonic() + PEERS_SECONDS
        for rank in range(1, self._group.size):
            note = storage.join(folder, f"written-{rank:05d}.json")
            while not storage.file_exists(note):
                if self._torn.is_set():
                    return entries
                if time.monotonic() > deadline:
                    raise TimeoutError(f"nothing from rank {rank}; checkpoints of several nodes need shared storage")
                time.sleep(0.1)
            entries += [storage.FileEntry(**item) for item in storage.read_json(note)]
        return entries
