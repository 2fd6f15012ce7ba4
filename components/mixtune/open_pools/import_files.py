"""A pool's files, brought from the hub or a mirror into a folder as they came, with their licence beside them.

`_provenance.json` in that folder says where the files come from, on what terms, and what each file's bytes are; it is
written last. sanitize takes it into its manifest, and a model's card repeats it.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from mixtune import storage
from mixtune.artifacts.provenance import Provenance, read_provenance
from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import ConfigError, DataError
from mixtune.open_pools.catalogue import PoolSource, check_allowed, describe_pool
from mixtune.sanitize.reading.readers import FORMATS, is_readable

_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})")
_LFS_POINTER = b"version https://git-lfs"


def import_files(
    pool: PoolSource, out_uri: str, allowed_licences: Sequence[str] = (), mirror_uri: str = ""
) -> Provenance:
    """Copy a pool's data files into a folder, with their provenance; the same files give the same bytes.

    The folder is new, or holds these files alone. A mirror is read in the source's stead; its bytes are taken on trust.

    Raises:
        ConfigError: The licence is none of those that are allowed (SPDX; none named: all are), there is no revision, a
            file is no data, or the folder holds others.
        DataError: The hub or the mirror does not give the files, or not all of them.
    """
    check_allowed(pool, allowed_licences)
    folder = mirror_uri.rstrip("/") or _source_folder(pool)
    paths = _matching(pool, folder)
    _check_place(pool, out_uri, paths)
    files = []
    for number, path in enumerate(paths, start=1):
        files.append(_copy(storage.join(folder, path), storage.join(out_uri, path), path))
        print(f"{pool.name}: {number} of {len(paths)}, {path}, {files[-1].num_bytes / 1e6:,.1f} MB", flush=True)
    provenance = describe_pool(pool, mirror_uri, files)
    write_artifact(storage.join(out_uri, storage.PROVENANCE), provenance)
    return provenance


def _source_folder(pool: PoolSource) -> str:
    if not pool.on_hub:
        return pool.source.rstrip("/")
    if not pool.revision:
        raise ConfigError(
            f"pool {pool.name!r}: revision is missing; give the commit of {pool.source} on the hub, 40 hex digits"
        )
    try:
        return storage.fetch_data_set(pool.source, pool.revision, list(pool.files))
    except DataError as error:
        raise DataError(
            f"{error}, and give that as mirror_uri (--mirror): where there is a network, `hf download {pool.source} "
            f"--repo-type dataset --revision {pool.revision} --local-dir FOLDER` makes one; a gated set needs HF_TOKEN"
        ) from error


def _matching(pool: PoolSource, folder: str) -> list[str]:
    """Return the files that the pool's patterns name: each names one, all are data, no shard is missing."""
    if storage.file_exists(folder):
        raise ConfigError(f"{folder}: a file; give the folder that it lies in, and its name as files")
    names = [entry.path for entry in storage.list_files(folder)]
    paths: set[str] = set()
    for pattern in pool.files:
        matches = [path for path in names if storage.fits(path, pattern)]
        if not matches:
            raise DataError(f"{folder}: nothing in it is named {pattern}; there is {', '.join(names[:8])}")
        if "*" in pattern:
            _check_shards(matches, folder)
        paths.update(matches)
    if other := sorted(path for path in paths if not is_readable(path)):
        raise ConfigError(f"pool {pool.name!r}: {other[0]} is no data; only {', '.join(FORMATS)} are imported")
    return sorted(paths)


def _check_shards(paths: list[str], folder: str) -> None:
    for path in paths:
        if shard := _SHARD.match(path):
            numbers = {int(other[2]) for item in paths if (other := _SHARD.match(item)) and other[1] == shard[1]}
            if missing := sorted(set(range(int(shard[3]))) - numbers):
                raise DataError(f"{folder}: of {path}, part {missing[0]:05} is missing; fetch all {int(shard[3])}")


def _check_place(pool: PoolSource, out_uri: str, paths: list[str]) -> None:
    """Refuse a folder with anything but these files: whatever lies in it would be read as the pool."""
    before = read_provenance(out_uri)
    if before and (before.source, before.revision) != (pool.source, pool.revision):
        raise ConfigError(f"{out_uri}: {before.source} at {before.revision} is there; take an empty folder")
    try:
        strange = sorted({entry.path for entry in storage.list_files(out_uri)} - set(paths))
    except DataError:  # nothing is there
        return
    if strange:
        raise ConfigError(f"{out_uri}: {strange[0]} is there, no part of pool {pool.name!r}; take an empty folder")


def _copy(source: str, target: str, path: str) -> storage.FileEntry:
    with storage.open_read(source) as stream:
        if stream.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise DataError(f"{source}: a pointer of Git LFS, not the file; run `git lfs pull` where it was cloned")
    return replace(storage.copy(source, target), path=path)
