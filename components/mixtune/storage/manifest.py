"""Manifests: the JSON files that list an artifact's files with sizes and SHA-256, and are written after them."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from mixtune.errors import DataError
from mixtune.storage.files import exists, file_size, is_s3, join, read_json, sha256_file, write_json
from mixtune.storage.streams import FileEntry


def write_manifest(path: str, manifest: dict[str, Any], data: str, files: list[FileEntry]) -> None:
    """Write an artifact's manifest: last, when all its files are there.

    Args:
        path: Where the manifest goes (a KFP artifact's `path`, or any URI).
        manifest: What the artifact says of itself; `kind` names what it is.
        data: URI of the folder that holds the files.
        files: The files, paths relative to `data`.
    """
    from mixtune import __version__

    listed = [asdict(entry) for entry in sorted(files, key=lambda entry: entry.path)]
    write_json(path, {**manifest, "data_uri": data, "files": listed, "mixtune_version": __version__})


def read_manifest(path: str, kind: str) -> dict[str, Any]:
    """Read a manifest of the given kind.

    Raises:
        DataError: No manifest (the step that writes it did not finish), or one of another kind.
    """
    if not exists(path):
        raise DataError(
            f"{path}: no manifest; the step that makes these {kind} has not finished, or its cached result has "
            "expired: then submit the run with --no-cache"
        )
    manifest = read_json(path)
    if not isinstance(manifest, dict) or manifest.get("kind") != kind:
        actual = manifest.get("kind") if isinstance(manifest, dict) else type(manifest).__name__
        raise DataError(f"{path}: a manifest of {kind} is needed, this is one of {actual!r}")
    return manifest


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Return the SHA-256 of what a manifest says of the content, whatever folder it lies in: 32 hex digits."""
    content = {key: value for key, value in manifest.items() if key != "data_uri"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def verify(manifest: dict[str, Any], folder: str = "") -> None:
    """Check the files of a manifest against their sizes and, where they are local, their SHA-256.

    Args:
        manifest: As read.
        folder: Where the files are; empty: where the manifest says, its `data_uri`.

    Raises:
        DataError: A file is missing, cut or changed.
    """
    verify_files(folder or manifest["data_uri"], [FileEntry(**item) for item in manifest["files"]])


def verify_files(folder: str, files: Iterable[FileEntry]) -> None:
    """Check files in a folder against their sizes and, where they are local, their SHA-256.

    Raises:
        DataError: A file is missing, cut or changed.
    """
    for entry in files:
        uri = join(folder, entry.path)
        size = file_size(uri)
        if size != entry.num_bytes:
            raise DataError(f"{uri}: {size} bytes, the manifest says {entry.num_bytes}; make it again")
        if not is_s3(uri) and sha256_file(uri) != entry.sha256:
            raise DataError(f"{uri}: its SHA-256 is not the manifest's; it was changed, make it again")
