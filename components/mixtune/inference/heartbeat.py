"""Lines of progress, at most one in ten seconds whoever speaks, and a forecast of what is left."""

import time
from collections import defaultdict

REPORT_SECONDS = 10.0
_last, _whole = time.perf_counter(), ""


def beat(text: str, *, now: bool = False, whole: str | None = None) -> None:
    """Print a line unless another one of this process is younger than ten seconds; `now`: in any case.

    `whole`: how far all is, which lines of others end in from now on; empty: no more.
    """
    global _last, _whole
    _whole = _whole if whole is None else whole
    moment = time.perf_counter()
    if now or moment - _last >= REPORT_SECONDS:
        _last = moment
        print(text if whole is not None or not _whole else f"{text}; {_whole}", flush=True)


def duration(seconds: float) -> str:
    """Return a time for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Forecast:
    """What is left of several kinds of work, by the speed of what is done of each kind."""

    def __init__(self, counts: dict[str, int]) -> None:
        """Begin with nothing done; `counts` are items by kind."""
        self.counts = counts
        self._scored: dict[str, int] = defaultdict(int)
        self._seconds: dict[str, float] = defaultdict(float)

    def add(self, kind: str, count: int, seconds: float) -> None:
        """Note that some items took some seconds."""
        self._scored[kind] += count
        self._seconds[kind] += seconds

    @property
    def num_scored(self) -> int:
        """Items of all kinds that are done."""
        return sum(self._scored.values())

    def num_of(self, kind: str) -> int:
        """Return the items of a kind that are done."""
        return self._scored[kind]

    def seconds_left(self) -> float | None:
        """Return how long the rest takes; None while a kind has not begun."""
        if any(not self._scored[kind] for kind in self.counts):
            return None
        return sum(
            self._seconds[kind] / self._scored[kind] * (count - self._scored[kind])
            for kind, count in self.counts.items()
        )
