"""Fetch models to local disk and check them: `python -m mixtune.serve.fetch_weights URI FOLDER [URI FOLDER ...]`.

Only safetensors, JSON, text and templates are taken, from the folder itself; a digest after `#` is checked first.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from mixtune import storage
from mixtune.errors import ConfigError

TAKEN = (".safetensors", ".json", ".txt", ".jinja", ".model")


def fetch_weights(uri: str, folder: Path) -> list[str]:
    """Copy a model's own files into a folder; return their names.

    Raises:
        DataError: There is nothing, or it is not what was fingerprinted.
    """
    plain = storage.check_fingerprint(uri)
    names = [entry.path for entry in storage.list_files(plain)]
    names = [name for name in names if "/" not in name and name.endswith(TAKEN)]
    for name in names:
        storage.copy(storage.join(plain, name), str(folder / name))
    return names


def main(arguments: Sequence[str]) -> None:
    """Fetch every model that the command line names; a ConfigError where a folder is missing."""
    if not arguments or len(arguments) % 2:
        raise ConfigError("give pairs of a model's URI and the folder that it goes to")
    for uri, folder in zip(arguments[::2], arguments[1::2], strict=True):
        names = fetch_weights(uri, Path(folder))
        print(f"{uri}: {len(names)} files in {folder}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
