"""The command `preflight`: every check of a run, here, before anything is submitted."""

import argparse
from dataclasses import replace
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact
from mixtune.commands.arguments import (
    ONE_RUN,
    Commands,
    add_pipeline_arguments,
    find_pipeline,
    read_options,
    with_defaults,
)
from mixtune.preflight.checks import run_preflight
from mixtune.preflight.fingerprint import (
    fingerprint_benchmarks,
    fingerprint_model,
    fingerprint_options,
    fingerprint_pools,
)
from mixtune.preflight.mixed_checks import Mixed, run_mixed_preflight
from mixtune.preflight.run_settings import RunSettings
from mixtune.settings.sanitize import SourceSettings


def add_commands(commands: Commands) -> None:
    """Add `preflight` to the command line."""
    preflight = commands.add_parser("preflight", help="check a run before it is submitted")
    add_pipeline_arguments(preflight)
    preflight.add_argument("--pipeline-root", default="", help="where artifacts will go; it is tried out")
    preflight.add_argument("--shards", default="", metavar="MANIFEST", help="of mix_shard: look at the mixed data too")
    preflight.add_argument("--namespace", default="", help="of the run on the cluster; else the kubeconfig's")
    preflight.add_argument("--report", default="preflight.html", help="the page (default: %(default)s)")
    preflight.set_defaults(command=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    pipeline = find_pipeline(options.pipeline)
    arguments = with_defaults(pipeline, read_options(options, pipeline), ONE_RUN)
    storage.configure_storage(arguments["storage"])
    customer, general, _ = fingerprint_pools(
        arguments["customer_uri"], arguments["customer_columns"], arguments["test_uri"], arguments["general_pools"]
    )
    benchmarks, _ = fingerprint_benchmarks(arguments["benchmarks"])
    measured = [{"name": name, "uri": item["uri"]} for name, item in benchmarks.items() if item.get("uri")]
    run = replace(
        RunSettings.from_arguments(arguments),
        base_model=fingerprint_model(arguments["base_model"]),
        mix_options=fingerprint_options(arguments["mix_options"]),
        sources=[SourceSettings(**source) for source in (*customer, *general, *measured)],
        artifacts=options.pipeline_root,
        namespace=options.namespace,
    )
    outcome = run_preflight(run, options.report)
    print(f"preflight: {outcome}; the page is {options.report}")
    if options.shards:
        _check_mixed(options.shards, run, options.report)
    return 0


def _check_mixed(manifest: str, run: RunSettings, report: str) -> None:
    mixed = Mixed(manifest=read_artifact(ShardsManifest, manifest))
    mixed_run = mixed.run_settings(
        run.base_model,
        run.method,
        train_options=run.train_options,
        num_nodes=run.num_nodes,
        gpus_per_node=run.gpus_per_node,
        tracking=run.tracking,
        storage=run.storage,
    )
    page = str(Path(report).with_stem(f"{Path(report).stem}-mixed"))
    print(f"preflight of the mixed data: {run_mixed_preflight(mixed, mixed_run, page)}; the page is {page}")
