"""Run one command in a process group of its own that never outlives the process that asked for it.

`python -I -S supervisor.py COMMAND...`: standard input is a pipe that nobody writes to. It closes when the asker closes
it, or is gone, even by kill -9. Then the group gets SIGTERM (a training saves a checkpoint), and after
`GRACE_SECONDS` it is killed. The group's temporary folder (`TEMPORARY` in the environment) goes with it. It imports
nothing of mixtune, so that it starts at once.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

GRACE_SECONDS = 45.0
POLL_SECONDS = 0.05
TEMPORARY = "MIXTUNE_TASK_TMPDIR"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(command: list[str]) -> int:
    """Run the command and return its exit code; 128 and the signal's number where a signal ended it."""
    ignore_signals()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=default_signals)
    return watch(process.pid, process.poll, sys.stdin.fileno(), os.environ.get(TEMPORARY, ""))


def watch(group: int, poll: Callable[[], int | None], pipe: int, temporary: str = "") -> int:
    """Wait for a process group and return its first process's exit code; end all of it when the pipe closes.

    `poll` returns that process's exit code, negative for a signal, or None while it runs. Nobody writes to the pipe.
    The `temporary` folder is deleted at the end.
    """
    deadline = float("inf")
    waiting = [pipe]
    while (code := poll()) is None:
        if not waiting:
            time.sleep(POLL_SECONDS)
        elif select.select(waiting, [], [], POLL_SECONDS)[0]:
            waiting.clear()
            deadline = time.monotonic() + GRACE_SECONDS
            _signal_group(group, signal.SIGTERM)
        if time.monotonic() > deadline:
            _signal_group(group, signal.SIGKILL)
    _signal_group(group, signal.SIGKILL)  # what it started and left behind
    if temporary:
        shutil.rmtree(temporary, ignore_errors=True)
    return 128 - code if code < 0 else code


def ignore_signals() -> None:
    """Let the pipe alone decide when to end."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def default_signals() -> None:
    """Let a process that was forked from one that ignores signals end by them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
