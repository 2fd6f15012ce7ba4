"""The command `pools`: the catalogue of open instruction sets, one of them, and its import."""

import argparse
import json
import textwrap

from mixtune.commands.arguments import Commands
from mixtune.errors import ConfigError
from mixtune.open_pools.catalogue import CATEGORIES, PoolSource, find_pool, pool_argument, read_catalogue, spdx
from mixtune.open_pools.import_files import import_files
from mixtune.report import pages


def add_commands(commands: Commands) -> None:
    """Add `pools` to the command line."""
    pools = commands.add_parser("pools", help="list open instruction sets that may be general pools; show or fetch one")
    pools.add_argument("name", nargs="?", default="", help="of one of them: what it is, and its general_pools entry")
    pools.add_argument("--catalogue", default="", metavar="FILE", help="another catalogue, local or s3://")
    pools.add_argument("--out", default="", metavar="FOLDER", help="import it there, local or s3://")
    pools.add_argument("--mirror", default="", metavar="FOLDER", help="a copy of its files, where there is no hub")
    pools.add_argument("--revision", default="", metavar="COMMIT", help="another than the catalogue's")
    pools.add_argument("--allow", action="append", default=[], metavar="LICENCE", help="leave any other out (SPDX)")
    pools.set_defaults(command=_pools)


def _pools(options: argparse.Namespace) -> int:
    idle = ("mirror", "allow") if options.name else ("out", "mirror", "revision")
    for option in idle if not (options.name and options.out) else ():
        if getattr(options, option):
            raise ConfigError(f"--{option} has no part here; an import takes the name of a set, and --out FOLDER")
    if not options.name:
        allowed = {spdx(licence, "--allow") for licence in options.allow}
        entries = read_catalogue(options.catalogue).items()
        print(_table({name: pool for name, pool in entries if not allowed or pool.licence in allowed}))
        return 0
    pool = find_pool(options.name, options.catalogue, {"revision": options.revision})
    if options.out:
        import_files(pool, options.out, options.allow, options.mirror)
    else:
        print(_shown(pool))
    print("\nentry of general_pools; weights of all entries sum to 100:")
    print(json.dumps(pool_argument(pool, options.out or f"pools/{pool.name}"), indent=1))
    return 0


def _table(entries: dict[str, PoolSource]) -> str:
    rows = [["name", "category", "licence", "records"]]
    rows += [[pool.name, pool.category, pool.licence, f"{pool.records:,}"] for pool in entries.values()]
    none = sorted(set(CATEGORIES) - {pool.category for pool in entries.values()})
    footer = f"\n\nof Nova's categories, without an entry: {', '.join(none)}" if none else ""
    return pages.text_table(rows) + footer


def _shown(pool: PoolSource) -> str:
    facts = {
        "source": f"{pool.source}, revision {pool.revision or 'none: give --revision'}",
        "files": ", ".join(pool.files),
        "licence": f"{pool.licence} {pool.licence_url}",
        "attribution": pool.attribution,
        "records": f"about {pool.records:,}",
        "good for": pool.good_for,
        "mind": pool.mind,
    }
    lines = [f"{pool.name} ({pool.category})"]
    for key, text in facts.items():
        lines += textwrap.wrap(text, 100, initial_indent=f"  {key:<12}", subsequent_indent=" " * 14)
    return "\n".join(lines)
