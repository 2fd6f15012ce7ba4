"""Where the files of an imported pool come from, and on what terms: `_provenance.json` beside them."""

from dataclasses import dataclass, field, fields
from typing import ClassVar

from mixtune import storage
from mixtune.artifacts.typed_json import Manifest, from_json
from mixtune.errors import DataError


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Source and licence of an open set: what travels with its records to shards, comparison, audit and model card."""

    name: str = ""
    category: str = ""
    source: str = ""
    """`org/name` on the hub, or a folder."""
    revision: str = ""
    """Commit of the hub, 40 hex digits; empty for a folder."""
    licence: str = ""
    """SPDX expression."""
    licence_url: str = ""
    attribution: str = ""
    mirror_uri: str = ""
    """Folder whose copy of the files was read in the source's stead; empty: none."""


@dataclass(frozen=True, kw_only=True)
class Provenance(Terms, Manifest):
    """`_provenance.json`: the terms of a folder's files, and the files."""

    KIND: ClassVar[str] = "imported pool"
    VERSION: ClassVar[int] = 1

    columns: dict[str, str] = field(default_factory=dict)
    """Column mapping that sanitize needs; empty: detected."""

    @property
    def terms(self) -> Terms:
        """What travels on."""
        return Terms(**{item.name: getattr(self, item.name) for item in fields(Terms)})


def read_provenance(folder: str) -> Provenance | None:
    """Read a folder's provenance, None where it has none; a DataError where the file is not one."""
    path = storage.join(folder, storage.PROVENANCE)
    if folder.startswith("hf://") or not storage.file_exists(path):
        return None
    # Files from before formats had versions are of version 1.
    return from_json(Provenance, {"version": 1, **storage.read_json(path)}, path)


def read_terms(uri: str) -> Terms | None:
    """Return the terms of the folder at a URI; None where it has no `_provenance.json`.

    Raises:
        DataError: A file is not as it was imported, or came in by another way.
    """
    folder = storage.plain_uri(uri)
    provenance = read_provenance(folder)
    if provenance is None:
        return None
    provenance.verify(folder)
    imported = {entry.path for entry in provenance.files}
    if strange := sorted({entry.path for entry in storage.list_files(folder)} - imported):
        raise DataError(f"{folder}: {strange[0]} was not imported with the pool, whose licence may not be its own")
    return provenance.terms
