"""The command `submit`: a compiled pipeline with its arguments and pinned images to Kubeflow Pipelines."""

import argparse
import contextlib
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from mixtune import models
from mixtune.commands.argument_places import MODELS, Arguments, find_places, is_local
from mixtune.commands.arguments import Commands, add_pipeline_arguments, find_pipeline, package_files, read_options
from mixtune.commands.check import check_options
from mixtune.commands.follow import add_following, follow_run
from mixtune.commands.image_digests import Digests, ecr_digests, listed_digests, rewrite_images
from mixtune.commands.kubeflow_api import answers, connect, read_run, run_page
from mixtune.errors import ConfigError, reason
from mixtune.report.next_steps import command_of


def add_commands(commands: Commands) -> None:
    """Add `submit` to the command line."""
    submit = commands.add_parser("submit", help="submit a compiled pipeline to Kubeflow Pipelines")
    add_pipeline_arguments(submit)
    add_following(submit)
    submit.add_argument("--like", default="", metavar="RUN_ID", help="start from the arguments of an earlier run")
    submit.add_argument("--registry", default="", help="goes before the images' names")
    submit.add_argument("--digests", default="", metavar="FILE", help="JSON of image digests; without it ECR is asked")
    submit.add_argument("--experiment", default="mixtune", help="KFP's experiment (default: %(default)s)")
    submit.add_argument("--pipeline-root", default="", help="s3:// prefix of the artifacts; else the cluster's default")
    submit.add_argument("--service-account", default="", help="that the tasks run as; else the cluster's default")
    submit.add_argument("--no-cache", action="store_true", help="run every step, whatever earlier runs left")
    submit.add_argument("--allow-local", action="store_true", help="the pods have the paths that the arguments name")
    submit.add_argument("--wait", action="store_true", help="follow the run; the exit code is the verdict's")
    submit.set_defaults(command=_submit)


FINGERPRINT = re.compile(r"- (--function_to_execute\s+- |preflight\.)fingerprint$", re.M)
"""The command of the task `fingerprint` in a compiled pipeline."""
STALE = (
    "warning: {} has no task `fingerprint`: KFP's cache does not see new bytes under old URIs; add it, or --no-cache"
)


def submit_pipeline(options: argparse.Namespace) -> str:
    """Submit what a command line names; return the run's id."""
    pipeline = find_pipeline(options.pipeline)
    client = connect(options) if options.like else None
    arguments = read_options(options, pipeline, read_run(client, options.like).arguments if client else None)
    if pipeline in package_files("compiled"):
        check_options(pipeline, arguments)
    if not options.allow_local:
        refuse_local(arguments)
    digest_of = _listed(options.digests) if options.digests else ecr_digests(options.registry)
    text = pipeline.read_text()
    if not options.no_cache and "enableCache: true" in text and not FINGERPRINT.search(text):
        print(STALE.format(pipeline.stem), file=sys.stderr)
    text, client = rewrite_images(text, options.registry, digest_of), client or connect(options)
    with tempfile.TemporaryDirectory() as folder, answers("the submission"), contextlib.redirect_stdout(None):
        path = Path(folder) / pipeline.name
        path.write_text(text)
        run = client.create_run_from_pipeline_package(
            str(path),
            arguments=arguments,
            run_name=f"{pipeline.stem} {time.strftime('%Y-%m-%d %H:%M:%S')}",
            experiment_name=options.experiment,
            namespace=options.namespace,
            pipeline_root=options.pipeline_root or None,
            service_account=options.service_account or None,
            enable_caching=False if options.no_cache else None,
        )
    return str(run.run_id)


def refuse_local(arguments: Arguments) -> None:
    """Refuse arguments that name paths of this machine, where no pod could read them.

    Raises:
        ConfigError: Some do; every one is named.
    """
    places = [place for place in find_places(arguments) if is_local(place.text)]
    local = [place for place in places if place.name not in MODELS or not models.is_hub_name(place.text)]
    if local:
        listed = ", ".join(f"{place.name} {place.text!r}" for place in local)
        raise ConfigError(
            f"a pod cannot read paths of this machine: {listed}; upload them (`aws s3 cp --recursive PATH s3://...`) "
            "and name them as s3://..., a hub's model as org/name@revision; --allow-local where the pods have them"
        )


def _listed(file: str) -> Digests:
    try:
        return listed_digests(json.loads(Path(file).read_text()))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"--digests {file}: cannot be read as a JSON object ({reason(error)})") from error


def _submit(options: argparse.Namespace) -> int:
    run_id = submit_pipeline(options)
    print(f"run: {run_page(options.host, run_id)}", flush=True)
    if options.wait:
        return follow_run(options, run_id)
    token = ["--token-file", options.token_file] if options.token_file else []
    where = ["--host", options.host, "--namespace", options.namespace, *token]
    print(f"next: {command_of('mixtune', 'follow', run_id, *where)}")
    return 0
