"""Find the job in a file that a service's answer was saved to; a file of records is one, too."""

from collections import Counter
from itertools import islice
from pathlib import PurePosixPath

import yaml

from mixtune import storage
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.clean import UNUSABLE
from mixtune.sanitize.reading.readers import is_readable, read_rows
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.tuning_import.services import TuningJob, look_up, read_job, read_services

LISTS = ("data", "tuningJobs", "finetuned_models", "jobs", "runs")
"""Where an answer that lists jobs holds them."""
EXPORTS = (".json", ".yaml", ".yml", "")
FIRST_ROWS = 20
"""Of a file, of which one has to be a record."""
MAX_BYTES = 16 * 2**20
"""A larger file holds records, no job."""


def read_export(uri: str, job: str = "") -> TuningJob:
    """Read a job that a service exported, or take a file of training records as one.

    `job` is its id or name, where the file holds several.

    Raises:
        ConfigError: It is nobody's export that is known, or it holds several jobs and none is named.
        DataError: It cannot be read.
    """
    records = TuningJob(service="a file of records", name=uri, base_model="", training=uri)
    if PurePosixPath(uri).suffix not in EXPORTS or storage.file_size(uri) > MAX_BYTES:
        return records
    jobs = [item for item in map(read_job, _list_documents(uri)) if item]
    chosen = [item for item in jobs if job in ("", item.name, item.name.rpartition("/")[2])]
    fault = "" if jobs or job or not is_readable(uri) else _find_fault(uri)
    if not jobs and not job and is_readable(uri) and not fault:
        return records
    if not chosen:
        which = f"no job {job!r}" if job else f"no job of {', '.join(item.name for item in read_services())}"
        which += f" in it, and no record ({fault})" if fault else " in it"
        raise ConfigError(f"{uri}: {which}; docs/moving.md says what to export, and --training takes records")
    if len(chosen) > 1:
        raise ConfigError(f"{uri}: {len(chosen)} jobs; name one by --job: {', '.join(item.name for item in chosen)}")
    return chosen[0]


def _find_fault(uri: str) -> str:
    """Return why none of a file's first rows is a record; empty: one is, or there is no row."""
    fault = ""
    for row in islice(read_rows(uri), FIRST_ROWS):
        try:
            if not row.problem:
                find_schema(row.value, {}).record(row.value, "", row.line, Counter())
                return ""
        except (ConfigError, *UNUSABLE) as error:
            fault = fault or str(error)
    return fault


def _list_documents(uri: str) -> list[object]:
    """Return what a JSON or YAML file holds, or the entries of a list in it."""
    try:
        content = yaml.safe_load(storage.read_bytes(uri))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{uri}: neither JSON nor YAML ({str(error).splitlines()[0]})") from error
    if isinstance(content, dict):
        lists = (look_up(content, name) for name in LISTS)
        content = next((entries for entries in lists if isinstance(entries, list)), [content])
    return content if isinstance(content, list) else []
