"""Where the files of an imported pool come from, and on what terms: `_provenance.json` beside them."""

from typing import Any

from mixtune import storage
from mixtune.errors import DataError

PROVENANCE_KIND = "imported pool"


def read_provenance(uri: str) -> dict[str, Any]:
    """What the folder at a URI says of where its files come from, without the list of them; empty where it is silent.

    Raises:
        DataError: A file is not as it was imported, or came in by another way.
    """
    plain = storage.split_fingerprint(uri)[0]
    if plain.startswith("hf://") or not storage.file_exists(storage.join(plain, storage.PROVENANCE)):
        return {}
    provenance: dict[str, Any] = storage.read_manifest(storage.join(plain, storage.PROVENANCE), PROVENANCE_KIND)
    storage.verify(provenance, plain)
    imported = {item["path"] for item in provenance["files"]}
    if strange := sorted({entry.path for entry in storage.list_files(plain)} - imported):
        raise DataError(f"{plain}: {strange[0]} was not imported with the pool, whose licence may not be its own")
    return {key: value for key, value in provenance.items() if key not in ("kind", "columns", "files")}
