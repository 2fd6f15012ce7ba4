"""CPU time of this tree's code beside an older revision's: processes in turns, the median of each, and their ratio.

The older revision lies in a git worktree while it is measured. A process prints its CPU seconds, and a digest of what it
made, as JSON in its last line. On a shared machine single passes scatter; two revisions in turns meet the same neighbours.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

TREE = Path(__file__).parents[1]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


@dataclass(frozen=True)
class Measured:
    """What both revisions took, in CPU seconds."""

    before: float
    now: float
    made: list[Any]
    """What the code as it is now says of its output."""
    is_same: bool
    """The older says the same."""

    @property
    def ratio(self) -> float:
        """Speed now, as a multiple of that before."""
        return self.before / self.now


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Yield a folder with the files of a revision."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "tree"
        git = ["git", "-C", str(TREE), "worktree"]
        subprocess.run([*git, "add", "--detach", "--force", str(folder), revision], check=True, capture_output=True)
        try:
            yield folder
        finally:
            subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def run_in(tree: Path, command: list[str]) -> tuple[float, list[Any]]:
    """Run a Python command on a tree's code; its CPU seconds and what it says of its output come back."""
    environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(tree / "components")}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{command} on {tree} ended with {done.returncode}: {done.stderr[-2000:]}")
    seconds, *made = json.loads(done.stdout.splitlines()[-1])
    return float(seconds), made


def measure(older: Path, command: Callable[[Path], list[str]], rounds: int) -> Measured:
    """Run the command of two trees in turns."""
    runs: dict[Path, list[tuple[float, list[Any]]]] = {older: [], TREE: []}
    for number in range(rounds):
        for tree in (older, TREE) if number % 2 else (TREE, older):
            runs[tree].append(run_in(tree, command(tree)))
    before, now = (median(seconds for seconds, _ in runs[tree]) for tree in (older, TREE))
    made = runs[TREE][0][1]
    return Measured(before, now, made, made == runs[older][0][1])
