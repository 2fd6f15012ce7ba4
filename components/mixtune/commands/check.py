"""The command `preflight`: every check of a run, here, before anything is submitted."""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from mixtune import storage
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact
from mixtune.commands.argument_places import Arguments, check_places
from mixtune.commands.arguments import Commands, add_pipeline_arguments, with_defaults
from mixtune.commands.check_files import check_axes, check_records, check_rules
from mixtune.commands.local.task_environment import set_task_environment
from mixtune.commands.local.work_dir import read_run
from mixtune.errors import ConfigError, DataError
from mixtune.preflight.checks import check_settings, run_preflight
from mixtune.preflight.fingerprint import (
    fingerprint_benchmarks,
    fingerprint_model,
    fingerprint_options,
    fingerprint_pools,
    fingerprint_sanitize,
    hand_on_chat,
    read_pools,
)
from mixtune.preflight.mixed_checks import Mixed, run_mixed_preflight
from mixtune.preflight.run_settings import RunSettings, valid
from mixtune.settings.find_mix import read_find_settings
from mixtune.settings.from_dict import Options, from_dict
from mixtune.settings.sanitize import SourceSettings
from mixtune.train.entry import check_adapter

EVALUATIONS = {
    "evaluate_only": 2,
    "finetune": 2,
    "compare_models": 2,
    "mix_grid": 1,
    "find_mix": 3,
    "lora_then_sft": 4,
    "restore": 3,
}
"""Tasks `evaluate` of the pipelines: of a grid, apart from its points; of a search, from its short trainings."""
STOPPED_EARLY = ("find_mix", "lora_then_sft")
"""Pipelines that may need fewer."""


def add_commands(commands: Commands) -> None:
    """Add `preflight` to the command line."""
    preflight = commands.add_parser("preflight", help="check a run before it is submitted")
    add_pipeline_arguments(preflight, runs=True)
    preflight.add_argument("--pipeline-root", default="", help="where artifacts will go; it is tried out")
    preflight.add_argument("--shards", default="", metavar="MANIFEST", help="of mix_shard: look at the mixed data too")
    preflight.add_argument("--namespace", default="", help="of the run on the cluster; else the kubeconfig's")
    preflight.add_argument("--report", default="", help="the page (default: preflight.html in the work folder)")
    preflight.set_defaults(command=_preflight)


def _preflight(options: argparse.Namespace) -> int:
    pipeline, arguments = read_run(options)
    check_places(arguments)
    arguments = with_defaults(pipeline, arguments)
    if "base_model" not in arguments or "customer_uri" not in arguments:
        raise ConfigError(f"{pipeline.stem} is no whole run: preflight looks at pipelines; `mixtune list` shows them")
    set_task_environment(arguments["base_model"])  # before torch is there: the speed of the tasks is measured

    from mixtune.evaluate.benchmark_checks import BenchmarkPlans, check_benchmarks, check_engine
    from mixtune.preflight.evaluation_time import check_time

    mixed = Mixed(manifest=read_artifact(ShardsManifest, options.shards)) if options.shards else None
    storage.configure_storage(arguments["storage"])
    benchmarks, limits = fingerprint_benchmarks(arguments["benchmarks"])
    run = fingerprint_run(arguments, benchmarks)
    run = replace(run, limits=limits, artifacts=options.pipeline_root, namespace=options.namespace)
    trains = "training" not in run.left_out and not arguments.get("model_uri")
    training = valid(run.training) if trains else None
    plans = BenchmarkPlans(benchmarks=benchmarks, base_model=run.base_model, options=run.evaluate_options)
    further = {
        "adapter": partial(check_adapter, run.base_model, training),
        "records": partial(check_records, arguments),
        "rules": partial(check_rules, run.sanitize_options, run.asks_cluster),
        "evaluation": partial(check_engine, run.base_model, run.evaluate_options, training, run.asks_cluster),
        "axes": partial(check_axes, arguments),
        "benchmarks": partial(check_benchmarks, plans, limits),
        "evaluation time": partial(check_time, run, plans, count_evaluations(pipeline.stem, arguments)),
    }
    options.report = options.report or f"{options.work_dir}/preflight.html"
    Path(options.report).parent.mkdir(parents=True, exist_ok=True)
    try:
        outcome = run_preflight(run, options.report, further)
        print(f"preflight: {outcome}; the page is {options.report}")
        if mixed:
            _check_mixed(mixed, run, options.report)
    except (ConfigError, DataError) as error:
        print(f"mixtune: {error}", file=sys.stderr)
        return 1
    return 0


def check_options(pipeline: Path, arguments: Arguments) -> None:
    """Construct the settings of a shipped pipeline's tasks from its arguments, before any task begins.

    Raises:
        ConfigError: Some cannot be; all of those are named.
    """
    arguments = with_defaults(pipeline, arguments)
    if "general_pools" in arguments:
        read_pools(arguments["general_pools"])
    check_settings(RunSettings.from_arguments({"base_model": "", **arguments}))
    if problems := [text for outcome, text in check_axes(arguments) if outcome == "fail"]:
        raise ConfigError("\n".join(problems))


def count_evaluations(pipeline: str, arguments: Arguments) -> str:
    """Return how many models a shipped pipeline evaluates; empty for any other."""
    points = len(arguments.get("customer_data_percents") or ())
    count = EVALUATIONS.get(pipeline, 0) + (points if pipeline == "mix_grid" else 0)
    if not count:
        return ""
    text = f"{count} models{' at most' if pipeline in STOPPED_EARLY else ''}"
    if "find_options" not in arguments:
        return text
    find = read_find_settings(arguments["find_options"])
    items = f", on at most {find.proxy_items} items an axis" if find.proxy_items else ""
    return f"{text}, and {len(find.proxies)} short trainings{items}"


def fingerprint_run(arguments: Arguments, benchmarks: Mapping[str, Options]) -> RunSettings:
    """Return a run's settings with the digests of everything that it reads."""
    customer, general, _ = fingerprint_pools(
        arguments["customer_uri"], arguments["customer_columns"], arguments["test_uri"], arguments["general_pools"]
    )
    measured = [{"name": name, "uri": item["uri"]} for name, item in benchmarks.items() if item.get("uri")]
    mix = fingerprint_options(arguments.get("mix_options", {}), arguments.get("model_uri", ""))
    return replace(
        RunSettings.from_arguments(arguments),
        base_model=fingerprint_model(arguments["base_model"]),
        mix_options=mix,
        sanitize_options=hand_on_chat(mix, fingerprint_sanitize(arguments.get("sanitize_options", {}))),
        evaluate_options=hand_on_chat(mix, arguments.get("evaluate_options", {})),
        sources=[from_dict(SourceSettings, source, "sources") for source in (*customer, *general)],
        measured=[from_dict(SourceSettings, source, "benchmarks") for source in measured],
    )


def _check_mixed(mixed: Mixed, run: RunSettings, report: str) -> None:
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
