"""The command `import-tuning`: a job of a tuning service as arguments of `finetune`."""

import argparse
import json
from pathlib import Path
from typing import TypeVar

from mixtune import storage
from mixtune.commands.arguments import Commands
from mixtune.errors import ConfigError, reason
from mixtune.report.next_steps import command_of
from mixtune.tuning_import.exports import read_export
from mixtune.tuning_import.import_job import Additions, ImportedTuning, import_job

COLUMNS = ("setting", "value", "becomes", "note")
T = TypeVar("T")
SHOWN = 60
"""Characters of a cell at most, where a value is cut."""


def add_commands(commands: Commands) -> None:
    """Add `import-tuning` to the command line."""
    command = commands.add_parser(
        "import-tuning", help="turn a job of a tuning service (OpenAI, Vertex AI, Cohere...) into finetune's arguments"
    )
    command.add_argument("export", help="the job as its service answers it (JSON or YAML), or a file of records")
    command.add_argument("--job", default="", metavar="ID", help="which, where the file holds several")
    command.add_argument("--files", default="", metavar="FOLDER", help="with the files that the export names")
    command.add_argument("--training", default="", metavar="FILE", help="the records, in place of the export's")
    command.add_argument("--validation", default="", metavar="FILE", help="the test set, in place of the export's")
    command.add_argument("--base-model", default="", help="the open model to tune in its place")
    command.add_argument("--general-pools", default="", metavar="JSON", help="as finetune takes them, or @file.json")
    command.add_argument("--benchmarks", default="", metavar="JSON", help="the same")
    command.add_argument("--out", default="finetune.json", metavar="FILE", help="(default: %(default)s)")
    command.set_defaults(command=_import_tuning)


def _import_tuning(options: argparse.Namespace) -> int:
    if options.files and not storage.exists(options.files):
        raise ConfigError(f"--files {options.files}: there is no such folder; name the one with the downloaded files")
    additions = Additions(
        files=options.files,
        training=options.training,
        validation=options.validation,
        base_model=options.base_model,
        general_pools=_read_json("--general-pools", options.general_pools, list),
        benchmarks=_read_json("--benchmarks", options.benchmarks, dict),
    )
    imported = import_job(read_export(options.export, options.job), additions)
    out, text = Path(options.out), json.dumps(imported.arguments, indent=1) + "\n"
    if out.exists() and out.read_bytes() != text.encode():
        raise ConfigError(f"--out {out}: there is something already; name a file that is not there")
    out.write_text(text, encoding="utf-8")
    print(format_import(imported))
    print(f"\nwritten: {options.out}")
    for text in imported.missing:
        print(f"still to give: {text}")
    records = ["--customer-records", str(imported.num_records)] if imported.num_records else []
    for word, command, more in (("next", "plan", records), ("then", "preflight", [])):
        print(f"{word}: {command_of('mixtune', command, 'finetune', '--arguments', options.out, *more)}")
    return 0


def format_import(imported: ImportedTuning) -> str:
    """Return a text table of every setting of the job and what it was mapped to."""
    job = imported.job
    rows = [COLUMNS, *((line.setting, _cut(line.value), line.becomes or "-", line.note) for line in imported.lines)]
    widths = [min(SHOWN, max(len(row[place]) for row in rows)) for place in range(3)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row[:3], widths, strict=True)), row[3]]).rstrip()
        for row in rows
    ]
    count = f", {imported.num_records:,} records" if imported.num_records else ""
    return "\n".join([f"{job.service}: {job.name}{count}", "", *lines])


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _read_json(option: str, text: str, kind: type[T]) -> T:
    if not text:
        return kind()
    try:
        value = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
    except FileNotFoundError as error:
        raise ConfigError(f"{option} {text}: no such file; name one, or write the JSON itself") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{option} {text}: cannot be read as JSON ({reason(error)})") from error
    if not isinstance(value, kind):
        raise ConfigError(f"{option}: a JSON {'list' if kind is list else 'object'} is needed")
    return value
