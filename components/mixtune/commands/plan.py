"""The command `plan`: what a run will cost, how long it takes and whether it fits."""

import argparse
import json
import math
import sys
from dataclasses import replace
from datetime import UTC, datetime

from mixtune import models, storage
from mixtune.artifacts.model import BaseModel, TrainingFigures, read_model
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact
from mixtune.commands.argument_places import Arguments
from mixtune.commands.arguments import Commands, add_pipeline_arguments, with_defaults
from mixtune.commands.local.work_dir import read_run
from mixtune.errors import ConfigError, StorageError
from mixtune.preflight.cost_plan import Hardware, Plan, Times, Work, make_plan, plan_html, plan_text
from mixtune.preflight.places import count_records
from mixtune.preflight.run_settings import RunSettings
from mixtune.preflight.shape import Shape
from mixtune.prices import Instance, read_prices
from mixtune.report.pages import write_text
from mixtune.settings.find_mix import FindSettings, read_find_settings


def add_commands(commands: Commands) -> None:
    """Add `plan` to the command line."""
    plan = commands.add_parser("plan", help="what a run will cost, how long it takes and whether it fits")
    add_pipeline_arguments(plan, runs=True)
    plan.add_argument("--instance", default="p5.48xlarge", help="trains (default: %(default)s)")
    plan.add_argument("--nodes", type=int, help="of it; else the pipeline's num_nodes, or 1")
    plan.add_argument("--evaluate-on", default="", metavar="INSTANCE", help="evaluates; else one of those that train")
    plan.add_argument("--evaluation-hours", type=float, help="both evaluations (default: 1, assumed)")
    plan.add_argument("--shards", default="", metavar="MANIFEST", help="of mix_shard: exact steps and tokens")
    plan.add_argument("--customer-records", type=int, default=0, help="where there are no shards yet")
    plan.add_argument("--tokens-per-record", type=float, default=0.0, help="mean; else half of max_length")
    plan.add_argument(
        "--measured", default="", metavar="MANIFEST", help="model manifest of a validation run on one GPU"
    )
    plan.add_argument(
        "--mfu", type=float, default=0.0, help="share of the peak where nothing is measured; else by method and length"
    )
    plan.add_argument("--grid", default="", metavar="PERCENTS", help="price these mixes too, such as 100,75,50")
    plan.add_argument("--start", default="", metavar="TIME", help="ISO 8601, UTC where no zone is given; else now")
    plan.add_argument("--block-ends", default="", metavar="TIME", help="end of the capacity block")
    plan.add_argument("--deadline", default="", metavar="TIME")
    plan.add_argument("--prices", default="", metavar="FILE", help="a price table in the form of mixtune's prices.toml")
    plan.add_argument("--json", action="store_true", help="print JSON")
    plan.add_argument("--html", default="", metavar="FILE", help="write a page there too")
    plan.set_defaults(command=_plan)


def _plan(options: argparse.Namespace) -> int:
    pipeline, arguments = read_run(options, complete=False)
    arguments = with_defaults(pipeline, arguments)
    if not arguments.get("base_model"):
        raise ConfigError("plan needs base_model=...")
    if "train_options" not in arguments:
        print(f"{pipeline.stem} trains nothing: it costs the machines that it runs on, for as long as it runs")
        return 0
    plan = plan_run(arguments, options)
    print(json.dumps(plan.as_json(), indent=1) if options.json else plan_text(plan))
    if "sft_max_steps" in arguments and not options.json:
        print("the ladder's first rung; a second adapter costs as much, full fine-tuning what sft_max_steps allows")
    if "find_options" in arguments and not options.json:
        print(_describe_search(read_find_settings(arguments["find_options"])))
    if pipeline.stem == "restore" and not options.json:
        print(
            "restore: a step also writes its answers, and the trained model is evaluated too; allow for twice as much"
        )
    if options.html:
        write_text(options.html, plan_html(plan))
    return 1 if not plan.fits or any("ends" in warning for warning in plan.warnings) else 0


def plan_run(arguments: Arguments, options: argparse.Namespace) -> Plan:
    """Return the plan of a run with these arguments; of a grid, its first mix in full and all mixes' trainings."""
    storage.configure_storage(arguments["storage"])
    prices = read_prices(options.prices)
    instance = prices[options.instance]
    measured = _measured(options.measured, instance)
    nodes = RunSettings.from_arguments(arguments).nodes()
    hardware = Hardware(
        instance=instance,
        nodes=nodes.count or 1 if options.nodes is None else options.nodes,
        gpus_per_node=nodes.gpus,
        evaluation=prices[options.evaluate_on or options.instance],
        evaluation_hours=1.0 if options.evaluation_hours is None else options.evaluation_hours,
        evaluation_assumed=options.evaluation_hours is None,
        measured=measured.tokens_per_second_per_gpu if measured else 0.0,
        measured_memory=measured.peak_memory_bytes if measured else 0.0,
        mfu=options.mfu,
    )
    try:
        grid = tuple(float(text) for text in options.grid.split(",") if text)
        grid = grid or tuple(map(float, arguments.get("customer_data_percents") or ()))
    except ValueError as error:
        raise ConfigError(f"--grid {options.grid}: percents with commas between, such as 100,75,50") from error
    times = Times(
        start=_time(options.start) or datetime.now(UTC),
        block_ends=_time(options.block_ends),
        deadline=_time(options.deadline),
    )
    return make_plan(_work(arguments, options), Shape.read(arguments["base_model"]), hardware, prices, times, grid=grid)


def _work(arguments: Arguments, options: argparse.Namespace) -> Work:
    run = RunSettings.from_arguments(arguments)
    mix = run.mix()
    tokens, records = options.tokens_per_record or mix.tokens.max_length / 2, options.customer_records
    if options.shards:
        receipt = read_artifact(ShardsManifest, options.shards).receipt
        mix, records = replace(mix, max_steps=receipt.num_steps), receipt.pools[0].pool_records
        tokens = receipt.num_tokens / (receipt.num_steps * receipt.global_batch_size)
    if not (records or mix.max_steps):
        records = _about_records(str(arguments.get("customer_uri") or ""))
    if "find_options" in arguments:
        # The most that a search may take: a plan that holds for it holds for every search.
        alone = Work(
            mix=replace(mix, customer_data_percent=100.0),
            training=run.training(),
            customer_records=records,
            tokens_per_record=tokens,
        )
        mix = replace(mix, max_steps=math.ceil(read_find_settings(arguments["find_options"]).max_cost * alone.steps))
    row = BaseModel.read(models.fetch_model(run.base_model, weights=False)).architecture
    return Work(
        mix=mix,
        training=run.training(),
        customer_records=records,
        tokens_per_record=tokens,
        layout=(row and (row.gpu_layout or row.layout)) or "packed",
    )


def _describe_search(find: FindSettings) -> str:
    """Return what the steps of the plan are, for a search."""
    return (
        f"find_mix: at most the steps of {find.max_cost:g} trainings on customer records alone "
        f"(find_options.max_cost): {len(find.proxies)} short ones {find.proxy_cost:.2f} of them, then one or two in "
        "full, each as many as 100 / customer percent; seven shares from 100 to 50 % take 9"
    )


def _about_records(customer_uri: str) -> int:
    """Return about how many records a customer's files have, by their lines; 0 where they cannot be counted."""
    try:
        there = bool(customer_uri) and storage.exists(storage.split_pattern(customer_uri)[0])
        records = count_records(customer_uri, storage.list_files(customer_uri)) if there else 0
    except StorageError as error:
        raise ConfigError(f"customer_uri: its records cannot be counted ({error}); give --customer-records") from error
    if records:
        print(f"about {records:,} customer records, a line each; --customer-records says otherwise", file=sys.stderr)
    return records


def _measured(manifest: str, instance: Instance) -> TrainingFigures | None:
    """Return what a validation run measured; None where there was none."""
    if not manifest:
        return None
    figures = read_model(manifest).figures
    if not figures or not figures.tokens_per_second_per_gpu:
        raise ConfigError(f"--measured {manifest}: no throughput in it; give the manifest of a validation run")
    print(f"figures of {manifest} are taken for one {instance.gpu}; they hold if they were measured on one", flush=True)
    return figures


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{text!r} is no time; write it as 2026-12-01T11:30, in UTC") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
