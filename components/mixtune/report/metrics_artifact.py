"""The metrics that a task's page shows."""

import math
from collections.abc import Mapping
from typing import Protocol

from mixtune import storage


class Metrics(Protocol):
    """A KFP artifact of that kind."""

    path: str

    def log_metric(self, metric: str, value: float) -> None:
        """Show a value."""


def write_metrics(artifact: Metrics, values: Mapping[str, float | None]) -> None:
    """Show values on a task's page, and write them to the artifact's file.

    KFP's launcher fails a task after its work for a metric that is None or no finite number: these are left out, and
    the log says so. KFP's local cache forgets a task of whose artifacts one has no file.
    """
    numbers = {name: float(value) for name, value in values.items() if value is not None}
    finite = {name: number for name, number in numbers.items() if math.isfinite(number)}
    if omitted := [f"{name} ({value})" for name, value in values.items() if name not in finite]:
        print(f"warning: not shown, since no finite number: {', '.join(omitted)}", flush=True)
    for name, number in finite.items():
        artifact.log_metric(name, number)
    storage.write_json(artifact.path, finite)
