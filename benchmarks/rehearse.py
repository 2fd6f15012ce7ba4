"""What rehearsal is worth in the demo's world: customer-only tuning beside a mix with records of the base model alone.

    python benchmarks/rehearse.py --work DIR --results benchmarks/results/rehearse.md

For every seed the base model makes a pool (`rehearse`), and a mix grid is trained with that pool as its only general one:
customer records only, and half and half. The benchmarks are the demo's. A seed measured in DIR before is not run again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from mixtune.artifacts.comparison import Measure
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.typed_json import from_json
from mixtune.demo.demo_data import write_world

NUM_RECORDS = 2000
PERCENTS = (100.0, 50.0)
GENERAL = {"mmlu": "knowledge", "ifeval": "instructions"}


def measure(seed: int, work: Path) -> dict[str, Any]:
    """One seed: the rehearsal's manifest, what the grid wrote, and seconds."""
    measured = work / "measured.json"
    if measured.exists():
        return dict(json.loads(measured.read_text()))
    world, pool = write_world(work / "world", seed), work / "pool"
    began = time.monotonic()
    options = {"max_prompt_tokens": 96, "max_new_tokens": 64, "seed": seed}
    rehearsed_by = {"base_model": world.base_model, "num_records": NUM_RECORDS, "options": options}
    run("rehearse", {**rehearsed_by, "out_uri": str(pool)}, work)
    rehearsed = time.monotonic()
    rehearsal = [{"category": "rehearsal", "uri": str(pool / "records.jsonl"), "weight": 100}]
    changed = {"general_pools": rehearsal, "customer_data_percents": list(PERCENTS), "dial": []}
    run("mix_grid", {**world.grid_arguments("lora"), **changed}, work)
    (report,) = work.glob("reports/*/report.json")
    found = {
        "seed": seed,
        "rehearsal": json.loads((pool / "manifest.json").read_text()),
        "grid": json.loads(report.read_text()),
        "seconds": [rehearsed - began, time.monotonic() - rehearsed],
    }
    measured.write_text(json.dumps(found))
    return found


def run(pipeline: str, arguments: dict[str, Any], work: Path) -> None:
    """`mixtune run` in a process of its own; a verdict is no failure."""
    file = work / f"{pipeline}.json"
    file.write_text(json.dumps(arguments))
    command = [sys.executable, "-m", "mixtune.cli", "run", pipeline, "--arguments", str(file)]
    done = subprocess.run([*command, "--work-dir", str(work)], check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode not in (0, 3, 4):
        raise SystemExit(f"{pipeline}: ended with {done.returncode}")


def rows(found: dict[str, Any]) -> list[str]:
    """A seed's rows of the table."""
    only, mixed = measures(found)
    base = [only[axis].base for axis in (*GENERAL, "customer")]
    lines = [f"| {found['seed']} | base | {line(base)} | |"]
    for name, by_axis in (("customer only", only), ("half rehearsed", mixed)):
        scores = [by_axis[axis].candidate for axis in (*GENERAL, "customer")]
        lines.append(f"| | {name} | {line(scores)} | {'' if by_axis is only else f'**{kept(found):.0%}**'} |")
    return lines


def measures(found: dict[str, Any]) -> list[dict[str, Measure]]:
    """By axis, the measures of both mixes."""
    candidates = from_json(GridReport, found["grid"], f"seed {found['seed']}").candidates
    by_percent = {item.mix.percent: item.comparison.axes for item in candidates}
    return [{axis.axis: axis.measure for axis in by_percent[percent]} for percent in PERCENTS]


def line(scores: list[float]) -> str:
    """Knowledge, instructions, their mean, and the customer's F1 as cells."""
    *general, customer = scores
    return " | ".join(f"{value:.3f}" for value in (*general, statistics.mean(general), customer))


def kept(found: dict[str, Any]) -> float:
    """Share of the general score lost by customer-only tuning that the mix does not lose."""
    only, mixed = (sum(by_axis[axis].candidate - by_axis[axis].base for axis in GENERAL) for by_axis in measures(found))
    return 1 - mixed / only


def text(done: list[dict[str, Any]], command: str) -> str:
    """The page of results."""
    lines = [
        "# Rehearsal in the demo's world",
        "",
        f"2026-11-25, {os.cpu_count()}-core CPU machine, shared with other work; `{command}`",
        "",
        f"{NUM_RECORDS} records out of the base model alone, drawn from its chat template without any seed text, are the only",
        "general pool. Half rehearsed: every batch holds as many of them as of the customer's records, which are seen equally",
        "often in both runs. Kept: the share of the general score lost by customer-only tuning that the mix does not lose.",
        "This is as good as it gets: the demo's model learned nothing but what the benchmarks ask, in other wordings, so that",
        "this is also what it asks itself. A large model asks itself seldom what few people ask.",
        "",
        "| seed | run | knowledge | instructions | general score | customer F1 | kept |",
        "|---|---|---|---|---|---|---|",
        *(row for found in done for row in rows(found)),
        "",
        "| seed | conversations drawn | kept | dropped | time to draw | time of the grid |",
        "|---|---|---|---|---|---|",
    ]
    for found in done:
        told, seconds = found["rehearsal"], found["seconds"]
        dropped = ", ".join(f"{count} {reason}" for reason, count in told["dropped"].items())
        lines.append(
            f"| {found['seed']} | {told['num_drawn']} | {told['num_records']} | {dropped} "
            f"| {seconds[0]:.0f} s | {seconds[1]:.0f} s |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--results", type=Path, required=True, help="Markdown file; written anew after every seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    options = parser.parse_args()
    done: list[dict[str, Any]] = []
    for seed in options.seeds:
        work = options.work.resolve() / f"seed-{seed}"
        work.mkdir(parents=True, exist_ok=True)
        done.append(measure(seed, work))
        options.results.write_text(text(done, "python benchmarks/rehearse.py --work DIR --results FILE"))
        print(f"seed {seed}: {kept(done[-1]):.0%} kept, {sum(done[-1]['seconds']):.0f} s", flush=True)


if __name__ == "__main__":
    main()
