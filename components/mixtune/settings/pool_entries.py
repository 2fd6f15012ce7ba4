"""An entry of `general_pools`: a general pool as the user describes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixtune.errors import ConfigError
from mixtune.settings.from_dict import from_dict


@dataclass(frozen=True, kw_only=True)
class PoolEntry:
    """A general pool."""

    category: str
    """The pool's name."""
    uri: str
    weight: float | None = None
    """Percent of the general share, 0 to 100; None: follows from the pools' sizes."""
    columns: Mapping[str, str] | None = None


def read_pool_entries(general_pools: Sequence[Mapping[str, object]]) -> list[PoolEntry]:
    """Return the entries, of which all have a weight or none; a ConfigError where a key is unknown or missing."""
    entries = [
        from_dict(PoolEntry, pool, f"general_pools, entry {number}") for number, pool in enumerate(general_pools, 1)
    ]
    unweighted = [number for number, entry in enumerate(entries, 1) if entry.weight is None]
    if unweighted and len(unweighted) < len(entries):
        raise ConfigError(f"general_pools, entry {unweighted[0]}: 'weight' is missing")
    return entries
