"""The command `mixtune`: run a pipeline here, submit it to a cluster, see the demo.

Exit codes: 0 pass, 3 fail, 4 inconclusive (verdicts); 1 an error while running; 2 a wrong command line.
"""

import argparse
import builtins
import contextlib
import json
import os
import secrets
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixtune import __version__
from mixtune.artifacts.comparison import EXIT_CODES
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.run_report import report_outputs
from mixtune.artifacts.typed_json import read_artifact
from mixtune.commands import catalogue_pools, check, convert, follow, plan, runs, submit
from mixtune.commands.arguments import add_pipeline_arguments, find_pipeline, read_options
from mixtune.commands.local_runner import TaskLog, WorkDir, cache_hits, check_text, drop_retries, task_names
from mixtune.errors import ConfigError, MixtuneError, TrainingError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a local run came to."""

    run_id: str
    outputs: dict[str, Any]
    """What its comparison found: verdict, and URI, mix and strength of the model to take; then its outputs."""
    report: Path | None
    """The HTML report, if the pipeline compared anything."""

    @property
    def verdict(self) -> str:
        """pass, fail or inconclusive; empty for a pipeline without one."""
        return str(self.outputs.get("verdict", ""))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code comes back."""
    parser = _parser()
    options, late = parser.parse_known_args(argv)  # argparse takes no positional arguments after options
    if late and "task" in options and not options.task:
        options.task = late.pop(0)
    if any(text.startswith("-") for text in late) or (late and "arguments" not in options):
        parser.error(f"unrecognized arguments: {' '.join(late)}")
    if late:
        options.arguments += late
    try:
        return int(options.command(options))
    except ConfigError as error:
        print(f"mixtune: {error}", file=sys.stderr)
        return 2
    except MixtuneError as error:
        print(f"mixtune: {error}", file=sys.stderr)
        return 1


def run_pipeline(pipeline: Path, arguments: dict[str, Any], work: WorkDir, *, cache: bool = True) -> Outcome:
    """Run a compiled pipeline on this machine through KFP's local runner.

    Args:
        pipeline: The YAML file.
        arguments: Values of its parameters.
        work: Where artifacts, cache, reports and MLflow's database go.
        cache: Whether steps whose inputs and code did not change are taken from earlier runs.

    Raises:
        TrainingError: A task failed; the message is that task's own.
    """
    for name, value in arguments.items():
        check_text(name, str(value))
    run_id = f"{pipeline.stem}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
    run_dir = work.run_dir(run_id)
    run_dir.mkdir(parents=True)
    work.keep_arguments(run_id, arguments)
    defaults = {"MLFLOW_TRACKING_URI": work.mlflow_uri, "GIT_PYTHON_REFRESH": "quiet", "PYTHONWARNINGS": "ignore"}
    defaults["TQDM_DISABLE"] = "1"  # a bar is noise in a log
    os.environ.update({"MIXTUNE_RUN_ID": run_id, **{key: os.environ.get(key, text) for key, text in defaults.items()}})
    with open(run_dir / "run.log", "w", encoding="utf-8") as log:
        shown = TaskLog(screen=sys.stdout, log=log, names=task_names(pipeline))
        outputs = _run_locally(pipeline, arguments, run_dir, work.cache_dir if cache else None, shown)
    if outputs is None:
        raise TrainingError(f"{shown.failed or pipeline.stem}: {shown.error}\n(the whole log: {run_dir / 'run.log'})")
    report = work.keep_report(run_id)
    results = report_outputs(work.run_report(run_id)) if report else {}
    return Outcome(run_id=run_id, outputs={**results, **outputs}, report=report)


def _run_locally(
    pipeline: Path, arguments: dict[str, Any], run_dir: Path, cache_dir: Path | None, shown: TaskLog
) -> dict[str, Any] | None:
    """The pipeline's outputs; None if a task failed."""
    warnings.filterwarnings("ignore", category=UserWarning, module="kfp")
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="kfp")
    warnings.filterwarnings("ignore", category=FutureWarning)
    from kfp import components, local

    own_print = builtins.print
    local.init(
        local.SubprocessRunner(use_venv=False),
        pipeline_root=str(run_dir),
        enable_caching=cache_dir is not None,
        cache_root=str(cache_dir or run_dir / "cache"),
    )
    try:
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown), cache_hits(shown):
            component = components.load_component_from_file(str(pipeline))
            drop_retries(component)
            return dict(component(**arguments).outputs)
    except Exception as error:  # KFP raises RuntimeError subclasses of its own for whatever went wrong in a task
        shown.error = shown.error or f"{type(error).__name__}: {error}"
        return None
    finally:
        builtins.print = own_print  # KFP's loops leave it patched


def _run(options: argparse.Namespace) -> int:
    pipeline = find_pipeline(options.pipeline)
    work = WorkDir(Path(options.work_dir).resolve())
    earlier = work.arguments(options.like) if options.like else None
    arguments = read_options(options, pipeline, earlier)
    outcome = run_pipeline(pipeline, arguments, work, cache=not options.no_cache)
    for name, value in outcome.outputs.items():
        print(f"{name}: {getattr(value, 'uri', value)}")  # a component run by itself leaves artifacts
    if outcome.report:
        print(f"report: {outcome.report}")
    print(f"MLflow: mlflow ui --backend-store-uri {os.environ['MLFLOW_TRACKING_URI']}   (run {outcome.run_id})")
    return EXIT_CODES.get(outcome.verdict, 0)


def _demo(options: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a tiny model spends more on waking threads than on arithmetic
    from mixtune.demo.demo_data import write_world
    from mixtune.demo.show import format_grid

    folder = Path(options.write_only or Path(options.work_dir) / "world").resolve()
    check_text("the demo's folder", str(folder))
    world = write_world(folder, options.seed)
    arguments = world.grid_arguments(options.method, options.epochs)
    if options.write_only:
        for name, values in {"finetune": world.arguments(options.method, 75.0), "mix_grid": arguments}.items():
            (folder / f"{name}.json").write_text(json.dumps(values, indent=1) + "\n")
        print(f"the demo's files are in {folder}; run: mixtune run finetune --arguments {folder / 'finetune.json'}")
        return 0
    work = WorkDir(Path(options.work_dir).resolve())
    shown = arguments["customer_data_percents"]
    print(f"\n== mix_grid with customer_data_percents={shown}, method={options.method} ==", flush=True)
    run = run_pipeline(find_pipeline("mix_grid"), arguments, work)
    grid = read_artifact(GridReport, str(work.report(run.run_id, "json")))
    print(
        f"\n{format_grid(grid)}\n\nAn interval holds the one-sided 95 % bounds of the difference to the base model.\n"
    )
    print(f"{grid.reason}\n\nreport: {run.report} (open it in a browser)")
    mlflow = Path(sys.executable).with_name("mlflow")
    print(f"MLflow: {mlflow} ui --backend-store-uri {os.environ['MLFLOW_TRACKING_URI']}   (then http://127.0.0.1:5000)")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mixtune", description="Fine-tune without forgetting, and prove it.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    run = commands.add_parser("run", help="run a compiled pipeline on this machine")
    add_pipeline_arguments(run)
    run.add_argument("--like", default="", metavar="RUN_ID", help="start from the arguments of an earlier run here")
    run.add_argument(
        "--work-dir", default="mixtune-work", help="artifacts, cache, reports, MLflow (default: %(default)s)"
    )
    run.add_argument("--no-cache", action="store_true", help="run every step, whatever earlier runs left")
    run.set_defaults(command=_run)
    demo = commands.add_parser("demo", help="see a model forget, and not forget")
    demo.add_argument("--method", choices=("lora", "sft"), default="lora", help="(default: %(default)s)")
    demo.add_argument("--seed", type=int, default=42, help="(default: %(default)s)")
    demo.add_argument("--epochs", type=float, default=0.0, help="fewer customer epochs than the demo needs, for a look")
    demo.add_argument("--write-only", default="", metavar="FOLDER", help="write the demo's files there and stop")
    demo.add_argument("--work-dir", default="mixtune-work", help="(default: %(default)s)")
    demo.set_defaults(command=_demo)
    submit.add_commands(commands)
    follow.add_commands(commands)
    runs.add_commands(commands)
    plan.add_commands(commands)
    check.add_commands(commands)
    convert.add_commands(commands)
    catalogue_pools.add_commands(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
