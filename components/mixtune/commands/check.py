"""The command `preflight`: every check of a run, here, before anything is submitted."""

import argparse
from pathlib import Path
from typing import Any

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
from mixtune.preflight.checks import Settings, run_preflight
from mixtune.preflight.fingerprint import fingerprint_benchmarks, fingerprint_model, fingerprint_pools
from mixtune.preflight.mixed_checks import Mixed, run_mixed_preflight


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
    values = with_defaults(pipeline, read_options(options, pipeline), ONE_RUN)
    settings = settings_of(values, options.pipeline_root, options.namespace)
    outcome = run_preflight(settings, options.report)
    print(f"preflight: {outcome}; the page is {options.report}")
    if options.shards:
        _look_at_the_mix(options.shards, settings, options.report)
    return 0


def _look_at_the_mix(manifest: str, settings: Settings, report: str) -> None:
    mixed = Mixed(manifest=read_artifact(ShardsManifest, manifest))
    same = ("lora_rank", "num_nodes", "gpus_per_node", "tracking", "storage")
    known = mixed.settings(settings.base_model, settings.method, **{name: getattr(settings, name) for name in same})
    page = str(Path(report).with_stem(f"{Path(report).stem}-mixed"))
    print(f"preflight of the mixed data: {run_mixed_preflight(mixed, known, page)}; the page is {page}")


def settings_of(values: dict[str, Any], artifacts: str = "", namespace: str = "") -> Settings:
    """What is checked of a run with these arguments.

    Raises:
        ConfigError: Pools or benchmarks are badly described.
        DataError: A file is not there.
    """
    storage.configure_storage(values["storage"])
    customer, general, weights = fingerprint_pools(
        values["customer_uri"], values["customer_columns"], values["test_uri"], values["general_pools"]
    )
    measured, _ = fingerprint_benchmarks(values["benchmarks"])
    named = [{"name": name, "uri": item["uri"]} for name, item in measured.items() if item.get("uri")]
    return Settings(
        base_model=fingerprint_model(values["base_model"]),
        weights=weights,
        customer_data_percents=[float(values["customer_data_percent"])],
        customer_epochs=float(values["customer_epochs"]),
        max_steps=int(values["max_steps"]),
        global_batch_size=int(values["global_batch_size"]),
        max_length=int(values["max_length"]),
        method=values["method"],
        learning_rate=float(values["learning_rate"]),
        lora_rank=int(values["lora_rank"]),
        seed=int(values["seed"]),
        num_nodes=values["num_nodes"],
        gpus_per_node=values["gpus_per_node"],
        data_memory=values.get("data_memory", ""),
        sources=[*customer, *general, *named],
        artifacts=artifacts,
        namespace=namespace,
        storage=values["storage"],
        tracking=values["tracking"],
    )
