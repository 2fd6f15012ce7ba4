"""What the tasks of a local run print: all of it in a file; on the screen what a person wants to see."""

import os
import re
import threading
import time
from dataclasses import dataclass, field
from typing import TextIO

from mixtune.commands.task_states import duration
from mixtune.processes import explain_memory

_COLOR = re.compile(r"\x1b\[\d+m")
_RANK = re.compile(r"^\[rank\d+\]:\s?")
_TRACE = ("Traceback (most recent call last):", "concurrent.futures.process._RemoteTraceback:")
_ERROR = re.compile(r"^mixtune\.errors\.\w+: (.*)")
_EXCEPTION = re.compile(r"^[\w.]+(Error|Exception|Interrupt|Exit|BrokenProcessPool)\b")
_STEP = re.compile(r"^step (\d+)/(\d+) ")
_NOISE = re.compile(
    r"^(\[KFP Executor |.*INFO mlflow\.|.*INFO  ?\[alembic|Looks like the component |webhook: none$|not on a cluster: "
    r"|(pass|skip)  )"
)
_KILLED = (137, 247)
"""Exit codes of a process that SIGKILL ended, by a shell and by Python."""


@dataclass
class TaskOutput:
    """One task that runs, or has run."""

    label: str
    began: float = field(default_factory=time.monotonic)
    error: str = ""
    """The text of our own error that ended it."""
    trace: list[str] = field(default_factory=list)
    place: str = ""
    """Its progress, such as `step 62 of 400`."""
    first_step: tuple[int, float] | None = None
    """Number and time of the first training step that it showed."""
    dumps: bool = False
    """Whether KFP prints its input at the moment."""

    def cause(self, exit_code: int) -> str:
        """Return why it failed: the error's text, else the last line of the traceback."""
        if exit_code in _KILLED or any("BrokenProcessPool" in line for line in self.trace):
            return f"killed, most likely for memory: {explain_memory()}"
        named = [line for line in self.trace if _EXCEPTION.match(line)]
        return self.error or (named[-1] if named else "") or f"it ended with exit code {exit_code}, without a word"


class TaskLog:
    """Takes every line of every task, from several threads.

    Args:
        screen: Shows a line when a task begins and ends, and what the task itself says.
        log: Takes everything.
    """

    def __init__(self, screen: TextIO, log: TextIO) -> None:
        self._screen, self._log, self._lock = screen, log, threading.Lock()
        self.running: list[TaskOutput] = []
        self.finished: list[str] = []
        self.error = ""
        """Why the first task that failed did; empty while all is well."""
        self.failed = ""
        """That task."""

    def begin(self, label: str) -> TaskOutput:
        """Show that a task begins."""
        task = TaskOutput(label=label)
        with self._lock:
            self.running.append(task)
            self._log.write(f"== {label}\n")
            self._show(f"{label} ...")
        return task

    def cached(self, label: str) -> None:
        """Show that a task's outputs are those of an earlier run."""
        with self._lock:
            self.finished.append(label)
            self._show(f"{label}: from the cache")

    def line(self, task: TaskOutput, text: str) -> None:
        """Take a line that a task printed."""
        line = _COLOR.sub("", text).rstrip()
        with self._lock:
            self._log.write(f"{task.label} | {line}\n")
            if shown := self._worth_showing(task, _RANK.sub("", line)):
                several = f"{task.label}: " if len(self.running) > 1 else ""
                self._show(f"    {several}{shown}")

    def end(self, task: TaskOutput, exit_code: int, *, stopped: bool = False) -> None:
        """Show that a task has ended, by itself or because it was `stopped`."""
        with self._lock:
            self.running.remove(task)
            self._log.flush()
            seconds = time.monotonic() - task.began
            if not exit_code:
                self.finished.append(task.label)
                self._show(f"{task.label}: done in {f'{seconds:.1f} s' if seconds < 60 else duration(seconds)}")
                return
            self._show(f"{task.label}: {'stopped' if stopped else 'FAILED'}")
            if not self.failed:  # tasks that do not depend on it, and the exit task, still run
                self.failed, self.error = task.label, task.cause(exit_code)

    def _worth_showing(self, task: TaskOutput, line: str) -> str:
        """Return what is shown of a line; a traceback and KFP's dumps are not, and a step says how long is left."""
        if "Got executor_input:" in line:
            task.dumps = True
        elif task.dumps:
            task.dumps = line != "}"
        elif line.startswith(_TRACE) or (task.trace and line):
            task.trace.append(line)
            if match := _ERROR.match(line):
                task.error = match[1]
            elif task.error:
                task.error += "\n" + line
        elif match := _STEP.match(line):
            return line + self._time_left(task, int(match[1]), int(match[2]))
        elif line.strip() and not _NOISE.match(line):
            return line
        return ""

    def _time_left(self, task: TaskOutput, step: int, num_steps: int) -> str:
        task.place = f"step {step} of {num_steps}"
        now = time.monotonic()
        first, since = task.first_step = task.first_step or (step, now)
        return f", {duration((num_steps - step) * (now - since) / (step - first))} left" if step > first else ""

    def _show(self, line: str) -> None:
        try:
            self._screen.write(line + "\n")
            self._screen.flush()
        except BrokenPipeError:  # whoever read has gone: the run goes on, and its log has all
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._screen.fileno())
