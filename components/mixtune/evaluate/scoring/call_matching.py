"""Whether calls are the expected ones, by the rules of the Berkeley leaderboard (BFCL) for Python's types.

An expected argument is a list of values that are all right; the empty text among them says that it may be missing.
Texts are compared without case, spaces and `,./-_*^`; a whole number is right for a decimal one.
"""

import re
from collections.abc import Mapping, Sequence

from mixtune.evaluate.scoring.written_calls import Value, WrittenCall

Expected = Mapping[str, Sequence[Value]]
"""Right values by argument."""
_IGNORED = re.compile(r"[ ,./\-_*^]")
_TYPES: dict[str, type] = {
    **{"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict},
    **{"any": str, "float": float, "tuple": list, "dict": dict},  # BFCL's own
}


def are_expected(
    calls: Sequence[WrittenCall], expected: Sequence[tuple[str, Expected]], tools: Sequence[Mapping[str, Value]]
) -> bool:
    """Return whether a model's calls are the expected ones (name and arguments), in any order.

    `tools` have `name` and `parameters`, a schema in JSON's or BFCL's types.
    """
    if len(calls) != len(expected):
        return False
    schemas = {str(tool.get("name")): tool.get("parameters") for tool in tools}
    rest = list(calls)
    for name, arguments in expected:
        places = (place for place, call in enumerate(rest) if is_expected(call, name, arguments, schemas.get(name)))
        place = next(places, None)
        if place is None:
            return False
        rest.pop(place)
    return True


def is_expected(call: WrittenCall, name: str, expected: Expected, schema: Value) -> bool:
    """Return whether one call is the expected one; a dot of a name may be written as an underscore."""
    if call.name.replace(".", "_") != name.replace(".", "_"):
        return False
    schema = schema if isinstance(schema, Mapping) else {}
    properties, required = schema.get("properties") or {}, schema.get("required") or ()
    if any(argument not in call.arguments for argument in required):
        return False
    for argument, value in call.arguments.items():
        if argument not in expected or (properties and argument not in properties):
            return False
        if not _is_right(value, expected[argument], properties.get(argument, {})):
            return False
    return all(argument in call.arguments or "" in values for argument, values in expected.items())


def _is_right(value: Value, expected: Sequence[Value], schema: Mapping[str, Value]) -> bool:
    """Return whether an argument's value is one of the expected ones, and of its type.

    Where the expected values are of another type than the schema's, they are names of variables: compared as they are.
    """
    kind, inner = schema.get("type"), schema.get("items")
    expected_type, example = _TYPES.get(str(kind or "")), _first_type(expected)
    if isinstance(value, tuple) and kind == "tuple":
        value = list(value)
    if expected_type is float and type(value) is int:
        value = float(value)
    if expected_type is not None and type(value) not in (expected_type, example):
        return False
    if expected_type is not None and example not in (None, expected_type):
        return value in expected
    item_type = _TYPES.get(str(inner.get("type") or "")) if isinstance(inner, Mapping) else None
    lists = [item if isinstance(item, list) else [] for item in expected]
    # Of a list, all items are of the type, or all of that of one expected list's.
    types = [(item_type, _first_type(item)) for item in lists]
    if item_type and isinstance(value, list) and not any(all(type(item) in pair for item in value) for pair in types):
        return False
    if isinstance(value, dict):
        return any(_is_right_object(value, item) for item in expected if isinstance(item, Mapping))
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        lists = [item for item in expected if isinstance(item, list) and len(item) == len(value)]
        return any(
            all(isinstance(b, Mapping) and _is_right_object(a, b) for a, b in zip(value, item, strict=True))
            for item in lists
        )
    nothing: Value = [] if isinstance(value, list) else ""
    return _spelled(value) in [_spelled(nothing if item == "" else item) for item in expected]


def _first_type(values: Sequence[Value]) -> type | None:
    """Return the type of the first value that is not the empty text."""
    return next((type(item) for item in values if item != ""), None)


def _is_right_object(value: Mapping[str, Value], expected: Mapping[str, Value]) -> bool:
    """Return whether an object has the expected entries, each a list of right values."""
    for key, item in value.items():
        values = expected.get(key)
        if not isinstance(values, list) or _spelled(item) not in [_spelled(other) for other in values]:
            return False
    return all(key in value or (isinstance(values, list) and "" in values) for key, values in expected.items())


def _spelled(value: Value) -> Value:
    """Return a value as it is compared; true is not 1."""
    if isinstance(value, bool):
        return f"bool {value}"
    if isinstance(value, str):
        return "text " + _IGNORED.sub("", value).lower().replace("'", '"')
    return [_spelled(item) for item in value] if isinstance(value, list) else value
