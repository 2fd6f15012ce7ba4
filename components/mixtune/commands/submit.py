"""The commands that speak with Kubeflow Pipelines: `submit`, `follow`, and `runs --host`."""

import argparse
import contextlib
import json
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mixtune import storage
from mixtune.artifacts.comparison import EXIT_CODES
from mixtune.commands.arguments import Commands, add_pipeline_arguments, find_pipeline, read_options
from mixtune.commands.image_digests import ecr_digests, listed_digests, rewrite_images
from mixtune.commands.run_summary import RunSummary, find_verdict, read_mlflow_verdict
from mixtune.errors import ClusterError, ConfigError
from mixtune.outcome.webhook import send

ENDED = ("SUCCEEDED", "FAILED", "SKIPPED", "ERROR", "CANCELED")
"""States in which KFP leaves a run for good."""


def add_commands(commands: Commands) -> None:
    """Add `submit` and `follow` to the command line."""
    submit = commands.add_parser("submit", help="submit a compiled pipeline to Kubeflow Pipelines")
    add_pipeline_arguments(submit)
    _add_connection(submit)
    submit.add_argument("--like", default="", metavar="RUN_ID", help="start from the arguments of an earlier run")
    submit.add_argument("--registry", default="", help="goes before the images' names")
    submit.add_argument("--digests", default="", metavar="FILE", help="JSON of image digests; without it ECR is asked")
    submit.add_argument("--experiment", default="mixtune", help="KFP's experiment (default: %(default)s)")
    submit.add_argument("--pipeline-root", default="", help="s3:// prefix of the artifacts; else the cluster's default")
    submit.add_argument("--service-account", default="", help="that the tasks run as; else the cluster's default")
    submit.add_argument("--wait", action="store_true", help="follow the run; the exit code is the verdict's")
    submit.set_defaults(command=_submit)
    follow = commands.add_parser("follow", help="follow a submitted run; the exit code is the verdict's")
    follow.add_argument("run_id", help="the run's id, as submit prints it")
    _add_connection(follow)
    follow.set_defaults(command=lambda options: _follow(options, options.run_id))


def connect(options: argparse.Namespace) -> Any:
    """A KFP client; the token is read anew each time.

    Raises:
        ClusterError: Nobody answers at the address.
        ConfigError: The token's file cannot be read.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="kfp")
    from kfp import Client
    from urllib3.exceptions import HTTPError

    try:
        token = Path(options.token_file).read_text().strip() if options.token_file else None
    except OSError as error:
        raise ConfigError(f"--token-file {options.token_file}: cannot be read ({error.strerror})") from error
    try:
        return Client(host=options.host, namespace=options.namespace, existing_token=token)
    except HTTPError as error:
        raise ClusterError(
            f"{options.host} does not answer ({type(error).__name__}); check --host and the network"
        ) from error


def run_arguments(client: Any, run_id: str) -> dict[str, Any]:
    """The arguments that a run was submitted with."""
    with answers(f"run {run_id}"):
        run = client.get_run(run_id)
    return dict((run.runtime_config and run.runtime_config.parameters) or {})


def list_runs(client: Any, namespace: str, limit: int) -> list[RunSummary]:
    """The newest runs, with what their arguments and MLflow say of them."""
    with answers("the list of runs"):
        found = client.list_runs(page_size=limit, sort_by="created_at desc", namespace=namespace).runs or []
    listed = []
    for run in found:
        arguments = dict((run.runtime_config and run.runtime_config.parameters) or {})
        verdict, cost = read_mlflow_verdict(arguments.get("tracking") or {}, run.run_id)
        state = str(run.state or "PENDING")
        listed.append(
            RunSummary(
                run_id=run.run_id,
                began=f"{run.created_at:%Y-%m-%d %H:%M}" if run.created_at else "",
                arguments=arguments,
                verdict=verdict or ("" if state == "SUCCEEDED" else state.lower()),
                cost=cost,
            )
        )
    return listed


@contextlib.contextmanager
def answers(asked: str) -> Iterator[None]:
    """Turn what KFP's API refuses, or does not answer, into an error that says what to do.

    Raises:
        ClusterError: It did.
    """
    from kfp_server_api import ApiException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ApiException as error:
        raise ClusterError(f"{asked}: {_reason(error)}") from error
    except HTTPError as error:
        raise ClusterError(
            f"{asked}: Kubeflow Pipelines does not answer ({type(error).__name__}); check --host"
        ) from error


def _reason(error: Any) -> str:
    if error.status == 401:
        return "the token is not accepted, or no longer (401); log in again, or renew the file of --token-file"
    if error.status == 403:
        return "no right to do this (403); ask for it in the run's namespace, or give --namespace"
    if error.status == 404:
        return "not there (404); `mixtune runs --host ...` lists what is"
    try:
        said = json.loads(error.body or "{}").get("message") or error.reason
    except ValueError:
        said = error.reason
    return f"Kubeflow Pipelines refused it ({error.status}): {said}"


def _submit(options: argparse.Namespace) -> int:
    pipeline = find_pipeline(options.pipeline)
    listed = json.loads(Path(options.digests).read_text()) if options.digests else None
    earlier = run_arguments(connect(options), options.like) if options.like else None
    arguments = read_options(options, pipeline, earlier)
    digest_of = ecr_digests(options.registry) if listed is None else listed_digests(listed)
    text = rewrite_images(pipeline.read_text(), options.registry, digest_of)
    client = connect(options)
    with tempfile.TemporaryDirectory() as folder, answers("the submission"), contextlib.redirect_stdout(None):
        sent = Path(folder) / pipeline.name
        sent.write_text(text)
        run = client.create_run_from_pipeline_package(
            str(sent),
            arguments=arguments,
            run_name=f"{pipeline.stem} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            experiment_name=options.experiment,
            namespace=options.namespace,
            pipeline_root=options.pipeline_root or None,
            service_account=options.service_account or None,
        )
    print(f"run: {_page(options, run.run_id)}", flush=True)
    return _follow(options, run.run_id) if options.wait else 0


def _follow(options: argparse.Namespace, run_id: str) -> int:
    """Print a line when a task changes its state; the verdict's exit code once the run has ended."""
    client, misses = connect(options), 0
    seen: dict[str, str] = {}
    while True:
        try:
            with answers(f"run {run_id}"):
                run = client.get_run(run_id)
            misses = 0
        except ClusterError as error:
            misses += 1
            if misses > options.patience:
                raise ClusterError(
                    f"{error}; the run goes on, follow it with: mixtune follow {run_id} --host {options.host}"
                ) from error
            time.sleep(options.poll)
            client = connect(options)  # a renewed token is read here
            continue
        _print_changes(run, seen)
        if run.state in ENDED:
            return _ended(options, run)
        time.sleep(options.poll)


def _print_changes(run: Any, seen: dict[str, str]) -> None:
    for task in (run.run_details and run.run_details.task_details) or []:
        if task.state and seen.get(task.task_id) != task.state:
            seen[task.task_id] = task.state
            print(f"{time.strftime('%H:%M:%S')} {task.display_name}: {task.state.lower()}", flush=True)


def _ended(options: argparse.Namespace, run: Any) -> int:
    if run.state != "SUCCEEDED":
        failed = [
            f"{task.display_name}: {(task.error and task.error.message) or 'see its log'}"
            for task in (run.run_details and run.run_details.task_details) or []
            if task.state == "FAILED"
        ]
        why = "; ".join(failed) or (run.error and run.error.message) or "see its page"
        _tell(options, run)
        raise ClusterError(f"run {run.run_id} ended as {run.state.lower()}: {why}")
    arguments = dict((run.runtime_config and run.runtime_config.parameters) or {})
    root = (run.runtime_config and run.runtime_config.pipeline_root) or getattr(options, "pipeline_root", "")
    folder = storage.join(root, _pipeline_name(run), run.run_id) if root else ""
    storage.use(arguments.get("storage") or {})
    verdict = find_verdict(arguments.get("tracking") or {}, folder, run.run_id)
    print(f"verdict: {verdict}", flush=True)
    return EXIT_CODES[verdict]


def _tell(options: argparse.Namespace, run: Any) -> None:
    """Tell the webhook, where this machine has one, that a run did not reach the task that tells it otherwise."""
    name, state = _pipeline_name(run), run.state.lower()
    message = {"text": f"{name} {run.run_id}: {state}", "run_id": run.run_id, "pipeline": name, "verdict": state}
    print(send({**message, "cost_usd": None, "links": {"run": _page(options, run.run_id)}}), flush=True)


def _page(options: argparse.Namespace, run_id: str) -> str:
    return f"{options.host.rstrip('/')}/#/runs/details/{run_id}"


def _pipeline_name(run: Any) -> str:
    """The name in the pipeline's YAML, which is a folder of the artifacts."""
    spec = run.pipeline_spec or {}
    return str((spec.get("pipeline_spec") or spec).get("pipelineInfo", {}).get("name", "finetune"))


def _add_connection(parser: argparse.ArgumentParser) -> None:
    add_connection(parser, required=True)
    parser.add_argument("--poll", type=float, default=10.0, help="seconds between two looks (default: %(default)s)")
    parser.add_argument(
        "--patience", type=int, default=30, help="failed looks in a row before giving up (default: %(default)s)"
    )


def add_connection(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the options that name a Kubeflow Pipelines."""
    parser.add_argument("--host", required=required, default="", help="address of Kubeflow Pipelines")
    parser.add_argument("--namespace", default="kubeflow", help="(default: %(default)s)")
    parser.add_argument("--token-file", default="", metavar="FILE", help="bearer token, read anew when it expires")
