"""Consent: records without it never leave, and an audit table says how many there were of which kind."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixtune import storage
from mixtune.errors import ConfigError
from mixtune.records import Record

GRANTED = ("yes", "true", "1", "y", "granted", "given")
_KEYS = {"required", "values", "list_uri"}


@dataclass(frozen=True, kw_only=True)
class Consent:
    """Which records may be used."""

    required: bool = False
    """Whether a record without a word on consent is refused. One that has a word is held to it in any case."""
    values: tuple[str, ...] = GRANTED
    """What the consent column says where consent was given, in any case of letters."""
    subjects: frozenset[str] = frozenset()
    """Who consented: then the consent column names the subject. Empty: the column says yes or no."""

    def verdict(self, record: Record) -> str:
        """`granted`, `withheld`, `missing`, or empty where nothing was asked or said."""
        said = record.get("consent", "").strip()
        if not said:
            return "missing" if self.required else ""
        if self.subjects:
            return "granted" if said in self.subjects else "withheld"
        return "granted" if said.lower() in self.values else "withheld"


def make_consent(options: Mapping[str, Any]) -> Consent:
    """Consent from the component's option: `required`, `values`, `list_uri` (a text file, one subject a line).

    Raises:
        ConfigError: An unknown key, or a list that names nobody.
        DataError: The list is not there.
    """
    if unknown := sorted(set(options) - _KEYS):
        raise ConfigError(f"consent: unknown key {unknown[0]!r}; there are {', '.join(sorted(_KEYS))}")
    values = tuple(str(value).lower() for value in options.get("values") or GRANTED)
    subjects: frozenset[str] = frozenset()
    if uri := options.get("list_uri"):
        with storage.open_read(storage.check_fingerprint(uri)) as stream:
            lines = stream.read().decode("utf-8-sig").splitlines()
        subjects = frozenset(line.strip() for line in lines if line.strip())
        if not subjects:
            raise ConfigError(f"consent: {uri} names nobody; give one subject a line")
    required = bool(options.get("required", bool(subjects)))
    return Consent(required=required, values=values, subjects=subjects)
