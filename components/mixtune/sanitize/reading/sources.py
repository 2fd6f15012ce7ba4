"""Sources: which files they are, which parts of them can be read apart, and what their bytes are."""

from dataclasses import asdict
from typing import Any

import xxhash

from mixtune import storage
from mixtune.artifacts.pools import Source
from mixtune.artifacts.provenance import read_terms
from mixtune.errors import ConfigError
from mixtune.sanitize.clean import SourceFile
from mixtune.sanitize.reading.readers import Range, plan_ranges, source_files

RANGE_BYTES = 64 * 2**20
"""Bytes of input of one part; parts, not processes, decide what comes out."""
_KEYS = {"name", "uri", "columns", "split"}


def list_sources(sources: list[dict[str, Any]], range_bytes: int = RANGE_BYTES, work_uri: str = "") -> list[SourceFile]:
    """The parts of the files of all sources, pool by pool, in order.

    Args:
        sources: As the component has them.
        range_bytes: Bytes of input of one part.
        work_uri: Folder where the list is kept, so that the files are counted through once, whoever asks; what their
            bytes are then belongs to every part. Empty: the list is for this run alone.

    Raises:
        ConfigError: No source, an unknown or missing key, or a split that is not `train` or `test`.
        DataError: Nothing is there, or its bytes changed since they were fingerprinted.
    """
    _check(sources)
    if not work_uri:
        return _list([{**source, "uri": storage.check_fingerprint(source["uri"])} for source in sources], range_bytes)
    named = [{**source, "uri": with_digest(source["uri"])} for source in sources]
    digest = xxhash.xxh3_128_hexdigest(repr((named, range_bytes)).encode())
    place = storage.join(work_uri, f"ranges-{digest}.json")
    if not storage.file_exists(place):
        storage.write_json(place, [asdict(part) for part in _list(named, range_bytes)])
    return [SourceFile(**{**part, "part": Range(**part["part"])}) for part in storage.read_json(place)]


def with_digest(uri: str) -> str:
    """The URI with the digest of what is there now.

    Raises:
        DataError: Its bytes are not those of the digest that it came with.
    """
    return storage.fingerprint(storage.check_fingerprint(uri))


def describe_source(source: dict[str, Any]) -> Source:
    """Return a source as the manifest has it: with its terms, where it has some.

    Raises:
        DataError: Its files are not those of its provenance.
    """
    split = source.get("split") or "train"
    return Source(name=source["name"], uri=source["uri"], split=split, provenance=read_terms(source["uri"]))


def _check(sources: list[dict[str, Any]]) -> None:
    if not sources:
        raise ConfigError("sources is empty; give at least one {name, uri}")
    for number, source in enumerate(sources, start=1):
        if unknown := sorted(set(source) - _KEYS):
            raise ConfigError(f"sources, entry {number}: unknown key {unknown[0]!r}; there are {sorted(_KEYS)}")
        if missing := sorted({"name", "uri"} - set(source)):
            raise ConfigError(f"sources, entry {number}: {missing[0]!r} is missing")
        if (split := source.get("split") or "train") not in ("train", "test"):
            raise ConfigError(f"sources, entry {number}: split is 'train' or 'test'; got {split!r}")


def _list(sources: list[dict[str, Any]], range_bytes: int) -> list[SourceFile]:
    parts = []
    for source in sources:
        uri, digest = storage.split_fingerprint(source["uri"])
        columns = dict(source.get("columns") or {})
        for file in source_files(uri):
            for part in plan_ranges(file, range_bytes):
                parts.append(SourceFile(pool=source["name"], split=source.get("split") or "train", uri=file,
                                        digest=digest, columns=columns, part=part))  # fmt: skip
    names = list(dict.fromkeys(part.pool for part in parts))
    return sorted(parts, key=lambda part: names.index(part.pool))
