"""The commands that hand over to others: `export` for pools, `mix` for a mix."""

import argparse

from mixtune import storage
from mixtune.arguments import Commands, add_pipeline_arguments, find_pipeline, read_options, with_defaults
from mixtune.mixes import mix_of, write_mix
from mixtune.pools import SPLITS, read_pools
from mixtune.sanitize.exports import FORMATS, export_pools


def add_commands(commands: Commands) -> None:
    """Add `export` and `mix` to the command line."""
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


def _export(options: argparse.Namespace) -> int:
    done = export_pools(read_pools(options.pools), options.format, options.out, options.split, tuple(options.pool))
    for name, count in done["files"].items():
        print(f"{storage.join(options.out, name)}: {count} records")
    for reason, count in sorted(done["refused"].items()):
        print(f"not exported: {count} records, since {reason}")
    return 0


def _mix(options: argparse.Namespace) -> int:
    pipeline = find_pipeline(options.pipeline)
    print(write_mix(mix_of(with_defaults(pipeline, read_options(options, pipeline)))), end="")
    return 0
