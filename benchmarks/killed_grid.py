"""A mix grid killed in the middle and run again: nothing that was done is done twice, and the report is the same.

    python benchmarks/killed_grid.py --work DIR --results benchmarks/results/killed_grid.md

The demo's world, few epochs. One run goes through undisturbed; another, in a work folder of its own, is killed with all
its processes (SIGKILL) at seeded random moments, each time run again, and at last left alone.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DONE = re.compile(r"^([\w-]+(?: \d[\d.]* %)?): done in", re.MULTILINE)
ALWAYS = ("fingerprint", "preflight", "compare", "choose-mix", "record-outcome", "clean-up")
"""Steps that are never taken from the cache."""
CACHED = re.compile(r"^([\w-]+(?: \d[\d.]* %)?): from the cache$", re.MULTILINE)


def run_grid(arguments: Path, work: Path, log: Path, seconds: float = 0.0) -> str:
    """What one run prints; killed after some seconds where they are not 0."""
    command = [sys.executable, "-m", "mixtune.cli", "run", "mix_grid", "--arguments", str(arguments)]
    with open(log, "w", encoding="utf-8") as stream:
        grid = subprocess.Popen([*command, "--work-dir", str(work)], stdout=stream, start_new_session=True)
        try:
            grid.wait(seconds or None)
        except subprocess.TimeoutExpired:
            os.killpg(grid.pid, signal.SIGKILL)
            grid.wait()
    return log.read_text()


def report(work: Path) -> dict[str, Any]:
    """What the grid's one whole run found, but for where its models lie and how long they took."""
    (file,) = work.glob("reports/*/report.json")
    return dict(json.loads(file.read_text(), object_hook=_same_everywhere))


def _same_everywhere(found: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in found.items() if key not in ("model_uri", "command", "cost")}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--epochs", type=float, default=0.3)
    options = parser.parse_args()
    write = [sys.executable, "-m", "mixtune.cli", "demo", "--epochs", str(options.epochs)]
    subprocess.run([*write, "--write-only", str(options.work / "world")], check=True)
    arguments = options.work / "world" / "mix_grid.json"
    began = time.monotonic()
    run_grid(arguments, options.work / "whole", options.work / "whole.log")
    whole = time.monotonic() - began
    draw, rows, finished = random.Random(7), [], 0
    for kill in range(options.kills + 1):
        last = kill == options.kills
        seconds = 0.0 if last else draw.uniform(0.2, 0.9) * whole
        text = run_grid(arguments, options.work / "killed", options.work / f"killed-{kill}.log", seconds)
        done, cached = DONE.findall(text), CACHED.findall(text)
        again = max(0, finished - len(cached))
        finished = len(cached) + len([name for name in done if name.split(" ")[0] not in ALWAYS])
        rows.append(f"| {f'{seconds:.0f} s' if seconds else 'left alone'} | {len(cached)} | {len(done)} | {again} |")
        print(rows[-1], flush=True)
    same = report(options.work / "whole") == report(options.work / "killed")
    lines = [
        "# A mix grid killed and run again",
        "",
        f"2026-11-25, {os.cpu_count()} CPU cores, shared with other work;",
    ]
    lines += ["`python benchmarks/killed_grid.py --work DIR --results FILE`", ""]
    lines += ["| killed after | steps from the cache | steps run | cached steps of before that were run again |"]
    lines += ["|---|---|---|---|", *rows, ""]
    lines += [
        f"Undisturbed: {whole:.0f} s. But for where the models lie and how long they took, the report's JSON is "
        f"{'the same' if same else 'NOT THE SAME'} as undisturbed."
    ]
    options.results.write_text("\n".join(lines) + "\n")
    raise SystemExit(0 if same else 1)


if __name__ == "__main__":
    main()
