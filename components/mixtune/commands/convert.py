"""The commands that hand over to others: `export` for pools, `mix` for a mix, `dial` for a model turned down."""

import argparse
import tempfile
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.pools import SPLITS, PoolsManifest, read_pools
from mixtune.commands.arguments import Commands, add_pipeline_arguments, add_work_dir, with_defaults
from mixtune.commands.local.use_model import add_model, check_new, find_model, place_model, silence_libraries
from mixtune.commands.local.work_dir import WorkDir, read_run
from mixtune.errors import ConfigError
from mixtune.mixes import mix_of, write_mix
from mixtune.open_pools.export import FORMATS, export_pools
from mixtune.report.next_steps import command_of


def add_commands(commands: Commands) -> None:
    """Add `export`, `mix` and `dial` to the command line."""
    export = commands.add_parser("export", help="write clean records for those who train elsewhere")
    export.add_argument("pools", help="a run here, or what sanitize wrote: its `pools` file, local or s3://")
    add_work_dir(export)
    export.add_argument("--format", choices=tuple(FORMATS), required=True)
    export.add_argument("--out", required=True, metavar="FOLDER", help="local or s3://")
    export.add_argument("--split", choices=SPLITS, default="train", help="(default: %(default)s)")
    export.add_argument("--pool", action="append", default=[], metavar="NAME", help="one of several; else all")
    export.set_defaults(command=_export)
    mix = commands.add_parser("mix", help="print the mix of a run as a Nova recipe's data_mixing")
    add_pipeline_arguments(mix, runs=True)
    mix.set_defaults(command=_mix)
    dial = commands.add_parser("dial", help="turn a tuned model down towards its base, without training")
    add_model(dial)
    dial.add_argument("--strength", type=float, required=True, help="between 0 (the base) and 1 (as trained)")
    dial.add_argument("--out", required=True, metavar="FOLDER", help="local or s3://")
    dial.set_defaults(command=_dial)


def _export(options: argparse.Namespace) -> int:
    places = WorkDir.at(options.work_dir).pools(options.pools)
    if not places and "/" not in options.pools and not storage.exists(options.pools):
        raise ConfigError(f"{options.pools}: no run in {options.work_dir} and no file; `mixtune runs` lists the runs")
    if not places:
        _write(options, read_pools(options.pools), options.out, options.pool)
        return 0
    cleaned = {storage.join(options.out, label): read_pools(place) for label, place in places.items()}
    there = {
        folder: [pool.name for pool in pools.pools if options.split in pool.splits] for folder, pools in cleaned.items()
    }
    exportable = {name for names in there.values() for name in names}
    if not exportable.issuperset(options.pool) or not exportable:
        lost = ", ".join(sorted({*options.pool} - exportable)) or "any pool"
        raise ConfigError(f"{options.pools} has no {options.split} records of {lost}; there are {sorted(exportable)}")
    for folder, names in there.items():
        if chosen := [name for name in names if name in (options.pool or names)]:
            _write(options, cleaned[folder], folder, chosen)
    return 0


def _write(options: argparse.Namespace, pools: PoolsManifest, folder: str, names: list[str]) -> None:
    exported = export_pools(pools, options.format, folder, options.split, tuple(names))
    for name, count in exported["files"].items():
        print(f"{storage.join(folder, name)}: {count} records")
    for reason, count in sorted(exported["refused"].items()):
        print(f"not exported: {count} records, since {reason}")


def _mix(options: argparse.Namespace) -> int:
    print(write_mix(mix_of(with_defaults(*read_run(options)))), end="")
    return 0


def _dial(options: argparse.Namespace) -> int:
    from mixtune.interpolation import interpolate_model

    silence_libraries()
    check_new(options.out)
    model = find_model(options)
    tuned, base = models.fetch_model(model.model_uri), models.fetch_model(model.base_model)
    with tempfile.TemporaryDirectory() as scratch:
        interpolated = interpolate_model(tuned, base, options.strength, Path(scratch) / "model")
        place_model(interpolated, options.out)
    print(f"{options.model} at {options.strength:g}: {options.out}")
    if model.run_id:
        again = ("--like", model.run_id, f"model_uri={options.out}")
        print(f"next: Compare it once more: {command_of('mixtune', 'run', 'evaluate_only', *again)}")
    else:
        print(f"next: {command_of('mixtune', 'chat', options.out, '--base-model', model.base_model)}")
    return 0
