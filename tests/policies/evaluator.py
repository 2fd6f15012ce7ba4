"""AWS's rules for policy documents, as far as policies/ uses them: an explicit deny wins, else an allow is needed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Request:
    principal: str
    action: str
    resource: str
    context: Mapping[str, str]


def allowed(request: Request, identity: dict[str, Any], resource: dict[str, Any]) -> bool:
    """Within one account: either side may allow, neither may deny."""
    effects = [effect for document in (identity, resource) for effect in applying(request, document)]
    return "Deny" not in effects and "Allow" in effects


def applying(request: Request, document: dict[str, Any]) -> list[str]:
    """Effects of the statements that speak of the request."""
    return [item["Effect"] for item in document.get("Statement", []) if _applies(request, item)]


def _applies(request: Request, statement: dict[str, Any]) -> bool:
    return (
        _principal(request, statement.get("Principal", "*"))
        and any(_like(pattern.lower(), request.action.lower()) for pattern in _many(statement["Action"]))
        and _resource(request, statement)
        and all(
            _condition(operator, key, _many(values), request.context)
            for operator, keys in statement.get("Condition", {}).items()
            for key, values in keys.items()
        )
    )


def _principal(request: Request, principal: Any) -> bool:
    if principal == "*":
        return True
    names = _many(principal.get("AWS", []))
    account = request.principal.split(":")[4]
    return request.principal in names or f"arn:aws:iam::{account}:root" in names


def _resource(request: Request, statement: dict[str, Any]) -> bool:
    if "NotResource" in statement:
        return not any(_like(pattern, request.resource) for pattern in _many(statement["NotResource"]))
    return any(_like(pattern, request.resource) for pattern in _many(statement["Resource"]))


def _condition(operator: str, key: str, values: list[str], context: Mapping[str, str]) -> bool:
    found = context.get(key)
    if operator == "Null":
        return (found is None) == (values == ["true"])
    negated = "Not" in operator
    if found is None:
        return negated
    if operator == "NumericLessThan":
        return float(found) < float(values[0])
    test = {"StringLike": _like, "StringEquals": str.__eq__, "ArnEquals": _like, "Bool": str.__eq__}
    return any(test[operator.replace("Not", "")](value, found) for value in values) != negated


def _like(pattern: str, value: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), value) is not None


def _many(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
