"""Dataclasses from JSON that others define: what we do not read is left out, what we read is checked."""

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

from mixtune.settings.from_dict import from_dict

T = TypeVar("T")
JsonObject: TypeAlias = dict[str, Any]
"""A JSON object of a form that others define; whoever reads a value of it says what it is."""
_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")


def read_known(cls: type[T], value: object, name: str) -> T:
    """Build a dataclass, and those inside it, from a JSON object; keys that they do not have and nulls are left out.

    All its fields have defaults. A key in camel case, `trainingData`, is the field `training_data`. Errors call it
    `name`.

    Raises:
        ConfigError: It is no object, or a field has a value of another type.
    """
    return from_dict(cls, _prune(cls, value), name)


def _prune(kind: object, value: object) -> object:
    if is_dataclass(kind) and isinstance(value, Mapping):
        hints = get_type_hints(kind)
        values = {_CAPITAL.sub("_", str(key)).lower(): item for key, item in value.items() if item is not None}
        return {item.name: _prune(hints[item.name], values[item.name]) for item in fields(kind) if item.name in values}
    inner = [item for item in get_args(kind) if is_dataclass(item)]
    if inner and isinstance(value, list):
        return [_prune(inner[0], item) for item in value]
    return _prune(inner[0], value) if inner else value
