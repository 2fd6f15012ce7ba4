"""Spans of traces: OpenTelemetry's, OpenInference's and OpenLLMetry's, whose lists are fields with a number each."""

import re

from mixtune.sanitize.reading.fields import TABLES
from mixtune.sanitize.reading.values import Json, JsonObject, parse_if_json

_NAMES = TABLES["traced"]
_TRACED = re.compile(r"attributes|llm\b|gen_ai\.")
_AROUND = ("message", "tool_call", "message_content", "tool", "json_schema")
"""Names that OpenInference puts around what it lists."""


def traced(row: JsonObject) -> JsonObject:
    """Return the row of a request and its answer that a span holds by our names; any other as it is."""
    if not any(map(_TRACED.match, row)):
        return row
    inner = parse_if_json(row.get("attributes"))
    fields = {name.removeprefix("attributes."): value for name, value in row.items() if name != "attributes"}
    fields |= inner if isinstance(inner, dict) else {}
    tree = _nested(fields)
    values = {ours: value for name, ours in _NAMES.items() if (value := _at(tree, name)) is not None}
    if not {"messages", "response"} <= values.keys():
        return row
    return {name: value for name, value in fields.items() if not name.startswith(tuple(_NAMES))} | values


def _nested(fields: JsonObject) -> JsonObject:
    """Return fields whose names are paths as objects inside one another."""
    tree: JsonObject = {}
    for name, value in fields.items():
        *path, last = name.split(".")
        node = tree
        for key in path:
            node = node[key] if isinstance(node.get(key), dict) else node.setdefault(key, {})
            if not isinstance(node, dict):
                return fields
        node[last] = value
    return tree


def _at(tree: JsonObject, name: str) -> Json:
    node: Json = tree
    for key in name.split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return parse_if_json(node) if name.startswith("gen_ai") and isinstance(node, str) else _plain(parse_if_json(node))


def _plain(value: Json) -> Json:
    """Return a list whose items are numbered as a list, and without the names around them."""
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if any(name.startswith(f"{around}.") for name in value for around in _AROUND):
        value = _nested(value)
    if value and all(map(str.isdecimal, value)):
        return [_plain(value[number]) for number in sorted(value, key=int)]
    around = next((name for name in _AROUND if value.keys() == {name}), "")
    return _plain(value[around]) if around else {name: _plain(item) for name, item in value.items()}
