"""The commands `follow` and `logs`, and `submit --wait`: a run's tasks while they run, their logs, and its verdict."""

import argparse
import math
import re
import time
from dataclasses import dataclass, field

from mixtune import storage
from mixtune.artifacts.comparison import EXIT_CODES
from mixtune.commands.arguments import Commands
from mixtune.commands.kubeflow_api import SubmittedRun, add_connection, connect, read_run, run_page
from mixtune.commands.run_on_cluster import RunOnCluster
from mixtune.commands.run_summary import find_verdict
from mixtune.commands.task_states import FAILED, PENDING, STARTING, TaskState, duration, task_states
from mixtune.errors import ClusterError, ConfigError, DataError, StorageError
from mixtune.outcome.webhook import send

STANDSTILL_SECONDS = 600.0
"""Details that have not changed for so long while their run goes on may be no longer kept."""
_OWN_ERROR = re.compile(r"^(?:mixtune\.errors\.\w+|error): (.*)", re.MULTILINE)
_LAUNCHER_LINE = re.compile(r"^[IWEF]\d{4} \d\d:\d\d:\d\d|^\[KFP Executor |^time=\"")


def add_commands(commands: Commands) -> None:
    """Add `follow` and `logs` to the command line."""
    follow = commands.add_parser("follow", help="follow a submitted run; the exit code is the verdict's")
    add_following(follow)
    follow.set_defaults(command=_follow)
    logs = commands.add_parser("logs", help="print the log of a step of a submitted run")
    add_connection(logs, required=True)
    logs.set_defaults(command=_logs)
    for parser in (follow, logs):
        parser.add_argument("run_id", help="the run's id, as submit prints it")
        parser.add_argument("--pipeline-root", default="", help="of the run, where the cluster's default is another")
    logs.add_argument("task", nargs="?", default="", help="a task's name; without it, the tasks are listed")


def add_following(parser: argparse.ArgumentParser) -> None:
    """Add the options of a command that waits for a run."""
    add_connection(parser, required=True)
    parser.add_argument("--poll", type=float, default=10.0, help="seconds between two looks (default: %(default)s)")
    parser.add_argument(
        "--patience", type=int, default=30, help="failed looks in a row before giving up (default: %(default)s)"
    )


@dataclass
class RunWatch:
    """A run's tasks as they were shown last: each change is a line, once."""

    cluster: RunOnCluster
    states: list[TaskState] = field(default_factory=list)
    _lines: dict[str, str] = field(default_factory=dict)
    """The newest line of each task, by its title."""
    _changed_at: float = field(default_factory=time.monotonic)
    _warned: bool = False

    def look(self, run: SubmittedRun) -> None:
        """Show what has changed, from the cluster where it knows the run, else from the run's details."""
        nodes = self.cluster.nodes()
        self.states = task_states(nodes or run.nodes, run.titles)
        for state in self.states:
            line = str(state)
            short_wait = state.phase == PENDING and state.reason.split(":")[0] in STARTING
            if not short_wait and self._lines.get(state.title) != line:
                self._lines[state.title], self._changed_at = line, time.monotonic()
                print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
        if not nodes and not self._warned and time.monotonic() - self._changed_at > STANDSTILL_SECONDS:
            self._warned = True
            print(
                f"no task has changed for {duration(STANDSTILL_SECONDS)}: it is still at work, or Kubeflow no longer "
                "keeps the details of so large a run; with a kubeconfig of the cluster its tasks are shown all the "
                f"same ({self.cluster.trouble or 'the cluster does not know the run'})",
                flush=True,
            )


def _follow(options: argparse.Namespace) -> int:
    read_run(connect(options), options.run_id)  # report a wrong id or host at once, not after --patience
    return follow_run(options, options.run_id)


def follow_run(options: argparse.Namespace, run_id: str) -> int:
    """Print a line whenever a task changes; return the verdict's exit code once the run has ended.

    Raises:
        ClusterError: The run failed, was stopped, or cannot be followed.
        ConfigError: No time lies between two looks.
    """
    if not 0 < options.poll < math.inf:
        raise ConfigError(f"--poll {options.poll:g}: seconds between two looks, more than 0")
    client, misses = connect(options), 0
    watch = RunWatch(RunOnCluster(run_id, options.namespace))
    while True:
        try:
            if misses:
                client = connect(options)  # a renewed token is read here
            run = read_run(client, run_id)
            misses = 0
        except ClusterError as error:
            misses += 1
            if misses > options.patience:
                raise ClusterError(
                    f"{error}; the run goes on, follow it with: mixtune follow {run_id} --host {options.host}"
                ) from error
        else:
            watch.look(run)
            if run.ended:
                return _end(options, run, watch)
        time.sleep(options.poll)


def _end(options: argparse.Namespace, run: SubmittedRun, watch: RunWatch) -> int:
    folder = run.folder(options.pipeline_root)
    storage.configure_storage(run.arguments.get("storage") or {})
    if run.state != "SUCCEEDED":
        reasons = []
        for state in watch.states:
            if state.phase == FAILED:
                log = (watch.cluster.log(state.pod) if state.pod else "") or kept_log(folder, state)
                reasons.append(f"{state.title}: {last_sentence(log) or state.reason or 'it ended without a word'}")
        _tell_webhook(options.host, run)
        reason = "; ".join(reasons) or run.error or "see its page"
        raise ClusterError(f"run {run.run_id} ended as {run.state.lower()}: {reason}")
    verdict = find_verdict(run.arguments.get("tracking") or {}, folder, run.run_id)
    print(f"verdict: {verdict}", flush=True)
    return EXIT_CODES[verdict]


def last_sentence(log: str) -> str:
    """Return a step's error, else the last line of its log."""
    if errors := list(_OWN_ERROR.finditer(log)):
        return (errors[-1][1] + log[errors[-1].end() :].rstrip()).strip()[:2000]
    lines = [line for line in log.splitlines() if line.strip() and not _LAUNCHER_LINE.match(line)]
    return lines[-1].strip() if lines else ""


def kept_log(folder: str, state: TaskState) -> str:
    """Return a step's log as its launcher put it among the run's artifacts; empty where it is not to be had."""
    texts = []
    try:
        for entry in storage.list_files(storage.join(folder, state.folder)) if folder else ():
            if entry.path.rpartition("/")[2].startswith("executor-logs"):
                content = storage.read_bytes(storage.join(folder, state.folder, entry.path))
                texts.append(content.decode(errors="replace"))
    except (DataError, StorageError):
        return ""
    return "\n".join(texts)


def _logs(options: argparse.Namespace) -> int:
    run, cluster = read_run(connect(options), options.run_id), RunOnCluster(options.run_id, options.namespace)
    states = task_states(cluster.nodes() or run.nodes, run.titles)
    if not options.task:
        print("\n".join(map(str, states)) or "no task has begun yet")
        return 0
    matching = [state for state in states if options.task in (state.title, state.folder)]
    if not matching:
        titles = ", ".join(state.title for state in states)
        raise ConfigError(f"run {options.run_id} has no task {options.task!r} that has begun; there are {titles}")
    storage.configure_storage(run.arguments.get("storage") or {})
    folder = run.folder(options.pipeline_root)
    log = kept_log(folder, matching[0]) or "\n".join(cluster.log(state.pod) for state in matching if state.pod)
    if not log:
        raise ClusterError(
            f"no log of {options.task}: its pod is gone, and its artifact executor-logs is not to be read under "
            f"{folder or 'an unknown root: give --pipeline-root'}"
        )
    print(log)
    return 0


def _tell_webhook(host: str, run: SubmittedRun) -> None:
    """Tell the webhook, where this machine has one, that a run did not reach the task that tells it otherwise."""
    state = run.state.lower()
    message = {"text": f"{run.pipeline} {run.run_id}: {state}", "run_id": run.run_id, "pipeline": run.pipeline}
    further = {"verdict": state, "cost_usd": None, "links": {"run": run_page(host, run.run_id)}}
    print(send({**message, **further}), flush=True)
