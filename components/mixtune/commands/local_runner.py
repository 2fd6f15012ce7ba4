"""What a pipeline run on this machine keeps and shows.

Everything lies under one work folder: `runs/<run id>/` (artifacts and the whole log), `cache/<digest of the code>/`,
`reports/<run id>.html` and `.json`, and `mlflow.db`. The screen shows a line when a task begins and ends, what the
task itself prints, and, when one fails, its error alone; the log keeps the rest.
"""

import contextlib
import hashlib
import io
import json
import logging
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import yaml

import mixtune
from mixtune.artifacts.run_report import REPORT_TASKS, RunReport, read_run_report, read_verdict
from mixtune.commands.run_summary import RunSummary, read_mlflow_verdict
from mixtune.errors import ConfigError

_COLOR = re.compile(r"\x1b\[\d+m")
_BEGIN = re.compile(r"Executing task '([\w-]+)'")
_END = re.compile(r"Task '([\w-]+)' finished with status (\w+)")
_HIT = re.compile(r"Task ([\w-]+) cache hit")
_KFP = re.compile(r"^\d\d:\d\d:\d\d\.\d+ - \w+ - |^-{20,}$")
_TRACE = ("Traceback (most recent call last):", "concurrent.futures.process._RemoteTraceback:")
_ERROR = re.compile(r"^mixtune\.errors\.\w+: (.*)")


@dataclass(frozen=True)
class WorkDir:
    """The folder that local runs live in."""

    root: Path

    def __post_init__(self) -> None:
        """Refuse a path that KFP's local runner would rewrite."""
        check_text("the work folder", str(self.root))

    @property
    def mlflow_uri(self) -> str:
        """The tracking URI of this folder's MLflow."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def cache_dir(self) -> Path:
        """Where outputs of earlier runs are found again, as long as the code is the same."""
        return self.root / "cache" / source_digest()

    def run_dir(self, run_id: str) -> Path:
        """Where a run's artifacts and log lie."""
        return self.root / "runs" / run_id

    def report(self, run_id: str, suffix: str = "html") -> Path:
        """A run's report, once it has one."""
        return self.root / "reports" / f"{run_id}.{suffix}"

    def keep_report(self, run_id: str) -> Path | None:
        """Copy a run's report and its JSON to where a person finds them; None where the run made none.

        A grid's report is that of all its points, a ladder's that of its rungs; else it is the comparison's.
        """
        folder = self.run_dir(run_id)
        files = [path for task, name in REPORT_TASKS.items() for path in folder.glob(f"*/{task}/{name}")]
        if not files:
            return None
        self.report(run_id).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(files[0].with_name("report"), self.report(run_id))
        shutil.copyfile(files[0], self.report(run_id, "json"))
        return self.report(run_id)

    def keep_arguments(self, run_id: str, arguments: dict[str, Any]) -> None:
        """Keep what a run was started with, for `mixtune runs` and `--like`."""
        (self.run_dir(run_id) / "arguments.json").write_text(json.dumps(arguments, indent=1) + "\n")

    def arguments(self, run_id: str) -> dict[str, Any]:
        """What a run was started with.

        Raises:
            ConfigError: There is no such run here.
        """
        file = self.run_dir(run_id) / "arguments.json"
        if not file.is_file():
            raise ConfigError(f"no run {run_id!r} in {self.root}; `mixtune runs` lists them")
        return dict(json.loads(file.read_text()))

    def runs(self) -> list[RunSummary]:
        """The runs of this folder, newest first."""
        files = sorted(self.root.glob("runs/*/arguments.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        return [self._summarize(file) for file in files]

    def _summarize(self, file: Path) -> RunSummary:
        run_id, arguments = file.parent.name, json.loads(file.read_text())
        _, cost = read_mlflow_verdict({"uri": self.mlflow_uri, **(arguments.get("tracking") or {})}, run_id)
        has_report = self.report(run_id, "json").is_file()
        return RunSummary(
            run_id=run_id,
            began=time.strftime("%Y-%m-%d %H:%M", time.localtime(file.stat().st_mtime)),
            arguments=arguments,
            verdict=read_verdict(str(self.report(run_id, "json"))) if has_report else "",
            cost=cost,
        )

    def run_report(self, run_id: str) -> RunReport:
        """Return what the task that judges the whole run wrote."""
        return read_run_report(str(self.report(run_id, "json")))


def check_text(name: str, text: str) -> None:
    """Refuse a text that KFP's local runner would change on the way.

    Raises:
        ConfigError: It holds the word that the runner replaces by the interpreter's path.
    """
    if "python3" in text:
        raise ConfigError(f"{name} is {text!r}: KFP's local runner rewrites 'python3' in it; use a path without it")


@contextlib.contextmanager
def cache_hits(shown: io.TextIOBase | TextIO) -> Iterator[None]:
    """Make KFP's word of a cached task visible: it logs one, but to a logger that nobody has set up at that moment."""
    root, handler = logging.getLogger(), logging.StreamHandler(shown)
    handler.addFilter(lambda record: bool(_HIT.search(record.getMessage())))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)


def source_digest() -> str:
    """What the package's code is, 16 hex digits: part of the local cache's key, since KFP's own does not see it."""
    folder, total = Path(mixtune.__file__).parent, hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]


def drop_retries(component: Any) -> None:
    """Take the retries out of a loaded pipeline: they are for lost pods; here a failure would only be waited for."""
    graph = component.component_spec.implementation.graph
    if graph is not None:
        for dag in (graph.root.dag, *(item.dag for item in graph.components.values())):
            for task in dag.tasks.values():
                task.ClearField("retry_policy")


def task_names(pipeline: Path) -> dict[str, str]:
    """Display names of a compiled pipeline's tasks, by the names that KFP's log uses."""
    spec = next(yaml.load_all(pipeline.read_text(), yaml.CSafeLoader))
    graphs = [spec["root"], *spec["components"].values()]
    tasks = [item for graph in graphs for item in graph.get("dag", {}).get("tasks", {}).items()]
    return {name: task["taskInfo"]["name"] for name, task in tasks if not name.startswith("condition")}


@dataclass
class TaskLog(io.TextIOBase):
    """Takes what KFP's local runner and the steps print; shows what a person wants to see of it."""

    screen: TextIO
    log: TextIO
    names: dict[str, str]
    error: str = ""
    """The text of the error that ended the first task that failed; empty while all is well."""
    failed: str = ""
    """That task."""
    _rest: str = ""
    _began: float = 0.0
    _running: bool = False
    _dump: bool = False
    _trace: list[str] = field(default_factory=list)
    _error: str = ""

    def write(self, text: str) -> int:
        """Take a piece of output."""
        self.log.write(_COLOR.sub("", text))
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._line(_COLOR.sub("", line).rstrip())
        return len(text)

    def flush(self) -> None:
        """Pass everything on."""
        self.log.flush()
        self.screen.flush()

    def _line(self, line: str) -> None:
        if match := _BEGIN.search(line):
            self._began, self._running, self._trace, self._error = time.monotonic(), True, [], ""
            self._show(f"{self._name(match[1])} ...")
        elif match := _HIT.search(line):
            self._show(f"{self._name(match[1])}: from the cache")
        elif match := _END.search(line):
            self._end(match[1], match[2])
        elif self._running and not _KFP.match(line):
            self._output(line.removeprefix("    "))

    def _end(self, task: str, status: str) -> None:
        self._running = False
        if status == "SUCCESS":
            self._show(f"{self._name(task)}: done in {time.monotonic() - self._began:.1f} s")
            return
        self._show(f"{self._name(task)}: FAILED")
        if not self.failed:  # tasks that do not depend on it, and the exit task, still run
            self.failed = self._name(task)
            self.error = self._error or "\n".join(self._trace[-30:]) or "it ended without a word; see the log"

    def _output(self, line: str) -> None:
        """A line that a step printed: KFP's own dumps are left out, a traceback waits until it is known to matter."""
        if "Got executor_input:" in line:
            self._dump = True
        elif self._dump:
            self._dump = line != "}"
        elif line.startswith(_TRACE) or (self._trace and line):
            self._trace.append(line)
            if match := _ERROR.match(line):
                self._error = match[1]
            elif self._error:
                self._error += "\n" + line
        elif line.strip() and not line.lstrip().startswith("[KFP Executor "):
            self._show("    " + line)

    def _name(self, task: str) -> str:
        return self.names.get(task, task)

    def _show(self, line: str) -> None:
        self.screen.write(line + "\n")
        self.screen.flush()
