"""Sources to pools: clean every part, drop what repeats, hold records back, write pools and a report."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import groupby, starmap
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.pools import PoolsManifest
from mixtune.artifacts.typed_json import write_artifact
from mixtune.chat.template import ChatTemplate
from mixtune.chat.template_files import read_template_file
from mixtune.errors import ConfigError
from mixtune.processes import start_processes
from mixtune.report.outputs import Outputs
from mixtune.report.pool_report import labels_alike, write_report
from mixtune.sanitize.clean import Rules, SourceFile, Tally, check_bad
from mixtune.sanitize.dedup.decisions import decide_records
from mixtune.sanitize.dedup.minhash_daft import check_near_engine
from mixtune.sanitize.dedup.protected import collect_protected, index_held_back
from mixtune.sanitize.parts import Part, Plan, make_part
from mixtune.sanitize.reading.sources import RANGE_BYTES, describe_source, list_sources, with_digest
from mixtune.sanitize.rules.consent import read_consent
from mixtune.sanitize.rules.markers import Markers
from mixtune.sanitize.rules.pii import Personal
from mixtune.sanitize.write_pools import PoolWriter, ProofModel, Spread
from mixtune.settings.benchmark_entries import BenchmarkEntry, read_benchmark_entries
from mixtune.settings.from_dict import Options, from_dict
from mixtune.settings.sanitize import SanitizeSettings, SourceSettings, advise_region, read_sanitize_settings

_ALONE_BYTES = 8 * 2**20
"""Input bytes below which a second process costs more than it saves."""
LONGEST_NAME = 100
"""Characters of a folder that is named like the pools in it."""


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is sanitized, and by how many processes."""

    sources: tuple[SourceSettings, ...]
    against_path: str = ""
    """Manifest of pools whose records no training record may repeat; empty: none."""
    benchmarks: dict[str, dict[str, object]] = field(default_factory=dict)
    """By name; `uri` names the items that no training record may hold."""
    base_model: str = ""
    """Model whose chat template proves the records; empty: no proof."""
    work_uri: str = ""
    """Folder where finished parts stay, so that a killed run goes on; empty: a temporary one."""
    num_workers: int = 0
    """Processes of this pod; 0: one per core, one alone for little data."""
    range_bytes: int = RANGE_BYTES
    """Input bytes of one part."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ConfigError("sources is empty; give at least one {name, uri}")


def read_parameters(parameters: Options) -> tuple[SanitizeSettings, Inputs]:
    """Return the settings and the inputs that the component's parameters name, `options` among them.

    Raises:
        ConfigError: An unknown parameter, or a value that is not as it should be.
    """
    rest = dict(parameters)
    options = dict(rest.pop("options", {}))
    if shared := options.pop("work_uri", ""):
        pools = "+".join(sorted({str(source.get("name", "")) for source in rest["sources"]}))
        rest["work_uri"] = rest.get("work_uri") or storage.join(shared, pools[:LONGEST_NAME])
    names = [item.name for item in fields(Inputs) if item.name in rest]
    inputs = from_dict(Inputs, {name: rest.pop(name) for name in names}, "sanitize")
    return read_sanitize_settings(rest, options), inputs


def run(settings: SanitizeSettings, inputs: Inputs, outputs: Outputs) -> PoolsManifest:
    """Sanitize sources into a pools artifact, and return its manifest.

    Raises:
        ConfigError: A source or a setting is not as it should be.
        DataError: A file cannot be used, or a split would be empty.
    """
    with _work_folder(inputs.work_uri) as work:
        files, plan, model = prepare(settings, inputs, work)
        sources = tuple(map(describe_source, inputs.sources))
        with spreading(files, inputs.num_workers) as spread:
            parts = make_parts(list(enumerate(files)), plan, spread)
            _check_files(parts, settings.text.max_bad_ratio)
            protected = collect_protected(inputs.against_path, plan)
            for uri in (outputs.json_path, outputs.data_uri):  # of an earlier run, the manifest first
                storage.delete(uri)
            writers = []
            for name, group in groupby(parts, key=lambda part: part.source.pool):
                decisions = decide_records(name, pool_parts := list(group), settings, protected)
                writers.append(PoolWriter(name, pool_parts, decisions, plan.rules.personal.hide))
                writers[-1].write(outputs.data_uri, ProofModel(model, settings.chat), spread)
        quarantine = _write_quarantine(parts, writers, storage.join(outputs.data_uri, "quarantine.jsonl"))
    entries = [quarantine, *(entry for writer in writers for entry in writer.entries)]
    consent = replace(settings.consent, required=plan.rules.consent.required)
    manifest = PoolsManifest(
        pools=tuple(writer.pool for writer in writers),
        counts={writer.name: writer.counts() for writer in writers},
        labels={writer.name: writer.labels() for writer in writers},
        lengths={writer.name: writer.lengths() for writer in writers},
        details={writer.name: writer.details() for writer in writers},
        inputs=sources,
        rules=replace(settings, personal_data=settings.personal_data or {"default": "redact"}, consent=consent),
        data_uri=outputs.data_uri,
        files=tuple(sorted(entries, key=lambda entry: entry.path)),
    )
    for name, counts in manifest.counts.items():
        if advice := advise_region(counts.personal_data, settings.text.phone_region):
            print(f"{name}: {advice}", flush=True)
        if advice := _advise_labels(manifest.labels[name].get("read", {})):
            print(f"{name}: {advice}", flush=True)
    write_report(manifest, outputs.html_path, outputs.markdown_path)
    write_artifact(outputs.json_path, manifest)
    return manifest


def _advise_labels(records: dict[str, int]) -> str:
    """Return which labels differ by case alone, given how many records have each; empty where none do."""
    groups = [[f"{label} ({records[label]:,})" for label in labels] for labels in labels_alike(records)]
    if alike := [" and ".join(labels) for labels in groups]:
        return f"labels that differ by case alone count as different ones: {', '.join(alike)}; give each one spelling"
    return ""


def personal_rules(settings: SanitizeSettings) -> Personal:
    """Return what is done about personal data; a ConfigError where what finds it is not here."""
    text = settings.text
    return Personal(policies=settings.personal_data, region=text.phone_region, name_model=text.name_model)


def prepare(settings: SanitizeSettings, inputs: Inputs, work: str) -> tuple[list[SourceFile], Plan, str]:
    """Return the parts to make, how, and the folder of the base model (empty: none)."""
    check_near_engine(settings.dedup.near_engine)
    files = list_sources(inputs.sources, inputs.range_bytes, inputs.work_uri)
    model = str(models.fetch_model(inputs.base_model, weights=False)) if inputs.base_model else ""
    template = read_template_file(settings.chat.chat_template_uri)
    text = settings.text
    rules = Rules(
        markers=Markers(text.markers, text.extra_markers),
        personal=personal_rules(settings),
        consent=read_consent(settings.consent),
        also=text.also_normalise,
        control_tokens=tuple(sorted(ChatTemplate.load(Path(model), template).control_tokens)) if model else (),
        max_bad_ratio=text.max_bad_ratio,
        encoding=text.encoding,
    )
    entries = sorted(read_benchmark_entries(inputs.benchmarks).items())
    places = [(name, entry.uri, entry.question) for name, entry in entries if entry.uri and _has_rows(name, entry)]
    benchmarks = tuple((name, with_digest(uri) if inputs.work_uri else uri, column) for name, uri, column in places)
    index, digest = index_held_back(inputs.against_path, work)
    near = settings.dedup.near_duplicates > 0
    plan = Plan(rules=rules, benchmarks=benchmarks, held_out=index, held_out_digest=digest, near=near, work_uri=work)
    return files, plan, model


def _has_rows(name: str, entry: BenchmarkEntry) -> bool:
    """Return whether a benchmark's items can be read here; a task of lm-eval is a YAML, and its data lies elsewhere."""
    is_task = bool(entry.options.get("task"))
    if is_task:
        print(f"benchmarks: {name}: a task of lm-eval, whose items are not looked for in the records", flush=True)
    return not is_task


@contextmanager
def spreading(files: Sequence[SourceFile], num_workers: int) -> Iterator[Spread]:
    """Yield what calls a function with each of many arguments: in processes, or here where there is little to do."""
    if not num_workers:
        total = sum({file.uri: storage.file_size(file.uri) for file in files}.values())
        num_workers = 1 if total < _ALONE_BYTES else min(len(files), os.cpu_count() or 1)
    if num_workers == 1:
        yield lambda function, calls: list(starmap(function, calls))
        return
    with start_processes(num_workers) as pool:
        yield lambda function, calls: list(
            pool.map(function, *zip(*calls, strict=True)) if len(calls) > 1 else starmap(function, calls)
        )


def make_parts(files: list[tuple[int, SourceFile]], plan: Plan, spread: Spread) -> list[Part]:
    """Make parts, given with their numbers, in that order."""
    return spread(make_part, [(file, plan, number) for number, file in files])


@contextmanager
def _work_folder(uri: str) -> Iterator[str]:
    if uri:
        yield uri
        return
    with tempfile.TemporaryDirectory() as folder:
        yield folder


def _check_files(parts: list[Part], max_bad_ratio: float) -> None:
    """Check every file's rows; of a pool's files some may have none, as Spark leaves them in its folders."""
    tallies: dict[str, list[Tally]] = {}
    for part in parts:
        tallies.setdefault(part.source.uri, []).append(part.tally)
    pools = {part.source.uri: (part.source.pool, part.source.split) for part in parts}
    filled = {pools[part.source.uri] for part in parts if part.tally.read}
    for uri, file_tallies in tallies.items():
        if pools[uri] in filled and not any(tally.read for tally in file_tallies):
            print(f"{uri}: no rows in it; left out, other files of {pools[uri][0]} have some", flush=True)
        else:
            check_bad(uri, file_tallies, max_bad_ratio)


def _write_quarantine(parts: list[Part], writers: list[PoolWriter], uri: str) -> storage.FileEntry:
    """Write every record that was dropped or changed, by file, line and rule; nothing of its content."""
    with storage.open_write(uri) as stream:
        for part in parts:
            stream.write(storage.read_bytes(f"{part.uri}.notes"))
        for writer in writers:
            for note in writer.notes():
                stream.write(note)
    return stream.entry("quarantine.jsonl")
