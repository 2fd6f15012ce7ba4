"""An entry of `benchmarks`: a benchmark as the user describes it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mixtune.errors import ConfigError

UNBOUNDED = {"general_nll", "lm_eval"}
"""Axes and forms whose scores go beyond 1."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkEntry:
    """A benchmark, or the limit of an axis that needs no file."""

    uri: str = ""
    """A file or folder of items; empty: none."""
    max_drop: float | None = None
    """The largest drop allowed; None: the axis's default."""
    options: Mapping[str, object] = field(default_factory=dict)
    """How its items are asked and scored. `customer`, which has no file, takes `min_gain` alone: the gain that is asked
    for on the customer's records."""

    @property
    def question(self) -> str:
        """The column that asks, where the options name it; else empty."""
        columns = self.options.get("columns")
        return str(columns.get("question") or "") if isinstance(columns, Mapping) else ""


def read_benchmark_entries(benchmarks: Mapping[str, object]) -> dict[str, BenchmarkEntry]:
    """Return the entries by axis; a bare text stands for `{"uri": text}`.

    Raises:
        ConfigError: An entry that is neither a URI nor an object, or a wrong `max_drop`.
    """
    entries = {}
    for name, value in benchmarks.items():
        if isinstance(value, str):
            value = {"uri": value}
        if not isinstance(value, Mapping):
            raise ConfigError(f"benchmarks: {name!r} is a URI or an object with one; got {value!r}")
        drop = value.get("max_drop")
        if drop is not None and (isinstance(drop, bool) or not isinstance(drop, int | float) or not drop >= 0):
            raise ConfigError(f"benchmarks: {name!r}: max_drop is a number from 0, such as 0.02; got {drop!r}")
        if drop is not None and drop > 1 and not {name, str(value.get("form"))} & UNBOUNDED:
            raise ConfigError(f"benchmarks: {name!r}: max_drop is a share, so that 0.02 is 2 %; got {drop:g}")
        if not isinstance(value.get("uri") or "", str):
            raise ConfigError(f"benchmarks: {name!r}: uri is a text; got {value['uri']!r}")
        own = {key: value[key] for key in ("uri", "max_drop") if value.get(key) is not None}
        entries[name] = BenchmarkEntry(
            **own, options={key: value[key] for key in value if key not in ("uri", "max_drop")}
        )
    return entries
