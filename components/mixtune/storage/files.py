"""Files by URI: a local path or `s3://bucket/key`, read and written alike, in bounded memory.

`hf://datasets/org/name@revision/path` is read only: the Hugging Face hub's files, brought to its local cache.

Writes are atomic: a file appears under its name when it is whole, or not at all. What is written is hashed on the
way (SHA-256). Credentials come from the default AWS chain; `configure_storage` sets the few options there are.
"""

import fnmatch
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from mixtune.errors import ConfigError, DataError
from mixtune.storage.streams import (
    BLOCK_BYTES,
    FileEntry,
    LocalWriter,
    S3Writer,
    Writer,
    head,
    s3_client,
    split_s3,
)
from mixtune.storage.transfer import ALONE, Download, S3Reader, Share, download, entry_of, upload_files

_HUB_DATASET = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)@([\w.-]+)(/.*)?$")
PROVENANCE = "_provenance.json"
"""In a folder of data: where its files come from, and on what terms. Hidden, as all names with `_` before them are."""
_OPTIONS = {"kms_key_id": "MIXTUNE_KMS_KEY_ID", "endpoint_url": "AWS_ENDPOINT_URL_S3", "region": "AWS_REGION"}


def configure_storage(options: Mapping[str, object]) -> None:
    """Write a component's `storage` parameter (`kms_key_id`, `endpoint_url`, `region`) into the environment.

    So child processes see it, too.

    Raises:
        ConfigError: An unknown key.
    """
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise ConfigError(f"storage: unknown option {unknown[0]!r}; there are {', '.join(_OPTIONS)}")
    for key, value in options.items():
        if value and os.environ.get(_OPTIONS[key]) != str(value):
            os.environ[_OPTIONS[key]] = str(value)
            s3_client.cache_clear()


def configured_options() -> dict[str, str]:
    """Return the `storage` parameter that the environment holds."""
    return {key: os.environ[name] for key, name in _OPTIONS.items() if os.environ.get(name)}


def is_s3(uri: str) -> bool:
    """Return whether the URI names an object in S3 rather than a local path."""
    return uri.startswith("s3://")


def _path(uri: str) -> Path:
    """Return where a URI that is not in S3 lies on this machine."""
    if scheme := re.match(r"(?!hf:)([a-z][a-z0-9+.-]*)://", uri):
        raise ConfigError(
            f"{uri}: {scheme[1]}:// is not read or written here; give a local path, s3://bucket/key, or with a run "
            "--pipeline-root s3://bucket/prefix"
        )
    return Path(_fetch_from_hub(uri)) if uri.startswith("hf://") else Path(uri)


@lru_cache(maxsize=1024)
def _fetch_from_hub(uri: str) -> str:
    match = _HUB_DATASET.match(uri)
    if not match:
        raise DataError(f"{uri}: a data set of the hub is hf://datasets/org/name@revision/path, revision included")
    name, revision, path = match[1], match[2], (match[3] or "").strip("/")
    return f"{fetch_data_set(name, revision, [path, f'{path}/*'] if path else [])}/{path}".rstrip("/")


def fetch_data_set(name: str, revision: str, patterns: list[str]) -> str:
    """Return the local folder with a data set of the hub, or with those of its files that match; fetched once.

    Raises:
        DataError: The hub refuses it, or is out of reach, and the local cache does not have it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=patterns or None)
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        uri = f"hf://datasets/{name}@{revision}"
        raise DataError(f"{uri}: the hub did not give it ({error}); put it under a folder or s3:// prefix") from error


def join(uri: str, *parts: str) -> str:
    """Return the URI of something inside a folder."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def data_uri(artifact_uri: str, output: str) -> str:
    """Return the folder for a KFP artifact's bytes: beside it, shared with no other output of the task."""
    return join(artifact_uri.rsplit("/", 1)[0], "data", output)


def list_files(uri: str) -> list[FileEntry]:
    """Return the files under a folder, or the one file, sorted by path; hidden names (`.x`, `_x`) are left out.

    Where there is nothing of that very name, `*`, `?` and `[...]` in it stand for parts of names, never for a `/`;
    the paths are then relative to the folder before the first of them.

    `sha256` is the digest of the content for local files. For S3 it stands for the version: the digest of version id
    or ETag, which changes whenever the content does.

    Raises:
        DataError: There is nothing under that name.
    """
    folder, pattern = split_pattern(uri)
    entries = _list_s3(folder) if is_s3(uri) else _list_local(_path(folder))
    if pattern:
        entries = [entry for entry in entries if fits(entry.path, pattern)]
    if not entries:
        if not pattern and not is_s3(uri) and _path(folder).is_dir():
            raise DataError(f"{uri}: no file in it, but for names with . or _ in front, which are left out")
        raise DataError(f"{uri}: no such file or folder; give a local path or s3://bucket/key that exists")
    return sorted(entries, key=lambda entry: entry.path)


def split_pattern(uri: str) -> tuple[str, str]:
    """Return the folder before a name with `*`, `?` or `[`, and the rest; a URI without them, and an empty text."""
    first = re.search(r"[*?[]", uri)
    if first is None or exists(uri):
        return uri, ""
    folder, _, _ = uri[: first.start()].rpartition("/")
    return folder or ("/" if uri.startswith("/") else "."), uri[len(folder) :].lstrip("/")


def fits(path: str, pattern: str) -> bool:
    """Return whether a path has the form of a pattern, in which `*`, `?` and `[...]` never stand for a `/`."""
    names, parts = path.split("/"), pattern.split("/")
    return len(names) == len(parts) and all(map(fnmatch.fnmatchcase, names, parts))


def exists(uri: str) -> bool:
    """Return whether there is a file or a folder with that name."""
    if not is_s3(uri):
        return _path(uri).exists()
    return file_exists(uri) or bool(_first_key(uri.rstrip("/") + "/"))


@contextmanager
def open_read(uri: str) -> Iterator[IO[bytes]]:
    """Open a seekable stream of the bytes at the URI; a DataError where there is no such file, or it is a folder."""
    try:
        stream: IO[bytes] = BufferedReader(S3Reader(uri), BLOCK_BYTES) if is_s3(uri) else _path(uri).open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{uri}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{uri}: a folder; name the file in it") from error
    with stream:
        yield stream


@contextmanager
def open_write(uri: str) -> Iterator[Writer]:
    """Open a stream into a new file, which appears under its name only if the block ends without an error."""
    writer = S3Writer(uri) if is_s3(uri) else LocalWriter(str(_path(uri)))
    try:
        yield writer
        writer.commit()
    except BaseException as error:
        writer.abort()
        if isinstance(error, OSError) and error.errno and not error.filename:
            error.filename = uri  # where a disk is full, the system does not say which
        raise


def read_bytes(uri: str) -> bytes:
    """Return all bytes of a file; a DataError where there is none."""
    with open_read(uri) as stream:
        return stream.read()


def read_json(uri: str) -> Any:
    """Return the JSON value in a file; a DataError where there is no such file, or it is not JSON."""
    content = read_bytes(uri)
    try:
        return json.loads(content)
    except ValueError as error:
        raise DataError(f"{uri}: not JSON ({error})") from error


def write_json(uri: str, value: object) -> FileEntry:
    """Write a JSON value, keys sorted, so that the same value has the same bytes."""
    with open_write(uri) as stream:
        stream.write((json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return stream.entry(uri.rsplit("/", 1)[-1])


def file_size(uri: str) -> int:
    """Return the size of a file in bytes; a DataError where there is no such file."""
    try:
        return int(head(uri)["ContentLength"]) if is_s3(uri) else _path(uri).stat().st_size
    except FileNotFoundError as error:
        raise DataError(f"{uri}: no such file") from error


def sha256_file(uri: str) -> str:
    """Return the SHA-256 of a file's content, hex."""
    with open_read(uri) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def delete(uri: str) -> None:
    """Delete a file, or a folder with all that is in it; nothing there is no error, what S3 keeps is said."""
    if not is_s3(uri):
        path = Path(uri)
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        return
    for items in _pages(uri):
        doomed = {"Objects": [{"Key": item["Key"]} for item in items]}
        answer = s3_client().delete_objects(Bucket=split_s3(uri)[0], Delete=doomed)
        if remaining := answer.get("Errors"):
            code = remaining[0].get("Code")
            print(f"{uri}: {len(remaining)} of {len(items)} objects stay there: {code}", flush=True)


def fetch(uri: str, folder: Path, share: Share = ALONE, left_out: Sequence[str] = ()) -> Path:
    """Bring a folder or a file to local disk: the path itself if it is local, else a whole copy under `folder`.

    What is there in its full size is not fetched again. The processes of a `share` call this alike. Files of S3 that
    match a pattern of `left_out` stay there; its `*` stands for a `/`, too.
    """
    if not is_s3(uri):
        if not _path(uri).exists():
            raise DataError(f"{uri}: no such file or folder")
        return _path(uri)
    files = []
    entries = (entry for entry in list_files(uri) if not any(fnmatch.fnmatchcase(entry.path, by) for by in left_out))
    for entry in entries:
        is_file = entry.path == uri.rsplit("/", 1)[-1] and file_exists(uri)
        target = folder / entry.path
        if not (target.exists() and target.stat().st_size == entry.num_bytes):
            source = uri if is_file else join(uri, entry.path)
            files.append(Download(uri=source, target=target, num_bytes=entry.num_bytes))
    share.wait()  # nobody may find what another has just brought, and so share otherwise
    download(files, share)  # also where there are none: all nodes wait as often
    return folder


def file_exists(uri: str) -> bool:
    """Return whether the URI names a file (not a folder)."""
    if not is_s3(uri):
        return _path(uri).is_file()
    # Not a HEAD: where a role may list some prefixes only, S3 answers 403 for an object that is not there.
    return _first_key(uri) == split_s3(uri)[1]


def upload(folder: Path, uri: str) -> list[FileEntry]:
    """Copy a local folder's files to a URI, and return their entries for a manifest, sorted by path."""
    paths = sorted(item for item in folder.rglob("*") if item.is_file())
    names = [path.relative_to(folder).as_posix() for path in paths]
    targets = [(path, join(uri, name)) for path, name in zip(paths, names, strict=True)]
    entries = upload_files(targets) if is_s3(uri) else [copy(str(path), target) for path, target in targets]
    return [replace(entry, path=name) for entry, name in zip(entries, names, strict=True)]


def move_in(path: Path, uri: str) -> FileEntry:
    """Give a local file that nobody else holds its place, and return its entry; no byte passes through Python's hands.

    The file is gone afterwards; a place on the same disk is taken by renaming.
    """
    if is_s3(uri):
        (entry,) = upload_files([(path, uri)])
        path.unlink()
        return entry
    target = _path(uri)
    entry = entry_of(path, target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    hidden = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.move(path, hidden)
    with hidden.open("rb") as stream:
        os.fsync(stream.fileno())
    hidden.replace(target)
    return entry


def copy(source: str, target: str) -> FileEntry:
    """Copy a file from one URI to another; return the entry of what was written."""
    with open_read(source) as stream, open_write(target) as writer:
        shutil.copyfileobj(stream, writer, BLOCK_BYTES)
    return writer.entry(target.rsplit("/", 1)[-1])


def _list_local(path: Path) -> list[FileEntry]:
    if path.is_file():
        return [entry_of(path, path.name)]
    names = ((item, item.relative_to(path)) for item in _walk(path))
    return [entry_of(item, name.as_posix()) for item, name in names if not _is_hidden(name.parts)]


def _is_hidden(parts: Iterable[str]) -> bool:
    """Return whether a path with these parts is left out, in whatever folder: `.x`, `_x`."""
    return any(part.startswith((".", "_")) for part in parts)


def _walk(path: Path) -> Iterator[Path]:
    """Yield the files under a folder and under those that are linked into it, each folder once."""
    visited = set[Path]()
    for folder, names, files in os.walk(path, followlinks=True):
        here = Path(folder)
        names.sort()
        if here.resolve() in visited:
            names.clear()
            continue
        visited.add(here.resolve())
        yield from (here / name for name in files if (here / name).is_file())


def _list_s3(uri: str) -> list[FileEntry]:
    key, entries = split_s3(uri)[1], []
    for item in (item for items in _pages(uri) for item in items):
        name = key.rsplit("/", 1)[-1] if item["Key"] == key else item["Key"][len(key.rstrip("/")) + 1 :]
        if name and not name.endswith("/") and not _is_hidden(name.split("/")):
            version = hashlib.sha256(item["ETag"].encode()).hexdigest()
            entries.append(FileEntry(path=name, num_bytes=item["Size"], sha256=version))
    return entries


def _pages(uri: str) -> Iterator[list[dict[str, Any]]]:
    """Yield what S3 lists of an object and of the folder of that name, a page at a time."""
    bucket, key = split_s3(uri)
    for page in s3_client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key):
        items = [item for item in page.get("Contents", []) if f"{item['Key']}/".startswith(key.rstrip("/") + "/")]
        if items:
            yield items


def _first_key(uri: str) -> str:
    """The first key in order that starts as the URI does: the object itself, if there is one; else empty."""
    bucket, key = split_s3(uri)
    objects = s3_client().list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
    return str(objects[0]["Key"]) if objects else ""
