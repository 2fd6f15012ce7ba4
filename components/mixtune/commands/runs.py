"""The command `runs`: list runs, here or on a cluster, with the tasks of running ones and the verdicts of others."""

import argparse
import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from mixtune.commands.argument_places import Arguments
from mixtune.commands.arguments import Commands, add_work_dir, find_pipeline, with_defaults
from mixtune.commands.kubeflow_api import SubmittedRun, add_connection, answers, connect, read_run
from mixtune.commands.local.work_dir import FAILED, WorkDir
from mixtune.commands.run_on_cluster import RunOnCluster
from mixtune.commands.run_summary import RunSummary, format_runs, read_mlflow_verdict
from mixtune.commands.task_states import PENDING, RUNNING, task_states
from mixtune.errors import ConfigError

if TYPE_CHECKING:
    from kfp import Client


def add_commands(commands: Commands) -> None:
    """Add `runs` to the command line."""
    runs = commands.add_parser(
        "runs", help="list runs with status, mix, verdict and cost: those here, or with --host a cluster's"
    )
    add_connection(runs, required=False)
    add_work_dir(runs)
    runs.add_argument("--all", action="store_true", help="those that failed, too")
    runs.add_argument("--limit", type=int, default=20, help="(default: %(default)s)")
    runs.set_defaults(command=_runs)


def _runs(options: argparse.Namespace) -> int:
    if options.host:
        runs = list_runs(connect(options), options.namespace, options.limit)
        print(format_runs(runs) if runs else "no runs yet")
        return 0
    print(describe_runs(WorkDir.at(options.work_dir), options.limit, everything=options.all))
    return 0


def describe_runs(work: WorkDir, limit: int, *, everything: bool) -> str:
    """Return the newest runs of this machine as text; those that failed are counted, or with `everything` listed.

    Raises:
        ConfigError: There is no such work folder.
    """
    if not work.root.is_dir():
        raise ConfigError(f"--work-dir {work.root}: there is no such folder; `mixtune run` makes one")
    shown: list[RunSummary] = []
    num_failed = 0
    for run_id in work.run_ids():
        record = work.record(run_id)
        if record and record.status == FAILED and not everything:
            num_failed += 1
        elif len(shown) < limit:
            run = work.summarize(run_id)
            shown.append(replace(run, arguments=_with_defaults(record.pipeline if record else "", run.arguments)))
    failed = f"\n{num_failed} that failed are left out; --all lists them" if num_failed else ""
    return (format_runs(shown) if shown else "no runs yet") + failed


def _with_defaults(pipeline: str, arguments: Arguments) -> Arguments:
    """Return a run's arguments with what its pipeline takes where they say nothing."""
    with contextlib.suppress(ConfigError):
        return with_defaults(find_pipeline(pipeline), arguments) if pipeline else arguments
    return arguments


def list_runs(client: "Client", namespace: str, limit: int) -> list[RunSummary]:
    """Return the newest runs, with what their arguments and MLflow say of them, and the tasks at work."""
    with answers("the list of runs"):
        newest = client.list_runs(page_size=limit, sort_by="created_at desc", namespace=namespace).runs or []
    summaries = []
    for run in map(SubmittedRun.from_api, newest):
        verdict, cost = read_mlflow_verdict(run.arguments.get("tracking") or {}, run.run_id)
        summaries.append(
            RunSummary(
                run_id=run.run_id,
                began=f"{run.created:%Y-%m-%d %H:%M}" if run.created else "",
                arguments=run.arguments,
                verdict=verdict or ("" if run.state == "SUCCEEDED" else _at_work(client, run, namespace)),
                cost=cost,
            )
        )
    return summaries


def _at_work(client: "Client", run: SubmittedRun, namespace: str) -> str:
    """Return a run's state, and while it runs the tasks that it is at."""
    if run.ended:
        return run.state.lower()
    whole = read_run(client, run.run_id)
    states = task_states(RunOnCluster(run.run_id, namespace).nodes() or whole.nodes, whole.titles)
    titles = [state.title for state in states if state.phase in (PENDING, RUNNING)]
    return f"{run.state.lower()}: {', '.join(titles)}" if titles else run.state.lower()
