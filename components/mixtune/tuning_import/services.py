"""The services whose jobs are read, as `services.toml` describes them: whose a document is, and what it says."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from mixtune.errors import ConfigError
from mixtune.settings.from_dict import from_dict

TABLE = Path(__file__).with_name("services.toml")

Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of one setting of a service."""

    becomes: str = ""
    """Argument of `finetune`, such as `train_options.lora_rank`; empty: there is none."""
    note: str = ""
    """Why there is none, or what to mind."""
    whole: bool = False
    """Whether it counts something."""
    open_weights: bool = False
    """A rate, which means something only where the same weights are tuned again."""
    values: dict[str, int] = field(default_factory=dict)
    """Numbers of its words."""
    zero: bool = False
    """Whether 0 says that it was not set."""
    units: dict[str, str] = field(default_factory=dict)
    """Argument by unit, of a number with a unit; a bare number has the first."""


@dataclass(frozen=True, kw_only=True)
class Service:
    """One service; a path goes into objects by dots, `path=value` asks for a value."""

    name: str
    fits: list[list[str]]
    """Groups of paths; a document that has all of one is this service's."""
    names: list[str]
    """Paths of a job's name, the best first."""
    base: list[str]
    training: list[str]
    """Paths of the file's name; the first that is there counts."""
    validation: list[str] = field(default_factory=list)
    envelope: str = ""
    """Key that an answer holds the job under."""
    open: str = "(?!)"
    """Pattern of base models whose weights can be had."""
    full: str = ""
    """Path that says that all weights were tuned."""
    settings: list[str] = field(default_factory=list)
    """Paths of objects with settings, all of whose keys are listed; the empty path is the job itself."""
    refused: dict[str, list[str]] = field(default_factory=dict)
    """By path, the values that it may have where it is there; none: it may not be there."""
    rules: dict[str, Rule] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a service answers besides jobs."""

    fits: list[str]
    """Paths, of which one is there."""
    says: str
    """What it is, and what to save in its place."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """All of `services.toml`."""

    describing: list[str]
    """Keys of jobs that set nothing."""
    lists: list[str]
    """Keys of an answer that lists jobs."""
    answers: list[Answer]
    services: list[Service]


@dataclass(frozen=True, kw_only=True)
class TuningJob:
    """One job, in one form for all services."""

    service: str
    name: str
    base_model: str
    """As the service calls it."""
    training: str
    """File of the training records, as the service names it."""
    validation: str = ""
    method: str = "lora"
    is_open: bool = False
    """Whether the base model's weights can be had."""
    settings: Mapping[str, object] = field(default_factory=dict)
    """Under the service's names."""
    rules: Mapping[str, Rule] = field(default_factory=dict)
    """By name, as `same_word` has it."""
    refusal: str = ""
    """Why it cannot be moved, such as a training of another kind."""


@cache
def read_table() -> Table:
    """Read the package's table."""
    return from_dict(Table, tomllib.loads(TABLE.read_text()), TABLE.name)


def find_answer(document: object) -> str:
    """Return what a document is that is no job, with the way to one; empty: nothing that is known."""
    fits = (answer.says for answer in read_table().answers if any(_has(document, path) for path in answer.fits))
    return next(fits, "")


def read_job(document: object) -> TuningJob | None:
    """Return the job that a document is, also one that cannot be moved; None: it is none of a service that is known."""
    for service in read_table().services:
        content = look_up(document, service.envelope) or document
        if any(all(_has(content, path) for path in group) for group in service.fits):
            return _read(service, content)
    return None


def look_up(content: object, path: str) -> object:
    """Return what lies at a path, in either style of names (`epochCount`, `epoch_count`); None: nothing does.

    Of a list in the middle of the path comes a list.
    """
    for key in filter(None, path.split(".")):
        if isinstance(content, list) and "=" in key:
            content = [item for item in content if _has(item, key)]
        elif isinstance(content, list):
            content = [look_up(item, key) for item in content]
        else:
            entries = content.items() if isinstance(content, dict) else ()
            content = next((value for name, value in entries if same_word(str(name)) == same_word(key)), None)
    return content


def same_word(name: str) -> str:
    """Return a name as all styles of writing it share it: `epochCount` and `epoch_count` are the same."""
    return name.replace("_", "").lower()


def _file(content: object, paths: list[str], option: str) -> str:
    """Return the only file that the paths lead to, empty where there is none; a ConfigError where there are several."""
    for path in paths:
        value = look_up(content, path)
        files = [str(item) for item in (value if isinstance(value, list) else [value]) if item]
        if len(files) > 1:
            raise ConfigError(f"{path}: {len(files)} files; put them into one folder, and give it by {option}")
        if files:
            return files[0]
    return ""


def _has(content: object, path: str) -> bool:
    if path.startswith("!"):
        return not _has(content, path[1:])
    place, sign, value = path.partition("=")
    there = look_up(content, place)
    return there == value if sign else there is not None


def _read(service: Service, content: object) -> TuningJob:
    name, base = (_first(content, paths) for paths in (service.names, service.base))
    base = base.rpartition("/")[2] if base.startswith("arn:") else base
    try:
        _check_kind(service, name, content)
        training, validation = (
            _file(content, paths, option)
            for paths, option in ((service.training, "--training"), (service.validation, "--validation"))
        )
    except ConfigError as error:
        return TuningJob(service=service.name, name=name, base_model=base, training="", refusal=str(error))
    return TuningJob(
        service=service.name,
        name=name,
        base_model=base,
        training=training,
        validation=validation,
        method="sft" if service.full and _has(content, service.full) else "lora",
        is_open=bool(re.search(service.open, base)),
        settings=_read_settings(service, content),
        rules={same_word(name): rule for name, rule in service.rules.items()},
    )


def _check_kind(service: Service, name: str, content: object) -> None:
    for path, allowed in service.refused.items():
        value = look_up(content, path)
        if value is not None and value not in allowed:
            kind = f"{value}, taken is {' or '.join(allowed)}" if allowed else "another training"
            raise ConfigError(
                f"{service.name} {name}: {path} is {kind}; mixtune tunes on answers: give such records by --training"
            )


def _read_settings(service: Service, content: object) -> Json:
    """Return all keys of the objects with settings, but those that are read elsewhere, describe, or say nothing.

    A key that another object has with another value is listed with its path.
    """
    elsewhere = [*service.names, *service.base, *service.training, *service.validation, *service.refused]
    paths = [_words(path) for path in (*elsewhere, *service.settings)]
    describing = {same_word(key) for key in read_table().describing}
    settings: Json = {}
    for place in service.settings:
        values, start = look_up(content, place), _words(place)
        for key, value in ((str(key), value) for key, value in values.items()) if isinstance(values, dict) else ():
            words = (*start, same_word(key))
            is_read = any(path[: len(words)] == words for path in paths)
            value = value.strip().strip('"') if isinstance(value, str) else value
            if not is_read and words[-1] not in describing and value not in (None, "", [], {}) and value is not False:
                settings[key if settings.get(key, value) == value else f"{place}.{key}"] = value
    return settings


def _words(path: str) -> tuple[str, ...]:
    return tuple(same_word(key) for key in path.split(".") if key)


def _first(content: object, paths: list[str]) -> str:
    for path in paths:
        value = look_up(content, path)
        if value := value[0] if isinstance(value, list) and value else value:
            return str(value)
    return ""
