"""The tasks of a local run as processes: KFP's local runner decides what runs when, this module runs it.

KFP's own way of running a task is replaced, because it loses what a person needs: which task a line belongs to, why a
process ended, where a run was when it was interrupted. It also leaves processes behind.
"""

import contextlib
import hashlib
import importlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from mixtune import storage
from mixtune.commands.local import supervisor
from mixtune.commands.local.task_log import TaskLog
from mixtune.commands.local.warm_steps import COMMAND, ForkedStep, StepServer, as_step
from mixtune.errors import MixtuneError
from mixtune.tracking import point_name

INPUT = "--executor_input"
"""The argument after which a task's command names its inputs and outputs."""
INPUTS_FILE = ".inputs"
"""In a task's folder: the digest of what it was started with."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """A task that has run well, or came from the cache."""

    label: str
    cached: bool
    outputs: Mapping[str, Any]
    """By name: a value, or one of KFP's artifacts."""


class TaskRunner:
    """Runs the tasks of one local run.

    Args:
        log: Takes what they print.
        names: Display names by task.
        alone: Label of the only task of a component that runs by itself.
        lock: Descriptor that the tasks' processes hold, too.
    """

    def __init__(self, log: TaskLog, names: Mapping[str, str], alone: str, *lock: int) -> None:
        self.log, self._names, self._alone, self._inherited = log, names, alone, lock
        self.results: list[TaskResult] = []
        self._lock = threading.Lock()
        self._pipes: set[Any] = set()
        self._server: StepServer | None = None
        self._thread = threading.local()
        self.stopping = False
        self.interrupted = False
        """Whether a signal asked for the end."""
        self.stopped: list[str] = []
        """Tasks that were stopped, each with its progress."""

    def stop(self) -> None:
        """Stop all tasks and start no further one."""
        self.stopping = True
        for pipe in list(self._pipes):
            with contextlib.suppress(OSError):
                pipe.close()

    def close(self) -> None:
        """End what steps are forked from."""
        if self._server:
            self._server.close()

    def call(self, module: str, *words: str) -> None:
        """Call a module's `run`, where there is a server in a fork of it, which has libraries loaded.

        Raises:
            MixtuneError: The fork failed; the message is its last line.
        """
        if not self._server:
            importlib.import_module(module).run(*words)
            return
        process = self._server.start(words, os.environ, module)
        with process.stdin, process.stdout:
            lines = process.stdout.read().strip().splitlines()
        if process.wait():
            raise MixtuneError(lines[-1] if lines else f"{module} ended without a word")

    @contextmanager
    def in_charge(self) -> Iterator[None]:
        """Let KFP's local runner run its tasks here while the block runs; folders are named without a time."""
        from kfp.local import cache, executor_input_utils, status
        from kfp.local.orchestrator import task_executor
        from kfp.local.subprocess_task_handler import SubprocessTaskHandler

        execute, key = task_executor.execute_single_task, cache.LocalCache.compute_key

        def execute_single_task(**task: Any) -> Any:
            if self.stopping:
                return {}, status.Status.FAILURE
            self._thread.label, self._thread.ran = self._label(task["task_name"], task["io_store"]), False
            outputs, state = execute(**task)
            if state == status.Status.SUCCESS:
                if not self._thread.ran:
                    self.log.cached(self._thread.label)
                result = TaskResult(label=self._thread.label, cached=not self._thread.ran, outputs=outputs)
                self.results.append(result)
            return outputs, state

        def run(handler: Any) -> Any:
            self._thread.ran = True
            label = getattr(self._thread, "label", self._alone)
            code = self.run_command(label, handler.full_command, handler.env_vars)
            return status.Status.FAILURE if code else status.Status.SUCCESS

        def compute_key(self: Any, **task: Any) -> str:
            plain = key(self, **task)
            digests = dict(_outside_files(task.get("arguments", {})))
            seen = json.dumps([plain, digests], sort_keys=True)
            return hashlib.sha256(seen.encode()).hexdigest() if digests else plain

        with (
            mock.patch.object(task_executor, "execute_single_task", execute_single_task),
            mock.patch.object(SubprocessTaskHandler, "run", run),
            mock.patch.object(cache.LocalCache, "compute_key", compute_key),
            mock.patch.object(executor_input_utils, "get_local_pipeline_resource_name", lambda name: name),
        ):
            self._server = StepServer(*self._inherited) if sys.platform == "linux" else None
            yield

    def run_command(self, label: str, command: Sequence[str], variables: Mapping[str, str]) -> int:
        """Run a task's command under a supervisor, and return its exit code.

        Where the task's folder holds what another start with other inputs left, that goes first; what the same inputs
        left is gone on from.
        """
        if self.stopping:
            return 1
        command = as_step(command)
        _prepare_folder(command)
        task = self.log.begin(label)
        temporary = dict.fromkeys(("TMPDIR", supervisor.TEMPORARY), tempfile.mkdtemp(prefix="mixtune-task-"))
        process = self._start(command, {**os.environ, "PYTHONUNBUFFERED": "1", **temporary, **variables})
        with self._lock:
            self._pipes.add(process.stdin)
        if self.stopping:
            self.stop()
        try:
            for line in process.stdout or ():
                self.log.line(task, line)
            code = process.wait()
            process.stdout.close()  # type: ignore[union-attr]
        finally:
            with self._lock:
                self._pipes.discard(process.stdin)
            with contextlib.suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
        self.log.end(task, code, stopped=self.stopping)
        if code and self.stopping:
            self.stopped.append(", ".join(filter(None, (label, task.place))))
        return code

    def _start(self, command: Sequence[str], environment: Mapping[str, str]) -> "subprocess.Popen[str] | ForkedStep":
        """Start a task's command under a supervisor: a step of ours as a fork, where that can be."""
        if self._server and tuple(command[1:3]) == COMMAND:
            return self._server.start(command[3:], environment)
        return subprocess.Popen(
            [sys.executable, "-I", "-S", supervisor.__file__, *_with_this_python(command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
            env=environment,
            pass_fds=self._inherited,
            start_new_session=True,
        )

    def _label(self, task_name: str, store: Any) -> str:
        """Return a task's display name, with its mix where it runs in a loop over mixes."""
        name = self._names.get(task_name, task_name)
        while store is not None:
            for value in store._parent_input_data.values():
                if isinstance(value, dict) and "percent" in value:
                    return point_name(name, float(value["percent"]) / 100)
            store = store._parent
        return name


def _executor_input(command: Sequence[str]) -> int:
    """Return where in a task's command its inputs and outputs stand as JSON; its length where they do not."""
    if tuple(command[1:3]) == COMMAND:
        return len(command) - 1
    return list(command).index(INPUT) + 1 if INPUT in command else len(command)


def _with_this_python(command: Sequence[str]) -> list[str]:
    """Return a task's command with this interpreter in place of `python3`; inputs and outputs stay as they are."""
    end = _executor_input(command)
    own = [
        sys.executable if part == "python3" else part.replace("python3 ", f"{shlex.quote(sys.executable)} ")
        for part in command[:end]
    ]
    return [*own, *command[end:]]


def _prepare_folder(command: Sequence[str]) -> None:
    place = _executor_input(command)
    if place == len(command):
        return
    inputs = json.loads(command[place])
    file = inputs.get("outputs", {}).get("outputFile")
    if not file:
        return
    # KFP writes the names of inputs in another order in every process.
    words = [*command[:place], json.dumps(inputs, sort_keys=True), *command[place + 1 :]]
    folder, digest = Path(file).parent, hashlib.sha256("\0".join(words).encode()).hexdigest()
    mark = folder / INPUTS_FILE
    if folder.is_dir() and (not mark.is_file() or mark.read_text() != digest):
        shutil.rmtree(folder)
    for unfinished in [item for item in folder.rglob(".*") if item != mark]:  # half of a file
        storage.delete(str(unfinished))
    folder.mkdir(parents=True, exist_ok=True)
    mark.write_text(digest)


def _outside_files(value: object) -> Iterator[tuple[str, str]]:
    """Yield every file or folder that a task's arguments name without a digest, with the digest of its content.

    KFP's cache does not see that a file has changed under its name.
    """
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _outside_files(item)
    elif isinstance(value, str) and "/" in value and "#" not in value and len(value) < 4096:
        with contextlib.suppress(MixtuneError, OSError, ValueError):
            if storage.is_s3(value) or Path(value).exists():
                yield value, storage.fingerprint(value)
