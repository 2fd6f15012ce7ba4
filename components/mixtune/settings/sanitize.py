"""Settings of sanitize: rules for texts and people's data, duplicates, splits; checked without any data."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from mixtune.errors import ConfigError
from mixtune.settings.chat import ChatSettings
from mixtune.settings.from_dict import Options, from_dict

PERSONAL_KINDS = ("email", "phone", "card", "iban", "ssn", "national_id", "ip", "secret", "medical_record")
NAME_KINDS = ("name", "address")
"""Kinds of personal data that a language model finds; looked for only where they have a policy."""
PHONE_ELSEWHERE = "phone_elsewhere"
"""Kind of numbers in the form of another country's telephones: counted and left as they are."""
POLICIES = ("redact", "pseudonym", "drop", "report", "keep")


@dataclass(frozen=True, kw_only=True)
class SourceSettings:
    """Files that become records of a pool."""

    name: str
    """Of the pool."""
    uri: str
    """File, folder or pattern such as `part-*.csv`, local or `s3://`, with `#digest` where it is fingerprinted."""
    columns: dict[str, str] = field(default_factory=dict)
    """Column mapping; empty: detected."""
    split: Literal["train", "test"] = "train"


@dataclass(frozen=True, kw_only=True)
class DedupSettings:
    """What counts as a copy, and what becomes of it."""

    normalised: Literal["drop", "keep"] = "drop"
    """Records that are equal but for case, spacing and punctuation of their questions; exact copies always go."""
    near_duplicates: float = 0.9
    """Least Jaccard similarity of near-duplicates by five-word shingles, above 0 to 1; short questions that differ but
    in articles and courtesies are such, too. 0: none are looked for."""
    near_engine: Literal["memory", "daft"] = "memory"
    """What finds candidates for near-duplicates, with the same result: `memory`, or `daft` for tens of millions."""
    conflicts: Literal["keep", "drop"] = "keep"
    """Nearly equal questions with different answers; counted and listed in any case."""
    label_leaks: Literal["keep", "drop"] = "keep"
    """Questions that hold the words of their label; counted in any case."""

    def __post_init__(self) -> None:
        if not 0 <= self.near_duplicates <= 1:
            raise ConfigError(f"near_duplicates is a similarity, 0 to 1; got {self.near_duplicates}")


@dataclass(frozen=True, kw_only=True)
class SplitSettings:
    """How many records of each pool are held back."""

    test_ratio: float = 0.1
    """Share held back as `test` where no source gives one and no holdout is drawn, 0 to below 1."""
    validation_ratio: float = 0.0
    """Share held back as `validation`, 0 to below 1."""
    holdout_records: int = 0
    """Number held back as `holdout`, at most a tenth of the pool."""

    def __post_init__(self) -> None:
        for name in ("test_ratio", "validation_ratio"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is a share, 0 to below 1; got {getattr(self, name)}")
        if self.holdout_records < 0:
            raise ConfigError(f"holdout_records is 0 or more; got {self.holdout_records}")

    def num_records(self, total: int, has_test: bool) -> dict[str, int]:
        """Return how many of `total` records each split draws; `has_test`: the test records come from elsewhere."""
        return {
            "test": 0 if has_test or self.holdout_records else round(self.test_ratio * total),
            "validation": round(self.validation_ratio * total),
            "holdout": min(self.holdout_records, total // 10),
        }


@dataclass(frozen=True, kw_only=True)
class TextSettings:
    """How rows become clean texts."""

    markers: Literal["space", "strip", "drop", "fail", "keep"] = "space"
    """Reserved text markers: a space before a role's colon and tags removed; both removed; the record dropped; the run
    stopped; or all kept."""
    extra_markers: tuple[str, ...] = ()
    """Further markers, removed wherever they stand."""
    also_normalise: tuple[Literal["quotes", "spaces"], ...] = ()
    """In lines of prose: straight quotes; one space for a run of them."""
    phone_region: str = "US"
    """Country whose telephone numbers may stand without its code; two letters."""
    name_model: str = "en_core_web_sm"
    """Installed spaCy model that finds names and addresses, or its folder."""
    max_bad_ratio: float = 0.05
    """Share of a file's rows that may be unreadable or no conversation, 0 to 1; above it the run stops."""
    encoding: str = ""
    """Of rows of CSV and TSV that are not UTF-8, such as `cp1250`; empty: Windows-1252 where their letters tell it."""

    def __post_init__(self) -> None:
        if self.encoding and not _is_encoding(self.encoding):
            raise ConfigError(f"encoding: {self.encoding!r} is not known; Excel's in western countries is cp1252")
        if not re.fullmatch("[A-Z]{2}", self.phone_region):
            raise ConfigError(f"phone_region is a country's two capital letters, such as DE; got {self.phone_region!r}")
        if not 0 <= self.max_bad_ratio <= 1:
            raise ConfigError(f"max_bad_ratio is a share, 0 to 1; got {self.max_bad_ratio}")
        if any(not marker.strip() for marker in self.extra_markers):
            raise ConfigError("extra_markers holds a blank one, which stands everywhere; take it out")


def advise_region(personal_data: Mapping[str, int], region: str) -> str:
    """Return what to do about numbers in the form of another country's telephones; empty where there are none."""
    if not (count := personal_data.get(PHONE_ELSEWHERE, 0)):
        return ""
    return (
        f"{count:,} numbers are written like telephones of another country than {region}, and stay: are they any? "
        "Then set sanitize_options.text.phone_region to yours, such as 'DE'"
    )


def _is_encoding(name: str) -> bool:
    try:
        return "a" in b"a".decode(name)
    except (LookupError, UnicodeDecodeError):
        return False


@dataclass(frozen=True, kw_only=True)
class ConsentSettings:
    """Which records may be used by what their consent column says."""

    required: bool | None = None
    """Whether records without a word on consent are dropped; None: they are where `list_uri` names who consented."""
    values: tuple[str, ...] = ("yes", "true", "1", "y", "granted", "given")
    """What the column says where consent was given, in any case of letters."""
    list_uri: str = ""
    """Text file of those who consented, one a line: then the column names the subject."""


@dataclass(frozen=True, kw_only=True)
class SanitizeSettings:
    """All rules of sanitize."""

    dedup: DedupSettings = DedupSettings()
    splits: SplitSettings = SplitSettings()
    text: TextSettings = TextSettings()
    personal_data: dict[str, str] = field(default_factory=dict)
    """Policy by kind; `default` for the kinds that are not named, else they are redacted."""
    consent: ConsentSettings = ConsentSettings()
    chat: ChatSettings = field(default_factory=ChatSettings)
    """How records are rendered for the proof; a pipeline takes it from `mix_options`."""
    seed: int = 42
    """Of the splits."""

    def __post_init__(self) -> None:
        for kind, policy in self.personal_data.items():
            if kind not in (*PERSONAL_KINDS, *NAME_KINDS, "default"):
                kinds = ", ".join((*PERSONAL_KINDS, *NAME_KINDS))
                raise ConfigError(f"personal_data: unknown kind {kind!r}; there are {kinds} and default")
            if policy not in POLICIES:
                raise ConfigError(f"personal_data: {kind} is {policy!r}; policies are {', '.join(POLICIES)}")


def read_sanitize_settings(parameters: Options, options: Options | None = None) -> SanitizeSettings:
    """Return the settings that the component's parameters name.

    Args:
        parameters: Fields of SanitizeSettings by name.
        options: The same, as a pipeline hands them on: groups are merged key by key, and `parameters` win.

    Raises:
        ConfigError: An unknown name, or a value that is not as it should be.
    """
    merged = {**(options or {}), **parameters}
    if options and "seed" in options and "seed" in parameters:
        raise ConfigError("sanitize_options: seed is a parameter of its own")
    for group in [item.name for item in fields(SanitizeSettings) if item.name != "seed"]:
        named = [values.get(group, {}) for values in (options or {}, parameters)]
        if all(isinstance(values, Mapping) for values in named):
            merged[group] = {key: value for values in named for key, value in values.items()}
    return from_dict(SanitizeSettings, merged, "sanitize")
