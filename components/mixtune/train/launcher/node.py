"""The first process of a job's container: `python -m mixtune.train.launcher.node [torchrun's options] JOB_URI`.

It starts torchrun by the Python that runs it, hands signals on, and ends as torchrun ends. Process 1 of a container
ignores a signal that it has no handler for, and torchrun has none during the seconds of its imports: a pod that is told
to end then would stand there for its whole grace.
"""

import os
import signal
import sys
from types import FrameType
from typing import Protocol

WORKER = ["-m", "mixtune.train.worker"]
SHUTDOWN_SECONDS = 570
"""torchrun kills its workers so long after a SIGTERM, by default after 30 s, in which no large checkpoint is whole. The
runtimes' pods have 600 s."""


class _Process(Protocol):
    def send_signal(self, number: int) -> None: ...


class _Signals:
    """Hands SIGTERM and SIGINT on to torchrun; before it is there, they end this process and so the container."""

    def __init__(self) -> None:
        self.torchrun: _Process | None = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._pass_on)

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        if self.torchrun is None:
            os._exit(128 + number)
        self.torchrun.send_signal(number)


def torchrun_arguments(arguments: list[str]) -> list[str]:
    """Return torchrun's arguments for those of this program."""
    *options, job_uri = arguments
    return [*options, *WORKER, job_uri]


def main() -> int:
    """Run torchrun; return its exit status, 128 and the signal's number where a signal ended it."""
    if len(sys.argv) < 2:
        print("usage: python -m mixtune.train.launcher.node [torchrun's options] JOB_URI", file=sys.stderr)
        return 2
    signals = _Signals()
    import subprocess  # after the handlers: a signal may come at any moment

    command = [sys.executable, "-m", "torch.distributed.run", *torchrun_arguments(sys.argv[1:])]
    patience = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(SHUTDOWN_SECONDS), **os.environ}
    process = subprocess.Popen(command, env=patience)
    signals.torchrun = process
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
