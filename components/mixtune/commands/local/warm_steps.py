"""Steps of a local run, forked from a process that has their libraries loaded.

To load PyTorch, transformers and MLflow takes a step up to nine seconds of CPU, longer than most small steps work. So a
server loads what a component needs before its first step, and each step is a fork of it. Only on Linux; elsewhere every
step loads its own.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mixtune import step
from mixtune.commands.local import supervisor

COMMAND = ("-m", "mixtune.step")
"""What follows the interpreter in the command of our own steps."""
EXECUTOR = "kfp.dsl.executor_main"
TRACKING = ("mlflow", "mlflow.store.tracking.sqlalchemy_store", "alembic.command")
TOKENIZERS = ("torch", "transformers.activations", "transformers.models.auto.tokenization_auto")
"""Every configuration's class needs the first two, and with them half of what models need."""
MODELS = (*TOKENIZERS, "peft")
SANITIZE = "sanitize.sanitize"
TRAINING = (*MODELS, *TRACKING, "mixtune.train.validation")
EVALUATION = (*MODELS, "sklearn.metrics", "nltk", "mixtune.evaluate.run")
LIBRARIES = {
    "preflight.preflight": (*TOKENIZERS, *TRACKING, "mixtune.preflight.template_check"),
    SANITIZE: (*TOKENIZERS, "mixtune.sanitize.run"),
    "mix_shard.mix_shard": (*TOKENIZERS, "mixtune.mix_shard.run"),
    **dict.fromkeys(("train.train", "train.restore"), TRAINING),
    **dict.fromkeys(("evaluate.evaluate", "evaluate.sweep_dial"), EVALUATION),
    "compare.compare": (*TRACKING, "mixtune.compare.run"),
    "compare.judge": MODELS,
    "outcome.record_outcome": TRACKING,
}
"""What components load that takes seconds."""
LENGTH_BYTES = 8


def as_step(command: Sequence[str]) -> list[str]:
    """Return the command of a component of ours in a pipeline of one's own as one of our steps; another as it is.

    KFP's compiler writes a component's source into its command. It is ours where it is what is installed here.
    """
    script, source, values = command[2:3], command[3:4], dict(zip(command[4::2], command[5::2], strict=False))
    name = values.get("--function_to_execute", "")
    is_plain = name.isidentifier() and EXECUTOR in script[0] and "pip install" not in script[0]
    for file in Path(step.__file__).parent.glob(f"*/{name}.yaml") if is_plain else ():
        component = f"{file.parent.name}.{name}"
        if file.parent.name != "compiled" and source[0].strip() == step.read_module(component).strip():
            return ["python3", *COMMAND, EXECUTOR, component, values["--executor_input"]]
    return list(command)


class ForkedStep:
    """A step that runs, with the part of `subprocess.Popen` that a local run needs."""

    def __init__(self, connection: socket.socket, request: bytes) -> None:
        # what it prints, its exit code, and the pipe that ends it when it closes
        (output, output_end), (status, status_end), (life_end, life) = os.pipe(), os.pipe(), os.pipe()
        socket.send_fds(connection, [len(request).to_bytes(LENGTH_BYTES, "big")], [output_end, status_end, life_end])
        connection.sendall(request)
        for descriptor in (output_end, status_end, life_end):
            os.close(descriptor)
        self.stdin: IO[str] = os.fdopen(life, "w")
        self.stdout: IO[str] = os.fdopen(output, encoding="utf-8", errors="replace")
        self._status = os.fdopen(status)

    def wait(self) -> int:
        """Return its exit code; 1 where it ended with the server."""
        with self._status:
            return int(self._status.read() or 1)


class StepServer:
    """What steps are forked from, with descriptors that they inherit; it ends with this process, or when closed."""

    def __init__(self, *inherited: int) -> None:
        self._lock = threading.Lock()
        self._connection, other = socket.socketpair()
        command, null = [sys.executable, "-m", __name__, str(other.fileno())], subprocess.DEVNULL
        self.process = subprocess.Popen(command, pass_fds=[other.fileno(), *inherited], stdin=null, stdout=null)
        other.close()

    def start(self, words: Sequence[str], environment: Mapping[str, str], module: str = step.__name__) -> ForkedStep:
        """Start a step with arguments of a module's `run`."""
        request = json.dumps([module, list(words), dict(environment), os.getcwd()])
        with self._lock:
            return ForkedStep(self._connection, request.encode())

    def close(self) -> None:
        """End the server; steps go on."""
        self._connection.close()
        self.process.wait()


def serve(connection: socket.socket, exit_codes: list[int]) -> None:
    """Fork a step for every request, until the other side closes; in the fork, return when the step is done.

    Each request comes with the ends of `ForkedStep`'s pipes; `exit_codes` gets a 0 where all went well.

    Raises:
        BaseException: In the fork, whatever the step raises.
    """
    while True:
        length, descriptors, _, _ = socket.recv_fds(connection, LENGTH_BYTES, 3)
        if not length:
            exit_codes.append(0)
            return
        module, words, environment, folder = json.loads(
            connection.recv(int.from_bytes(length, "big"), socket.MSG_WAITALL)
        )
        if module == step.__name__:
            load_libraries(words[1], words[2])
        gc.freeze()  # a fork that looks for garbage among these would copy all their pages
        if os.fork() == 0:
            connection.close()
            _become_step(descriptors, environment.get(supervisor.TEMPORARY, ""))
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            importlib.import_module(module).run(*words)
            exit_codes.append(0)
            return
        for descriptor in descriptors:
            os.close(descriptor)
        with contextlib.suppress(ChildProcessError):  # there is none
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _become_step(descriptors: Sequence[int], temporary: str) -> None:
    """Fork once more and return in the new process alone; this one is its supervisor and writes its exit code."""
    output, status, life = descriptors
    child = os.fork()
    if child:
        os.close(output)
        supervisor.ignore_signals()
        os.setsid()

        def poll() -> int | None:
            ended, code = os.waitpid(child, os.WNOHANG)
            return os.waitstatus_to_exitcode(code) if ended else None

        code = supervisor.watch(child, poll, life, temporary)
        with contextlib.suppress(BrokenPipeError):  # who asked for it was killed
            os.write(status, str(code).encode())
        os._exit(0)
    os.setsid()
    supervisor.default_signals()
    if select.select([life], [], [], 0)[0]:  # it was to end before there was a group to tell so
        os._exit(128 + signal.SIGTERM)
    os.close(status)
    os.close(life)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]


def load_libraries(component: str, executor_input: str) -> None:
    """Load what a component's steps need, where it is there; without a base model there is no tokenizer."""
    values = json.loads(executor_input).get("inputs", {}).get("parameterValues", {})
    needless = TOKENIZERS if component == SANITIZE and not values.get("base_model") else ()
    for library in (EXECUTOR, *(name for name in LIBRARIES.get(component, ()) if name not in needless)):
        with contextlib.suppress(ImportError):
            importlib.import_module(library)


def end_at_once(exit_codes: list[int]) -> None:
    """End this process without the seconds that it takes to take all libraries down."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(exit_codes[0] if exit_codes else 1)


if __name__ == "__main__":
    os.environ["_KFP_RUNTIME"] = "true"
    supervisor.ignore_signals()
    codes: list[int] = []
    atexit.register(end_at_once, codes)  # the first to be registered is the last to run
    serve(socket.socket(fileno=int(sys.argv[1])), codes)
