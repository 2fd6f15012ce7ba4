"""What Kubernetes' API server says of a custom object in strict mode, by the schema of its CRD.

Beside the schema's own checks: fields that it does not name are refused, since they would be pruned; the items of a map
or a set are there once; defaults are filled in; and the rules in CEL (`x-kubernetes-validations`) hold, evaluated by
CEL's own C++ library (PyPI `cel-expr-python`). Rules over the old object (`oldSelf`) are for updates, and left out.
"""

import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema

CEL = "cel-expr-python==0.1.3"
PRESERVE = "x-kubernetes-preserve-unknown-fields"
Schema = dict[str, Any]


def strict_errors(schema: Schema, value: Any, cel: Path) -> list[str]:
    """What is wrong with an object; `cel` is the folder of CEL's package."""
    found = [
        f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"
        for error in jsonschema.Draft202012Validator(_nullable(schema)).iter_errors(value)
    ]
    found += _unknown(schema, value, "", is_root=True)
    return found or list(_broken_rules(schema, _with_defaults(schema, value), "", cel))


def _nullable(schema: Any) -> Any:
    """The schema with OpenAPI's `nullable` as JSON Schema has it."""
    if isinstance(schema, list):
        return [_nullable(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: _nullable(item) for key, item in schema.items()}
    if out.get("nullable") is True and isinstance(out.get("type"), str):
        out["type"] = [out["type"], "null"]
    return out


def _unknown(schema: Schema, value: Any, where: str, *, is_root: bool = False) -> Iterator[str]:
    """Fields that are not in the schema, and items that are there twice."""
    if isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        if schema.get("x-kubernetes-list-type") in ("map", "set"):
            names = [repr([item.get(key) for key in keys] if keys else item) for item in value]
            yield from (f"{where}: {name} is there twice" for name in {n for n in names if names.count(n) > 1})
        for place, item in enumerate(value):
            yield from _unknown(schema.get("items", {}), item, f"{where}[{place}]")
    if not isinstance(value, dict) or schema.get(PRESERVE):
        return
    fields, others = schema.get("properties", {}), schema.get("additionalProperties")
    for key, item in value.items():
        if key in fields:
            if not (is_root and key == "metadata"):
                yield from _unknown(fields[key], item, f"{where}.{key}")
        elif isinstance(others, dict):
            yield from _unknown(others, item, f"{where}.{key}")
        elif not (others is True or (is_root and key in ("apiVersion", "kind", "metadata"))):
            yield f"{where}.{key}: unknown field"


def _with_defaults(schema: Schema, value: Any) -> Any:
    if isinstance(value, list):
        return [_with_defaults(schema.get("items", {}), item) for item in value]
    if not isinstance(value, dict):
        return value
    fields = schema.get("properties", {})
    filled = {**{key: item["default"] for key, item in fields.items() if "default" in item}, **value}
    return {key: _with_defaults(fields[key], item) if key in fields else item for key, item in filled.items()}


def _broken_rules(schema: Schema, value: Any, where: str, cel: Path) -> Iterator[str]:
    """The rules that do not hold for a value, or for one within it."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not _holds(str(cel), rule["rule"], value):
            yield f"{where}: {rule.get('message') or rule['rule']}"
    if isinstance(value, list):
        for place, item in enumerate(value):
            yield from _broken_rules(schema.get("items", {}), item, f"{where}[{place}]", cel)
    if isinstance(value, dict):
        for key, item in value.items():
            others = schema.get("additionalProperties")
            inner = schema.get("properties", {}).get(key) or (others if isinstance(others, dict) else {})
            yield from _broken_rules(inner, item, f"{where}.{key}", cel)


def _holds(folder: str, rule: str, value: Any) -> bool:
    answer = _compile(folder, rule).eval(data={"self": value}).value()
    if not isinstance(answer, bool):
        raise AssertionError(f"{rule}: {answer}")
    return answer


@lru_cache
def _compile(folder: str, rule: str) -> Any:
    if folder not in sys.path:
        sys.path.append(folder)
    from cel_expr_python import cel  # type: ignore[import-not-found]
    from cel_expr_python.ext import ext_strings  # type: ignore[import-not-found]

    environment = cel.NewEnv(variables={"self": cel.Type.DYN}, extensions=[ext_strings.ExtStrings()])
    return environment.compile(rule)
