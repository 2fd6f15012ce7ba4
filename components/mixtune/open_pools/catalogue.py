"""The catalogue of open sets that may become general pools: the package's own `pools.toml`, or one in the same form."""

import difflib
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from mixtune import storage
from mixtune.artifacts.provenance import Provenance
from mixtune.errors import ConfigError
from mixtune.sanitize.reading.schemas import check_mapping
from mixtune.settings.from_dict import Options, from_dict

OWN_TABLE = Path(__file__).with_name("pools.toml")
CATEGORIES = (
    "agents", "baseline", "chat", "code", "factuality", "identity", "instruction-following", "long-context", "math",
    "planning", "rag", "rai", "stem", "translation", "reasoning-chat", "reasoning-code", "reasoning-factuality",
    "reasoning-instruction-following", "reasoning-math", "reasoning-planning", "reasoning-rag", "reasoning-rai",
    "reasoning-stem",
)  # fmt: skip
"""Nova's names, which the package's own table keeps to; yours may have others."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CHANGEABLE = {"revision", "files", "category", "columns"}
"""Fields of an entry that may be replaced; a licence belongs to its source."""


@dataclass(frozen=True, kw_only=True)
class PoolSource:
    """An open set, and what it needs to become a general pool."""

    name: str
    category: str
    """The pool's name in the pipelines."""
    source: str
    """`org/name` of a data set of the hub, or the folder or `s3://` prefix that holds its files."""
    revision: str = ""
    """Commit of the hub, 40 hex digits; where an entry has none, whoever imports it gives one."""
    files: tuple[str, ...]
    """Names relative to the source; `*` stands for part of a name, never for a `/`."""
    licence: str
    """SPDX expression; `LicenseRef-...` for a licence that SPDX does not list."""
    licence_url: str = ""
    attribution: str = ""
    """Whom to name, and how, wherever the pool is used."""
    columns: dict[str, str] = field(default_factory=dict)
    """Column mapping for sanitize; empty: detected."""
    records: int = 0
    """About how many."""
    good_for: str = ""
    mind: str = ""
    """What to mind: synthetic, outputs of a closed model, non-commercial."""

    def __post_init__(self) -> None:
        """Refuse what could not be imported, or not be accounted for."""
        if missing := [key for key in ("category", "source", "files", "licence") if not getattr(self, key)]:
            raise ConfigError(f"pool {self.name!r}: {missing[0]} is missing; a pool needs it, a licence above all")
        object.__setattr__(self, "licence", spdx(self.licence, f"pool {self.name!r}"))
        check_mapping(self.columns)
        if self.on_hub and self.revision and not _COMMIT.fullmatch(self.revision):
            way = "give the commit of the data set on the hub, 40 hex digits"
            raise ConfigError(f"pool {self.name!r}: revision {self.revision!r} can come to mean other files; {way}")

    @property
    def on_hub(self) -> bool:
        """Whether the source is a data set of the hub rather than a folder."""
        return bool(_HUB_NAME.fullmatch(self.source)) and not Path(self.source).exists()


def read_catalogue(uri: str = "") -> dict[str, PoolSource]:
    """Return the entries of a catalogue by name; without a URI the package's own.

    Raises:
        ConfigError: It cannot be read, or an entry is not as it should be.
        DataError: There is no such file.
    """
    place = uri or str(OWN_TABLE)
    try:
        table = tomllib.loads(storage.read_bytes(place).decode())
        return {name: _read_entry(place, name, entry) for name, entry in table["pools"].items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{place}: not a catalogue of pools ({error}); take {OWN_TABLE} as a model") from error


def find_pool(name: str, catalogue_uri: str, values: Options) -> PoolSource:
    """Return an entry of a catalogue with some fields replaced, or a source that stands in none.

    Without a name `values` describe the source; without a catalogue it is the package's own. Empty values count as
    absent.

    Raises:
        ConfigError: No such entry, a field that belongs to the entry, or a source without what it needs.
    """
    values = {key: value for key, value in values.items() if value}
    if not name:
        own = str(values.get("source", "")).rstrip("/").rpartition("/")[2]
        return _read_entry("import_pool", own, values)
    entries = read_catalogue(catalogue_uri)
    if name not in entries:
        near = difflib.get_close_matches(name, entries, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ConfigError(f"no pool {name!r} in the catalogue; {hint}`mixtune pools` lists all")
    if fixed := sorted(set(values) - _CHANGEABLE):
        way = "leave it out, or leave the name out and give source, files, licence and category yourself"
        raise ConfigError(f"pool {name!r}: {fixed[0]} is the catalogue's to say; {way}")
    return _read_entry("import_pool", name, {**vars(entries[name]), **values})


def _read_entry(place: str, name: str, values: Options) -> PoolSource:
    absent = {"category": "", "source": "", "files": (), "licence": ""}
    return from_dict(PoolSource, {**absent, "name": name, **values}, place)


def check_allowed(pool: PoolSource, allowed: Sequence[str]) -> None:
    """Refuse a licence that is not among those allowed, where any are named.

    Raises:
        ConfigError: The licence is not allowed, or an allowed one is no SPDX expression.
    """
    if allowed and pool.licence not in (allowed_names := [spdx(text, "allowed_licences") for text in allowed]):
        raise ConfigError(f"pool {pool.name!r}: its licence {pool.licence} is not allowed; allowed is {allowed_names}")


def spdx(licence: str, where: str) -> str:
    """Return a licence as SPDX writes it; a ConfigError where it is no SPDX expression."""
    try:
        return str(canonicalize_license_expression(licence))
    except InvalidLicenseExpression as error:
        raise ConfigError(
            f"{where}: licence {licence!r} is not SPDX ({error}); write it as CC-BY-4.0, or LicenseRef-NAME for "
            "one that SPDX does not list"
        ) from error


def pool_argument(pool: PoolSource, uri: str) -> dict[str, object]:
    """Return the pool as an entry of `general_pools`, the only one: its weight is all of the general share."""
    columns = {"columns": pool.columns} if pool.columns else {}
    return {"category": pool.category, "uri": uri, "weight": 100, **columns}


def describe_pool(pool: PoolSource, mirror_uri: str, files: Sequence[storage.FileEntry]) -> Provenance:
    """Return where a pool's files come from, and on what terms."""
    names = ("name", "category", "source", "revision", "licence", "licence_url", "attribution", "columns")
    described = {name: getattr(pool, name) for name in names}
    return Provenance(**described, mirror_uri=mirror_uri, files=tuple(files))
