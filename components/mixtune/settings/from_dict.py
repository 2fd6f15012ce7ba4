"""Dataclasses from plain values: a user's options, or a file of ours; wrong ones are named with the way out."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from mixtune.errors import ConfigError

T = TypeVar("T")
Options: TypeAlias = Mapping[str, Any]
"""Values as a user wrote them, not yet checked."""
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def from_dict(cls: type[T], value: object, name: str) -> T:
    """Build a dataclass, and those inside it, from a dictionary as JSON has it; errors call it `name`.

    Annotations are classes, `X | None`, `Literal`, `Any`, dataclasses, and tuples, lists, frozensets and dictionaries
    of them. A whole number may be written as `3.0`, as KFP writes it; lists become the annotated tuple or set.

    Raises:
        ConfigError: An unknown or missing key, a value of another type, or one that `__post_init__` refuses.
    """
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} is a dictionary; got {value!r}")
    accepted = {field.name: field for field in fields(cls) if field.init}  # type: ignore[arg-type]
    derived = {field.name for field in fields(cls) if not field.init}  # type: ignore[arg-type]
    if unknown := [key for key in value if key not in accepted and key not in derived]:
        grouped = find_option(cls, str(unknown[0]))
        way = f"write {grouped[0]!r}" if grouped else suggest(unknown[0], accepted)
        raise ConfigError(f"{name}: unknown key {unknown[0]!r}; {way}")
    for key, field in accepted.items():
        if key not in value and field.default is MISSING and field.default_factory is MISSING:
            raise ConfigError(f"{name}: {key!r} is missing")
    hints = _type_hints(cls)  # type: ignore[arg-type]
    arguments = {key: _convert(hints[key], item, f"{name}: {key}") for key, item in value.items() if key not in derived}
    try:
        return cls(**arguments)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


@cache
def _type_hints(cls: type[object]) -> dict[str, Any]:
    return get_type_hints(cls)


def find_option(cls: type[object], name: str) -> list[str]:
    """Return how a field is written that a dataclass has: alone, or behind the name of each group that has it."""
    hints = _type_hints(cls)  # type: ignore[arg-type]
    return [name] if name in hints else [f"{group}.{name}" for group, kind in hints.items() if _has_field(kind, name)]


def _has_field(kind: object, name: str) -> bool:
    return is_dataclass(kind) and any(field.name == name for field in fields(kind))


def suggest(name: str, names: Iterable[str]) -> str:
    """Return what a message says after an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def _convert(kind: Any, value: Any, name: str) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return _convert_union(arguments, value, name)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{name} is one of {', '.join(map(str, arguments))}; got {value!r}")
        return value
    if is_dataclass(kind) and isinstance(kind, type):
        return value if isinstance(value, kind) else from_dict(kind, value, name)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{name} is a dictionary; got {value!r}")
        return {key: _convert(arguments[1], item, f"{name}: {key}") for key, item in value.items()}
    if origin in (tuple, list, frozenset):
        return _convert_list(origin, arguments, value, name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number:
        return float(value)
    if kind is int and is_number and abs(value) < 2**63 and float(value).is_integer():
        return int(value)
    if kind not in (int, float) and isinstance(value, kind):
        return value
    raise ConfigError(f"{name} is {_NAMES.get(kind, kind.__name__)}; got {value!r}")


def _convert_union(kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    """Return the value as the first of several types that takes it."""
    if value is None and NoneType in kinds:
        return None
    *others, last = (kind for kind in kinds if kind is not NoneType)
    for kind in others:
        try:
            return _convert(kind, value, name)
        except ConfigError:
            continue
    return _convert(last, value, name)


def _convert_list(container: Any, kinds: tuple[Any, ...], value: Any, name: str) -> Any:
    if not isinstance(value, list | tuple | set | frozenset):
        raise ConfigError(f"{name} is a list; got {value!r}")
    if container is tuple and kinds[-1] is not Ellipsis:
        if len(value) != len(kinds):
            raise ConfigError(f"{name} is a list of {len(kinds)}; got {value!r}")
        return tuple(_convert(kind, item, name) for kind, item in zip(kinds, value, strict=True))
    return container(_convert(kinds[0], item, f"{name}, entry {place}") for place, item in enumerate(value, 1))
