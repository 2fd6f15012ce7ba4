"""Run one command in a process group of its own that never outlives the process that asked for it.

`python -I -S supervisor.py COMMAND...`: standard input is a pipe that nobody writes to. It closes when the asker closes
it, or is gone, even by kill -9. Then the group is told to end (SIGTERM: a training saves where it stands), and after
`GRACE_SECONDS` it is killed. It imports nothing of mixtune, so that it starts at once.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time

GRACE_SECONDS = 45.0
POLL_SECONDS = 0.05


def main(command: list[str]) -> int:
    """Run the command and return its exit code; 128 and the signal's number where a signal ended it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the pipe alone decides
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, preexec_fn=_default_signals)
    deadline = float("inf")
    waiting = [sys.stdin.fileno()]
    while (code := process.poll()) is None:
        if not waiting:
            time.sleep(POLL_SECONDS)
        elif select.select(waiting, [], [], POLL_SECONDS)[0]:
            waiting.clear()
            deadline = time.monotonic() + GRACE_SECONDS
            _signal_group(process.pid, signal.SIGTERM)
        if time.monotonic() > deadline:
            _signal_group(process.pid, signal.SIGKILL)
    _signal_group(process.pid, signal.SIGKILL)  # what it started and left behind
    return 128 - code if code < 0 else code


def _default_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
