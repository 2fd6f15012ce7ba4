"""An entry of `general_pools`: a general pool as the user describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mixtune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PoolEntry:
    """A general pool."""

    category: str
    """The pool's name."""
    uri: str
    weight: float | None = None
    """Percent of the general share, 0 to 100; None: follows from the pools' sizes."""
    columns: Mapping[str, str] = field(default_factory=dict)


def read_pool_entries(general_pools: list[dict[str, Any]]) -> list[PoolEntry]:
    """Return the entries; where one has a weight, all have.

    Raises:
        ConfigError: An unknown or missing key.
    """
    known_keys = {item.name for item in fields(PoolEntry)}
    weighted = any("weight" in pool for pool in general_pools)
    required = {"category", "uri", "weight"} if weighted else {"category", "uri"}
    entries = []
    for number, pool in enumerate(general_pools, start=1):
        if unknown := sorted(set(pool) - known_keys):
            raise ConfigError(
                f"general_pools, entry {number}: unknown key {unknown[0]!r}; there are {sorted(known_keys)}"
            )
        if missing := sorted(required - set(pool)):
            raise ConfigError(f"general_pools, entry {number}: {missing[0]!r} is missing")
        values = {**pool, "columns": dict(pool.get("columns") or {})}
        if weighted:
            values["weight"] = float(pool["weight"])
        entries.append(PoolEntry(**values))
    return entries
