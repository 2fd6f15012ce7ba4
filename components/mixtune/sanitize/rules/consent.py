"""Consent: records without it never leave, and an audit table says how many there were of which kind."""

from dataclasses import dataclass

from mixtune import storage
from mixtune.errors import ConfigError
from mixtune.records import Record
from mixtune.settings.sanitize import ConsentSettings


@dataclass(frozen=True, kw_only=True)
class Consent:
    """Which records may be used, ready to be applied."""

    required: bool = False
    """Whether a record without a word on consent is refused; one that has a word is held to it in any case."""
    values: tuple[str, ...] = ConsentSettings.values
    """Values of the consent column that give it, in lower case."""
    subjects: frozenset[str] = frozenset()
    """Who consented: then the column names the subject. Empty: the column says yes or no."""

    def verdict(self, record: Record) -> str:
        """Return `granted`, `withheld`, `missing`, or an empty text where consent is neither required nor given."""
        value = record.get("consent", "").strip()
        if not value:
            return "missing" if self.required else ""
        is_granted = value in self.subjects if self.subjects else value.lower() in self.values
        return "granted" if is_granted else "withheld"


def read_consent(settings: ConsentSettings) -> Consent:
    """Return the rule that the settings name, with the list of those who consented.

    Raises:
        ConfigError: The list names nobody.
        DataError: The list is not there.
    """
    subjects: frozenset[str] = frozenset()
    if settings.list_uri:
        content = storage.read_bytes(storage.check_fingerprint(settings.list_uri))
        lines = content.decode("utf-8-sig").splitlines()
        subjects = frozenset(line.strip() for line in lines if line.strip())
        if not subjects:
            raise ConfigError(f"consent: {settings.list_uri} names nobody; give one subject a line")
    required = bool(subjects) if settings.required is None else settings.required
    return Consent(required=required, values=tuple(value.lower() for value in settings.values), subjects=subjects)
