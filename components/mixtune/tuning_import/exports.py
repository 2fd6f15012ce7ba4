"""Find the job in a file that a service's answer was saved to; a file of records is one, too."""

import ast
import json
import re
from collections import Counter
from itertools import islice
from pathlib import PurePosixPath

import yaml

from mixtune import storage
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.clean import UNUSABLE
from mixtune.sanitize.reading.readers import is_readable, read_rows
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.tuning_import.services import TuningJob, find_answer, look_up, read_job, read_table

EXPORTS = (".json", ".yaml", ".yml", ".txt", "")
LINES = (".jsonl", ".ndjson")
FIRST_ROWS = 20
"""Of a file, of which one has to be a record."""
MAX_BYTES = 16 * 2**20
"""A larger file holds records, no job."""
_PRINTED = re.compile(r"[\[({\s]*(?:'|[\w.]+(?:\[[\w.]+\])?[(=])")
"""How what Python prints of an answer begins: `FineTuningJob(id=...)`, `{'jobArn': ...}`, `name='...' ...`."""


def read_export(uri: str, job: str = "") -> TuningJob:
    """Read a job that a service exported, or take a file of training records as one.

    `job` is its id or name, where the file holds several.

    Raises:
        ConfigError: It is nobody's export that is known, it holds several jobs and none is named, or a training of
            another kind.
        DataError: It cannot be read.
    """
    records = TuningJob(service="a file of records", name=uri, base_model="", training=uri)
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix not in EXPORTS + LINES or storage.file_size(uri) > MAX_BYTES:
        if job:
            raise ConfigError(f"{uri}: a file of records, in which there is no job {job!r}; leave --job out")
        return records
    documents = _list_rows(uri) if suffix in LINES else _list_documents(uri)
    jobs = [item for item in map(read_job, documents) if item]
    if not documents and suffix in EXPORTS:
        raise DataError(f"{uri}: it holds nothing, no job and no record; docs/moving.md says what to export")
    if not jobs and not job and (suffix in LINES or (is_readable(uri) and not _find_fault(uri))):
        return records
    chosen = [item for item in jobs if job in ("", item.name, item.name.rpartition("/")[2])]
    if not chosen:
        raise ConfigError(f"{uri}: {_explain(uri, job, bool(jobs), documents)}")
    if len(chosen) > 1:
        raise ConfigError(f"{uri}: {len(chosen)} jobs; name one by --job: {', '.join(item.name for item in chosen)}")
    if chosen[0].refusal:
        raise ConfigError(chosen[0].refusal)
    return chosen[0]


def _explain(uri: str, job: str, has_jobs: bool, documents: list[object]) -> str:
    """Return why no job was found in a file, and the way out."""
    if answer := "" if has_jobs else next(filter(None, map(find_answer, documents)), ""):
        return answer
    way = "docs/moving.md says what to export, and --training takes records"
    which = f"no job {job!r}" if job else f"no job of {', '.join(item.name for item in read_table().services)}"
    fault = "" if has_jobs or job or not is_readable(uri) else _find_fault(uri)
    return f"{which} in it{fault and f', and no record ({fault})'}; {way}"


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


def _list_rows(uri: str) -> list[object]:
    """Return the rows of a file of JSON lines whose first is a job; none: it holds records."""
    first = next(iter(read_rows(uri)), None)
    return [row.value for row in read_rows(uri)] if first and read_job(first.value) else []


def _list_documents(uri: str) -> list[object]:
    """Return what a JSON or YAML file holds, or the entries of a list in it."""
    content = _parse(uri, storage.read_bytes(uri))
    if isinstance(content, dict):
        lists = (look_up(content, name) for name in read_table().lists)
        content = next((entries for entries in lists if isinstance(entries, list)), [content])
    return content if isinstance(content, list) else []


def _parse(uri: str, data: bytes) -> object:
    """Return what JSON, YAML, or what Python prints of an object says.

    Raises:
        DataError: It is none of them.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        text = data.decode(errors="replace").removeprefix("\ufeff").strip()
    if is_printed := _PRINTED.match(text):
        try:
            return _plain(ast.parse(text, mode="eval").body)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            pass
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        content, fault = None, str(error).splitlines()[0]
    else:
        fault = ""
    if is_printed and not isinstance(content, dict | list):
        raise DataError(
            f"{uri}: what Python prints of an object; save it as JSON: answer.model_dump_json(), or "
            "json.dumps(answer, default=str)"
        )
    if fault:
        raise DataError(f"{uri}: neither JSON nor YAML ({fault})")
    return content


def _plain(node: ast.expr) -> object:
    """Return the values that a printed object has, without running anything: `Job(id='a')` is a dictionary."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Dict):
        return {str(_plain(key)): _plain(value) for key, value in zip(node.keys, node.values, strict=True) if key}
    if isinstance(node, ast.List | ast.Tuple):
        return [_plain(item) for item in node.elts]
    if isinstance(node, ast.Call) and node.keywords:
        return {keyword.arg: _plain(keyword.value) for keyword in node.keywords if keyword.arg}
    return ast.unparse(node)
