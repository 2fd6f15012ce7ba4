"""Check a run's files before anything runs: the first records, and whether every axis has items.

Records are read by the very code of `sanitize`; sets of the hub are not looked at. Benchmarks: `preflight`.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.commands.argument_places import Arguments
from mixtune.errors import ConfigError, DataError, MixtuneError
from mixtune.preflight.fingerprint import HOLDOUT_RECORDS
from mixtune.sanitize.clean import UNUSABLE
from mixtune.sanitize.dedup.minhash_daft import check_near_engine
from mixtune.sanitize.reading.readers import is_readable, read_rows, source_files, split_of
from mixtune.sanitize.reading.row import Row
from mixtune.sanitize.reading.schemas import Schema, find_schema
from mixtune.sanitize.rules.consent import read_consent
from mixtune.sanitize.run import personal_rules
from mixtune.settings.benchmark_entries import read_benchmark_entries
from mixtune.settings.from_dict import Options, suggest
from mixtune.settings.sanitize import read_sanitize_settings

FIRST_ROWS = 20
"""Of every file of a source, of which one has to be a record."""
GENERAL_NLL = "general_nll"
MAPPED = "columns: "
"""How an error of a column mapping begins."""


class _Source(NamedTuple):
    """Where records come from."""

    uri: str
    columns: dict[str, str]
    split: str


def check_files(arguments: Arguments) -> None:
    """Check what the files hold; a ConfigError names all that cannot be used."""
    if problems := [text for outcome, text in check_records(arguments) if outcome == "fail"]:
        raise ConfigError("; ".join(problems))


def check_records(arguments: Arguments) -> Iterator[tuple[str, str]]:
    """Read the first rows of every source by its column mapping."""
    encoding = (arguments.get("sanitize_options") or {}).get("text", {}).get("encoding", "")
    for name, mapping, source in _list_sources(arguments):
        try:
            is_remote = not source.uri or source.uri.startswith("hf://")
            files = [] if is_remote else source_files(source.uri, source.split)
            first_rows = {file: list(islice(read_rows(file, encoding=encoding), FIRST_ROWS)) for file in files}
            for file, rows in first_rows.items():
                outcome, text = _check_rows(rows, source.columns)
                if not rows and any(first_rows.values()):
                    outcome, text = "warn", f"{text}; it is left out"
                elif outcome == "fail" and len(files) > 1:
                    text += "; to leave this file out, give a pattern for the folder, such as FOLDER/*.csv"
                yield outcome, f"{mapping if text.startswith(MAPPED) else name} of {file}: {text.removeprefix(MAPPED)}"
            if name == "customer_uri" and not arguments.get("test_uri") and not is_remote:
                yield from _name_test_files(source.uri, files)
        except MixtuneError as error:
            yield "fail", f"{name}: {error}"


def _name_test_files(uri: str, files: list[str]) -> Iterator[tuple[str, str]]:
    """Name the test files of a folder, which are no training records and are tested on only as `test_uri`."""
    folder = storage.split_pattern(uri)[0].rstrip("/")
    places = [f"{folder}/{entry.path}" for entry in storage.list_files(uri) if is_readable(entry.path)]
    if tests := [place for place in places if place not in files and split_of(place.removeprefix(folder)) == "test"]:
        more = f" and {len(tests) - 1} more" if len(tests) > 1 else ""
        way = "to test on it give test_uri=" + (uri if len(tests) > 1 else tests[0])
        yield "warn", f"customer_uri: {tests[0]}{more} is left out, test records by its name; {way}"


def check_rules(options: Options, elsewhere: bool) -> Iterator[tuple[str, str]]:
    """Make the rules of `sanitize` that need a library, a model, a key or a list; `elsewhere`: it runs in an image."""
    settings = read_sanitize_settings({name: value for name, value in options.items() if name != "work_uri"})
    try:
        personal_rules(settings)
        read_consent(settings.consent)
        check_near_engine(settings.dedup.near_engine)
        yield "pass", "what the rules of sanitize need is here"
    except MixtuneError as error:
        yield ("warn", f"{error}; the data image was not looked at") if elsewhere else ("fail", str(error))


def _list_sources(arguments: Arguments) -> Iterator[tuple[str, str, _Source]]:
    """Yield every source with the parameters that name its place and its columns."""
    columns = arguments.get("customer_columns") or {}
    for name, split in (("customer_uri", "train"), ("test_uri", "test")):
        uri = storage.plain_uri(arguments.get(name) or "")
        yield name, "customer_columns", _Source(uri, columns, split)
    for place, pool in enumerate(arguments.get("general_pools") or []):
        name = f"general_pools[{place}]"
        uri = storage.plain_uri(pool.get("uri") or "")
        yield name, f"{name}.columns", _Source(uri, pool.get("columns") or {}, "")


def _check_rows(rows: list[Row], columns: dict[str, str]) -> tuple[str, str]:
    schema, problems = None, Counter[str]()
    if not rows:
        return "fail", "no rows in it"
    for row in rows:
        try:
            schema = _read_row(row, schema, columns)
        except ConfigError as error:
            return "fail", str(error)
        except UNUSABLE as error:
            problems[f"{error} (line {row.line})"] += 1
    count = problems.total()
    if not count:
        return "pass", f"its first {len(rows)} rows read well"
    some = "" if count == len(rows) else f"{count} of its first {len(rows)} rows cannot"
    text = f"{some or f'none of its first {count} rows can'} be used: {next(iter(problems))}"
    return "warn" if some else "fail", text


def _read_row(row: Row, schema: Schema | None, columns: dict[str, str]) -> Schema:
    """Read a row as a record and return the schema by which; one of `UNUSABLE` says why it is none."""
    if row.problem:
        raise DataError(row.problem)
    schema = schema or find_schema(row.value, columns)
    schema.record(row.value, "", row.line, Counter())
    return schema


def check_axes(arguments: Arguments) -> Iterator[tuple[str, str]]:
    """Look for axes that have a limit and no items, and for one that tells of forgetting."""
    if "evaluate_options" not in arguments:
        return
    entries = read_benchmark_entries(arguments.get("benchmarks") or {})
    splits = (arguments.get("sanitize_options") or {}).get("splits")
    splits = splits if isinstance(splits, dict) else {}  # whatever else it is, the check of the options says
    named = [name for name in entries if name not in (CUSTOMER_AXIS, GENERAL_NLL)]
    if splits.get("holdout_records", HOLDOUT_RECORDS) == 0 and (GENERAL_NLL in entries or not named):
        more = "" if named else ", and no benchmark is named: nothing would tell of forgetting"
        yield "fail", f"sanitize_options.splits.holdout_records is 0, so {GENERAL_NLL} has no items{more}"
    if CUSTOMER_AXIS in entries and splits.get("test_ratio") == 0 and not arguments.get("test_uri"):
        yield (
            "fail",
            f"{CUSTOMER_AXIS} asks for a gain, but splits.test_ratio is 0 and there is no test_uri to show one",
        )
    for name in named:
        if not entries[name].uri and not entries[name].options:
            yield "fail", f"benchmarks.{name} has no uri, so nothing would be measured; give its file or folder"
    axes = list(dict.fromkeys((CUSTOMER_AXIS, GENERAL_NLL, *entries)))
    yield "pass", f"measured, where there are items: {', '.join(axes)}"
    for name in (arguments["evaluate_options"] or {}).get("axis_limits") or {}:
        if name not in axes:
            yield "fail", f"axis_limits: no axis {name!r}; {suggest(name, axes)}"
