"""The commands that look without changing anything: `runs`."""

import argparse
from pathlib import Path

from mixtune.commands.arguments import Commands
from mixtune.commands.local_runner import WorkDir
from mixtune.commands.run_summary import format_runs
from mixtune.commands.submit import add_connection, connect, list_runs


def add_commands(commands: Commands) -> None:
    """Add `runs` to the command line."""
    runs = commands.add_parser(
        "runs", help="list runs with mix, verdict and cost: those here, or with --host a cluster's"
    )
    add_connection(runs, required=False)
    runs.add_argument("--work-dir", default="mixtune-work", help="(default: %(default)s)")
    runs.add_argument("--limit", type=int, default=20, help="(default: %(default)s)")
    runs.set_defaults(command=_runs)


def _runs(options: argparse.Namespace) -> int:
    if options.host:
        runs = list_runs(connect(options), options.namespace, options.limit)
    else:
        runs = WorkDir(Path(options.work_dir).resolve()).runs()[: options.limit]
    print(format_runs(runs) if runs else "no runs yet")
    return 0
