"""The commands that hand over to others: `export` for pools, `mix` for a mix, `dial` for a model turned down."""

import argparse
import tempfile
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.pools import SPLITS, read_pools
from mixtune.commands.arguments import Commands, add_pipeline_arguments, find_pipeline, read_options, with_defaults
from mixtune.commands.local.use_model import add_model, find_model, silence_libraries
from mixtune.errors import ConfigError
from mixtune.mixes import mix_of, write_mix
from mixtune.open_pools.export import FORMATS, export_pools


def add_commands(commands: Commands) -> None:
    """Add `export`, `mix` and `dial` to the command line."""
    export = commands.add_parser("export", help="write clean records for those who train elsewhere")
    export.add_argument("pools", help="what sanitize wrote: its `pools` file, local or s3://")
    export.add_argument("--format", choices=tuple(FORMATS), required=True)
    export.add_argument("--out", required=True, metavar="FOLDER", help="local or s3://")
    export.add_argument("--split", choices=SPLITS, default="train", help="(default: %(default)s)")
    export.add_argument("--pool", action="append", default=[], metavar="NAME", help="one of several; else all")
    export.set_defaults(command=_export)
    mix = commands.add_parser("mix", help="print the mix of a run as a Nova recipe's data_mixing")
    add_pipeline_arguments(mix)
    mix.set_defaults(command=_mix)
    dial = commands.add_parser("dial", help="draw a tuned model back towards its base, without training")
    add_model(dial)
    dial.add_argument("--strength", type=float, required=True, help="between 0 (the base) and 1 (as trained)")
    dial.add_argument("--out", required=True, metavar="FOLDER", help="local or s3://")
    dial.set_defaults(command=_dial)


def _export(options: argparse.Namespace) -> int:
    exported = export_pools(read_pools(options.pools), options.format, options.out, options.split, tuple(options.pool))
    for name, count in exported["files"].items():
        print(f"{storage.join(options.out, name)}: {count} records")
    for reason, count in sorted(exported["refused"].items()):
        print(f"not exported: {count} records, since {reason}")
    return 0


def _mix(options: argparse.Namespace) -> int:
    pipeline = find_pipeline(options.pipeline)
    print(write_mix(mix_of(with_defaults(pipeline, read_options(options, pipeline)))), end="")
    return 0


def _dial(options: argparse.Namespace) -> int:
    from mixtune.interpolation import interpolate_model

    silence_libraries()
    if storage.exists(options.out):
        raise ConfigError(f"--out {options.out}: there is something already; name a folder that is not there")
    model = find_model(options)
    tuned, base = models.fetch_model(model.model_uri), models.fetch_model(model.base_model)
    with tempfile.TemporaryDirectory() as scratch:
        interpolated = interpolate_model(tuned, base, options.strength, Path(scratch) / "model")
        storage.upload(interpolated, options.out)
    print(f"{options.model} at {options.strength:g}: {storage.fingerprint(options.out)}")
    return 0
