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
    "string": str, "integer": int, "number": float, "float": float, "boolean": bool, "array": list, "tuple": list,
    "object": dict, "dict": dict, "any": str,
}  # fmt: skip


def are_expected(
    calls: Sequence[WrittenCall], expected: Sequence[tuple[str, Expected]], tools: Sequence[Mapping[str, Value]]
) -> bool:
    """Return whether calls are the expected ones, in any order.

    Args:
        calls: What the model wrote.
        expected: Name and arguments of every call.
        tools: `name` and `parameters` (a JSON schema) of what may be called.
    """
    if len(calls) != len(expected):
        return False
    schemas = {str(tool.get("name")): tool.get("parameters") for tool in tools}
    rest = list(calls)
    for name, arguments in expected:
        match = next((call for call in rest if is_expected(call, name, arguments, schemas.get(name))), None)
        if match is None:
            return False
        rest.remove(match)
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
        kind = properties.get(argument, {}).get("type") if properties else None
        if not _is_right(value, expected[argument], str(kind or "")):
            return False
    return all(argument in call.arguments or "" in values for argument, values in expected.items())


def _is_right(value: Value, expected: Sequence[Value], kind: str) -> bool:
    """Return whether an argument's value is one of the expected ones, and of its type."""
    expected_type = _TYPES.get(kind)
    if isinstance(value, tuple):
        value = list(value)
    if expected_type is float and type(value) is int:
        value = float(value)
    example = next((type(item) for item in expected if item != ""), None)
    if expected_type is not None and type(value) is not expected_type and type(value) is not example:
        return False
    if isinstance(value, dict):
        return any(_is_right_object(value, item) for item in expected if isinstance(item, Mapping))
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        lists = [item for item in expected if isinstance(item, list) and len(item) == len(value)]
        return any(
            all(isinstance(b, Mapping) and _is_right_object(a, b) for a, b in zip(value, item, strict=True))
            for item in lists
        )
    return _spelled(value) in [_spelled(item) for item in expected]


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
