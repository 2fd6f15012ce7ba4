"""The command `run`: a compiled pipeline or a component on this machine, begun, interrupted, taken up again."""

import argparse
import builtins
import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mixtune.artifacts.comparison import EXIT_CODES
from mixtune.artifacts.run_report import report_outputs
from mixtune.commands.argument_places import Arguments, check_places
from mixtune.commands.arguments import find_pipeline, package_files, read_options, read_spec
from mixtune.commands.check import check_options
from mixtune.commands.check_files import check_files
from mixtune.commands.local import run_pages
from mixtune.commands.local.run_ending import Outcome, print_next_steps
from mixtune.commands.local.run_pages import keep_pages
from mixtune.commands.local.task_environment import set_task_environment
from mixtune.commands.local.task_log import TaskLog
from mixtune.commands.local.task_processes import TaskRunner
from mixtune.commands.local.work_dir import FAILED, FINISHED, INTERRUPTED, RunRecord, WorkDir, source_digest
from mixtune.commands.task_states import titles_of
from mixtune.errors import ConfigError, MixtuneError, TrainingError
from mixtune.report.next_steps import command_of

EXIT_INTERRUPTED = 130


class Interrupted(MixtuneError):
    """A run that Ctrl-C or SIGTERM stopped."""


def run_pipeline(
    pipeline: Path, arguments: Arguments, work: WorkDir, *, cache: bool = True, resume: str = ""
) -> Outcome:
    """Run a compiled pipeline on this machine through KFP's local runner.

    With `cache` steps whose inputs and code did not change are taken from earlier runs. `resume` is the id of a run
    with the same arguments that was interrupted, and is taken up; empty: a new run.

    Raises:
        TrainingError: A task failed; the message is that task's own.
        Interrupted: Ctrl-C or SIGTERM stopped it.
    """
    run_id = resume or f"{pipeline.stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    earlier = work.record(run_id) if resume else None
    record = (
        replace(earlier, status="running", place="", code=source_digest())
        if earlier
        else RunRecord(pipeline=name_of(pipeline), code=source_digest(), began=time.time())
    )
    work.begin(run_id, record, arguments)
    os.environ.update({"MIXTUNE_RUN_ID": run_id})
    os.environ.setdefault("MLFLOW_TRACKING_URI", work.mlflow_uri)
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"torchinductor_{os.getuid()}"))
    set_task_environment(arguments.get("base_model"))
    start, run_dir = time.monotonic(), work.run_dir(run_id)
    with work.tasks_at_work(run_id) as lock, open(run_dir / "run.log", "a", encoding="utf-8") as log:
        shown = TaskLog(screen=sys.stdout, log=log)
        with closing(TaskRunner(shown, titles_of(read_spec(pipeline)), pipeline.stem, lock)) as runner:
            try:
                with _stopped_by_signals(runner):
                    outputs = _run_locally(pipeline, arguments, run_dir, work.cache_dir if cache else None, runner)
            finally:
                runner.stop()
            status = FINISHED if outputs is not None else INTERRUPTED if runner.interrupted else FAILED
            place = "; ".join(runner.stopped) or shown.failed if outputs is None else ""
            record = replace(record, status=status, place=place, seconds=record.seconds + time.monotonic() - start)
            work.write_record(run_id, record)
            report = keep_pages(work, run_id, record, arguments, runner.results)
            runner.call(run_pages.__name__, str(work.root), run_id, status)
    if runner.interrupted and outputs is None:
        raise Interrupted(_interruption(shown, place, work, run_id))
    if outputs is None:
        failed = shown.failed or pipeline.stem
        reason = shown.error.removeprefix(f"{failed}: ")
        raise TrainingError(f"{failed}: {reason}\n(the whole log: {run_dir / 'run.log'})")
    results = report_outputs(work.run_report(run_id)) if report else {}
    return Outcome(run_id=run_id, outputs={**results, **outputs}, report=report, results=tuple(runner.results))


def name_of(pipeline: Path) -> str:
    """Return the name of a pipeline or component that mixtune ships, else its absolute path."""
    with contextlib.suppress(ConfigError):
        if find_pipeline(pipeline.stem) == pipeline:
            return pipeline.stem
    return str(pipeline.resolve())


def _run_locally(
    pipeline: Path, arguments: Arguments, run_dir: Path, cache_dir: Path | None, runner: TaskRunner
) -> dict[str, Any] | None:
    """Return the pipeline's outputs; None if a task failed."""
    warnings.filterwarnings("ignore", category=UserWarning, module="kfp")
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    warnings.filterwarnings("ignore", category=FutureWarning)
    from kfp import components, local

    own_print = builtins.print
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(run_dir),
        workspace_root=str(run_dir / "workspace"),  # else a temporary one, which stays
        enable_caching=cache_dir is not None,
        cache_root=str(cache_dir or run_dir / "cache"),
    )
    with open(run_dir / "kfp.log", "a", encoding="utf-8") as words:
        try:
            with contextlib.redirect_stdout(words), contextlib.redirect_stderr(words), runner.in_charge():
                component = components.load_component_from_file(str(pipeline))
                drop_retries(component)
                return dict(component(**arguments).outputs)
        except Exception as error:  # KFP raises RuntimeError subclasses of its own for whatever went wrong in a task
            runner.log.error = runner.log.error or f"{type(error).__name__}: {error}"
            return None
        finally:
            builtins.print = own_print  # KFP's loops leave it patched


@contextmanager
def _stopped_by_signals(runner: TaskRunner) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the tasks first, so that they can save where they stand."""

    def stop(_number: int, _frame: object) -> None:
        if not runner.interrupted:
            runner.interrupted = True
            print("\ninterrupted: stopping the tasks; a training saves a checkpoint first ...", file=sys.stderr)
        runner.stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        previous = {number: signal.signal(number, stop) for number in numbers}
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interruption(log: TaskLog, place: str, work: WorkDir, run_id: str) -> str:
    saved = ", saved" if "which is saved" in log.error else ""
    command = command_of("mixtune", "run", "--resume", run_id, *work.words)
    between = f"after {log.finished[-1]}" if log.finished else "at its beginning"
    return f"interrupted {f'in {place}' if place else between}{saved}; go on with: {command}"


def drop_retries(component: Any) -> None:
    """Take the retries out of a loaded pipeline: they are for lost pods; here a failure would only be waited for."""
    graph = component.component_spec.implementation.graph
    if graph is not None:
        for dag in (graph.root.dag, *(item.dag for item in graph.components.values())):
            for task in dag.tasks.values():
                task.ClearField("retry_policy")


def run_command(options: argparse.Namespace) -> int:
    """Run what the command line names; the exit code is the verdict's."""
    work = WorkDir.at(options.work_dir)
    name, resume = options.pipeline, options.resume
    if resume:
        record = work.record(resume)
        if not record:
            raise ConfigError(f"--resume {resume}: there is no such run in {work.root}; `mixtune runs` lists them")
        other = "=" in name or (name and find_pipeline(name) != find_pipeline(record.pipeline))
        if options.arguments or options.arguments_file or other:
            raise ConfigError("--resume takes the run's own pipeline and arguments; to change some: --like RUN_ID")
        name = record.pipeline
    if not name:
        raise ConfigError("name a pipeline; `mixtune list` shows those that there are")
    pipeline = find_pipeline(name)
    earlier = work.arguments(options.like or resume) if options.like or resume else None
    arguments = read_options(options, pipeline, earlier)
    check_places(arguments)
    if pipeline in package_files("compiled"):
        check_options(pipeline, arguments)
        check_files(arguments)
    if not resume and not options.no_cache and (resume := work.find_interrupted(name_of(pipeline), arguments)):
        print(f"going on with {resume}, which was interrupted; --no-cache begins anew", flush=True)
    outcome = run_pipeline(pipeline, arguments, work, cache=not options.no_cache, resume=resume)
    print_next_steps(outcome, work)
    return EXIT_CODES.get(outcome.verdict, 0)
