"""Sources: which files they are, which parts of them can be read apart, and what their bytes are."""

from collections.abc import Iterable
from dataclasses import asdict, replace

import xxhash

from mixtune import storage
from mixtune.artifacts.pools import Source
from mixtune.artifacts.provenance import read_terms
from mixtune.sanitize.clean import SourceFile
from mixtune.sanitize.reading.readers import plan_ranges, source_files
from mixtune.sanitize.reading.row import Range
from mixtune.settings.sanitize import SourceSettings

RANGE_BYTES = 64 * 2**20
"""Bytes of input of one part; parts, not processes, decide what comes out."""


def list_sources(
    sources: Iterable[SourceSettings], range_bytes: int = RANGE_BYTES, work_uri: str = ""
) -> list[SourceFile]:
    """Return the parts of the files of all sources, pool by pool, in order; `range_bytes` of input in each.

    In the folder `work_uri`, if it is not empty, the list is kept for other pods and runs, with the bytes' digests.

    Raises:
        DataError: Nothing is there, or its bytes changed since they were fingerprinted.
    """
    if not work_uri:
        return _list([replace(source, uri=storage.check_fingerprint(source.uri)) for source in sources], range_bytes)
    named = [replace(source, uri=with_digest(source.uri)) for source in sources]
    digest = xxhash.xxh3_128_hexdigest(repr((named, range_bytes)).encode())
    place = storage.join(work_uri, f"ranges-{digest}.json")
    if not storage.file_exists(place):
        storage.write_json(place, [asdict(part) for part in _list(named, range_bytes)])
    return [SourceFile(**{**part, "part": Range(**part["part"])}) for part in storage.read_json(place)]


def with_digest(uri: str) -> str:
    """Return the URI with the digest of what is there now.

    Raises:
        DataError: Its bytes are not those of the digest that it came with.
    """
    return storage.fingerprint(storage.check_fingerprint(uri))


def describe_source(source: SourceSettings) -> Source:
    """Return a source as the manifest has it: with its terms, where it has some.

    Raises:
        DataError: Its files are not those of its provenance.
    """
    return Source(name=source.name, uri=source.uri, split=source.split, provenance=read_terms(source.uri))


def _list(sources: Iterable[SourceSettings], range_bytes: int) -> list[SourceFile]:
    parts = []
    for source in sources:
        uri, digest = storage.split_fingerprint(source.uri)
        for file in source_files(uri, source.split):
            whole = SourceFile(pool=source.name, split=source.split, uri=file, columns=source.columns, digest=digest)
            parts += [replace(whole, part=part) for part in plan_ranges(file, range_bytes)]
    names = list(dict.fromkeys(part.pool for part in parts))
    return sorted(parts, key=lambda part: names.index(part.pool))
