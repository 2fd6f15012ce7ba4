"""JSON files of one type: a frozen dataclass, written with its kind and version and checked field by field when read.

Such a dataclass names its file's `KIND` and `VERSION` as class variables. The version rises with every change after
which an older file cannot be read any more.
"""

from dataclasses import Field, asdict, dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from mixtune import __version__, storage
from mixtune.errors import ConfigError, DataError
from mixtune.settings.from_dict import from_dict


class Artifact(Protocol):
    """A dataclass that is a file's content."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


A = TypeVar("A", bound=Artifact)


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The fields of an artifact with files beside it; it is written last: its presence means that they are whole."""

    KIND: ClassVar[str]
    VERSION: ClassVar[int]

    data_uri: str = ""
    """Folder of the files, local or `s3://`."""
    files: tuple[storage.FileEntry, ...] = ()
    """Paths relative to `data_uri`."""
    mixtune_version: str = __version__

    def verify(self, folder: str = "") -> None:
        """Check the sizes of the files in a folder, else in `data_uri`, and of local ones their SHA-256.

        Raises:
            DataError: A file is missing, cut or changed.
        """
        storage.verify_files(folder or self.data_uri, self.files)

    @property
    def digest(self) -> str:
        """SHA-256 of the content, whatever folder the files lie in: 32 hex digits."""
        return storage.manifest_digest(to_json(self))


def to_json(artifact: Artifact) -> dict[str, object]:
    """Return the value that the artifact's JSON file holds."""
    return {"kind": artifact.KIND, "version": artifact.VERSION, **asdict(artifact)}


def write_artifact(uri: str, artifact: Artifact) -> storage.FileEntry:
    """Write an artifact to its JSON file."""
    return storage.write_json(uri, to_json(artifact))


def read_artifact(artifact_type: type[A], uri: str) -> A:
    """Read an artifact from its JSON file; keys that the type does not have are ignored.

    Raises:
        DataError: There is no such file, or it is of another kind, another version or another form.
    """
    return from_json(artifact_type, storage.read_json(uri), uri)


def name_kind(kind: object) -> str:
    """Return in words what a file of a kind is; one without kind is somebody else's."""
    return f"one of {kind!r}" if kind else "none that a step wrote"


def from_json(artifact_type: type[A], content: object, source: str) -> A:
    """Return the artifact that a JSON value describes; errors name its `source`.

    Raises:
        DataError: The value is of another kind, another version or another form.
    """
    content = content if isinstance(content, dict) else {}
    kind, version = content.get("kind"), content.get("version")
    if kind != artifact_type.KIND:
        raise DataError(f"{source}: a {artifact_type.KIND} file is needed, this is {name_kind(kind)}")
    if version != artifact_type.VERSION:
        known = f"this mixtune reads version {artifact_type.VERSION}"
        raise DataError(f"{source}: version {version} of the {kind} format, {known}; run the step that made it again")
    fields = {key: value for key, value in content.items() if key in artifact_type.__dataclass_fields__}
    try:
        return from_dict(artifact_type, fields, source)
    except ConfigError as error:
        raise DataError(f"{error}; this is no {kind} file of version {version}") from error
