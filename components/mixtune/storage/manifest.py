"""What a manifest proves: its own digest, and that the files it lists are whole."""

import hashlib
import json
from collections.abc import Iterable, Mapping

from mixtune.errors import DataError
from mixtune.storage.files import file_size, is_s3, join, sha256_file
from mixtune.storage.streams import FileEntry


def manifest_digest(manifest: Mapping[str, object]) -> str:
    """Return the SHA-256 of what a manifest says of the content, whatever folder it lies in: 32 hex digits."""
    content = {key: value for key, value in manifest.items() if key != "data_uri"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


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
