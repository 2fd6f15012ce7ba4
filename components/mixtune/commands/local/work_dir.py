"""What the runs on this machine keep, under one work folder.

`runs/<run id>/` holds artifacts, the whole log, the arguments and where the run stands; `reports/<run id>/` its pages;
`cache/<digest of the code>/` what later runs take up; `mlflow.db` and `mlflow-artifacts/` its record.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import mixtune
from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS, Comparison
from mixtune.artifacts.run_report import RunReport, find_recommendation, list_candidates, read_run_report, read_verdict
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.commands.argument_places import Arguments
from mixtune.commands.arguments import find_pipeline, read_options
from mixtune.commands.local.supervisor import GRACE_SECONDS, POLL_SECONDS
from mixtune.commands.run_summary import RunSummary, read_mlflow_verdict
from mixtune.errors import ConfigError, DataError

RUNNING, FINISHED, FAILED, INTERRUPTED = "running", "finished", "failed", "interrupted"
POOLS = "pools.json"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The state of a run on this machine."""

    KIND: ClassVar[str] = "local run"
    VERSION: ClassVar[int] = 1

    pipeline: str
    """A name that mixtune ships, or a path."""
    code: str
    """Digest of the package's source."""
    status: str = RUNNING
    """`running`, `finished`, `failed` or `interrupted`."""
    place: str = ""
    """The task that it stopped in, with its progress."""
    began: float = 0.0
    """Seconds since 1970."""
    seconds: float = 0.0
    """That it took, over all its starts."""


@dataclass(frozen=True)
class WorkDir:
    """The folder that local runs live in."""

    root: Path

    @classmethod
    def at(cls, place: str) -> "WorkDir":
        """Return the folder that a command line names, of whatever user and relative to whatever folder."""
        return cls(Path(place).expanduser().resolve())

    @property
    def mlflow_uri(self) -> str:
        """The tracking URI of this folder's MLflow."""
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def words(self) -> list[str]:
        """Options by which a command finds this folder; none for the default folder."""
        return [] if self.root == Path("mixtune-work").resolve() else ["--work-dir", str(self.root)]

    @property
    def cache_dir(self) -> Path:
        """Where outputs of earlier runs are found again, as long as the code is the same."""
        return self.root / "cache" / source_digest()

    def run_dir(self, run_id: str) -> Path:
        """Where a run's artifacts and log lie."""
        return self.root / "runs" / run_id

    def pages(self, run_id: str) -> Path:
        """Where a run's pages lie."""
        return self.root / "reports" / run_id

    def report(self, run_id: str, suffix: str = "html") -> Path:
        """A run's report, once it has one."""
        return self.pages(run_id) / f"report.{suffix}"

    def run_report(self, run_id: str) -> RunReport:
        """Return what the task that judges the whole run wrote."""
        return read_run_report(str(self.report(run_id, "json")))

    def create(self) -> None:
        """Make the folder; a ConfigError where it cannot be written."""
        try:
            (self.root / "runs").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--work-dir {self.root}: it cannot be written ({error.strerror}); name another"
            ) from error

    def begin(self, run_id: str, record: RunRecord, arguments: Arguments) -> None:
        """Save a run's arguments, for `mixtune runs`, `--like` and `--resume`."""
        self.create()
        self.run_dir(run_id).mkdir(parents=True, exist_ok=True)
        with storage.open_write(str(self.run_dir(run_id) / "arguments.json")) as stream:
            stream.write((json.dumps(arguments, indent=1) + "\n").encode())
        self.write_record(run_id, record)

    def write_record(self, run_id: str, record: RunRecord) -> None:
        """Save a run's state."""
        write_artifact(str(self.run_dir(run_id) / "run.json"), record)

    @contextmanager
    def at_work(self, run_id: str) -> Iterator[None]:
        """Hold a run's lock, by which others see that its process lives; a ConfigError where one has it."""
        with open(self.run_dir(run_id) / "lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ConfigError(f"run {run_id} is at work in another process; wait for it, or end it") from error
            yield

    @contextmanager
    def tasks_at_work(self, run_id: str) -> Iterator[int]:
        """Hold a run's lock, and yield the descriptor of one that its tasks hold, too.

        Tasks of a process that was killed may still save where they stand; that is waited for, up to a ConfigError.
        """
        with self.at_work(run_id), open(self.run_dir(run_id) / "tasks.lock", "w") as lock:
            for _ in range(int(2 * GRACE_SECONDS / POLL_SECONDS)):
                with contextlib.suppress(OSError):
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                time.sleep(POLL_SECONDS)
            else:
                raise ConfigError(f"run {run_id}: a task of its earlier start still runs; end it")
            yield lock.fileno()

    def record(self, run_id: str) -> RunRecord | None:
        """Return a run's state: one whose process is gone counts as interrupted. None: not known."""
        file = self.run_dir(run_id) / "run.json"
        if not file.is_file():
            return None
        record = read_artifact(RunRecord, str(file))
        if record.status == RUNNING:
            with contextlib.suppress(ConfigError), self.at_work(run_id):
                return replace(record, status=INTERRUPTED)
        return record

    def arguments(self, run_id: str) -> Arguments:
        """What a run was started with; a ConfigError where there is no such run here."""
        file = self.run_dir(run_id) / "arguments.json"
        if not file.is_file():
            raise ConfigError(f"no run {run_id!r} in {self.root}; `mixtune runs` lists them")
        return dict(json.loads(file.read_text()))

    def find_interrupted(self, pipeline: str, arguments: Arguments) -> str:
        """Return the newest run of a pipeline with these arguments, where it was interrupted; else an empty text."""
        for run_id in self.run_ids():
            record = self.record(run_id)
            if record and record.pipeline == pipeline and self.arguments(run_id) == arguments:
                return run_id if record.status == INTERRUPTED and record.code == source_digest() else ""
        return ""

    def keep_pools(self, run_id: str, places: dict[str, str]) -> None:
        """Keep where a run's pools lie, by the task that made them: one from the cache lies in another run."""
        storage.write_json(str(self.run_dir(run_id) / POOLS), places)

    def pools(self, run_id: str) -> dict[str, str]:
        """Return where a run's pools lie, by the task that made them; empty where there is no such run."""
        file = self.run_dir(run_id) / POOLS
        return dict(json.loads(file.read_text())) if "/" not in run_id and file.is_file() else {}

    def run_ids(self) -> list[str]:
        """Return the runs of this folder, newest first."""
        files = sorted(self.root.glob("runs/*/arguments.json"), key=lambda file: file.stat().st_mtime, reverse=True)
        return [file.parent.name for file in files]

    def summarize(self, run_id: str) -> RunSummary:
        """Return a run as a line of `mixtune runs`."""
        arguments, record = self.arguments(run_id), self.record(run_id)
        tracking = arguments.get("tracking") or {}
        priced = tracking.get("hyperpod")
        cost = read_mlflow_verdict({"uri": self.mlflow_uri, **tracking}, run_id)[1] if priced else None
        began = record.began if record else (self.run_dir(run_id) / "arguments.json").stat().st_mtime
        report = self.report(run_id, "json")
        return RunSummary(
            run_id=run_id,
            began=time.strftime("%Y-%m-%d %H:%M", time.localtime(began)),
            arguments=arguments,
            verdict=read_verdict(str(report)) if report.is_file() else "",
            cost=cost,
            status=" in ".join(filter(None, (record.status, record.place))) if record else "",
            seconds=record.seconds if record else 0.0,
            score=_customer_scores(str(report)) if report.is_file() else "",
        )


def read_run(options: argparse.Namespace, *, complete: bool = True) -> tuple[Path, Arguments]:
    """Return the pipeline that a command line names with its arguments, or those of a run here, which it may change."""
    work = WorkDir.at(options.work_dir)
    record = work.record(options.pipeline)
    pipeline = find_pipeline(record.pipeline if record else options.pipeline)
    earlier = work.arguments(options.pipeline) if record else None
    return pipeline, read_options(options, pipeline, earlier, complete=complete)


def _customer_scores(path: str) -> str:
    """Return the customer's score of the base and of the model to take, `0.097 -> 0.672`; empty where there is none."""
    try:
        report = read_run_report(path)
    except DataError:
        return ""
    recommended = find_recommendation(report)
    for candidate in list_candidates(report):
        comparison = candidate.comparison
        if isinstance(report, Comparison) or (recommended and comparison.model_uri == recommended.model_uri):
            axes = [axis for axis in comparison.axes if axis.axis == CUSTOMER_AXIS]
            return f"{axes[0].measure.base:.3f} -> {axes[0].measure.candidate:.3f}" if axes else ""
    return ""


CODE = (".py", ".toml", ".txt", ".css")
"""Files of the package on which what a step does depends: modules, and the tables and texts that they read."""


def source_digest() -> str:
    """Return what the package's code is, 16 hex digits: part of the local cache's key, as KFP's own does not see it."""
    folder, total = Path(mixtune.__file__).parent, hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.suffix in CODE):
        total.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return total.hexdigest()[:16]
