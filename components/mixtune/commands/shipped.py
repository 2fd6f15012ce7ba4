"""The command `list`, and the parameters of a pipeline or component as its YAML has them."""

import argparse
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from mixtune.commands.arguments import KINDS, Commands, package_files, read_definitions
from mixtune.report.pages import text_table

WIDTH = 110
HEADS = ("pipelines, whole runs:", "components, one step each:")


def add_commands(commands: Commands) -> None:
    """Add `list` to the command line."""
    listing = commands.add_parser("list", help="list the pipelines and components that mixtune ships")
    listing.set_defaults(command=_list)


def _list(_options: argparse.Namespace) -> int:
    for head, files in zip(HEADS, (package_files("compiled"), package_files("")), strict=True):
        print(head)
        rows = [[f"  {file.stem}", _first_clause(_description(file), WIDTH - 24)] for file in files]
        print(text_table(rows) + "\n")
    print("mixtune run NAME --help shows the parameters of one")
    return 0


def _first_clause(text: str, width: int) -> str:
    """Return as many whole clauses of a text's first sentence as fit a width."""
    first = text.partition(". ")[0].rstrip(".")
    wholes = (re.match(rf"(.{{1,{width}}})(?:[{ends}] |$)", first) for ends in (";:", ",;:"))
    return next((whole[1] for whole in wholes if whole), textwrap.shorten(first, width, placeholder=" ..."))


def describe(path: Path) -> str:
    """Return what a pipeline or component does, and its parameters with types and defaults, as text."""
    definitions = read_definitions(path)
    lines = [f"mixtune run {path.stem} key=value ...", "", _description(path), ""]
    for name, item in sorted(definitions.items(), key=lambda pair: bool(pair[1].get("isOptional"))):
        default = f"default {json.dumps(_default(item))}" if item.get("isOptional") else "required"
        lines.append(f"  {name}  ({KINDS[item['parameterType']]}; {default})")
        text = " ".join(str(item.get("description", "")).split())
        lines += textwrap.wrap(text, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    lines += ["", "Lists and objects are JSON, or @file.json; one entry of an object: train_options.lora_rank=8"]
    return "\n".join(lines)


def _default(item: Mapping[str, object]) -> object:
    value = item.get("defaultValue")
    return int(value) if item["parameterType"] == "NUMBER_INTEGER" and isinstance(value, float) else value


def _description(path: Path) -> str:
    """Return the description at the head of a YAML file, as one line."""
    words: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# Description:"):
            words = line.removeprefix("# Description:").split()
        elif line.startswith("#  ") and words:
            words += line.removeprefix("#").split()
        elif words:
            break
    return " ".join(words)
