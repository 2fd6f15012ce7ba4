"""The search for the least general share with a real model: what was predicted, what was measured, what it costs.

    python benchmarks/real_search.py --work DIR --results benchmarks/results/real_search.md

`find_mix` runs on the records of `mixtune demo --real`, with a smaller batch, so that a short training has steps to learn
from. Every figure is read from what a run left in DIR/SEED; one that was measured there before is not run again.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from trained_search import GRID, table_of

from mixtune.artifacts.comparison import PASS
from mixtune.artifacts.mix_search import MixSearch, SearchRound
from mixtune.artifacts.typed_json import read_artifact
from mixtune.find_mix.search import describe_cost, spent
from mixtune.settings.find_mix import steps_of

OPTIONS = {"mix_options": {"global_batch_size": 4, "max_length": 512}, "find_options": {"proxy_items": 60}}
INTRODUCTION = """
SmolLM2-135M-Instruct, by LoRA, on the 300 records of `mixtune demo --real`, two epochs in batches of 4. Proxies are evaluated
on 60 items of an axis, the full training on 100 (60 of ifeval); the benchmarks are the demo's own. A benefit is the score's
difference to the base, of general_nll relative and with its sign flipped: above 0 is better. Two CPU cores, float32.
"""


def run_search(work: Path, seed: int) -> tuple[MixSearch, float]:
    """Run the pipeline in a process of its own, if it was not measured there before; return the search and CPU minutes."""
    measured, world = work / "cpu_minutes.json", work / "world"
    command = [sys.executable, "-m", "mixtune.cli"]
    if not measured.exists():
        demo = ["demo", "--real", "--seed", str(seed), "--write-only", str(world), "--work-dir", str(work)]
        subprocess.run([*command, *demo], check=True)
        arguments = world / "finetune.json"
        changes = [f"{name}={json.dumps(value)}" for name, value in OPTIONS.items()]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        find = ["run", "find_mix", "--arguments", str(arguments), "--work-dir", str(work), *changes]
        subprocess.run([*command, *find], check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        measured.write_text(json.dumps(seconds / 60))
    searches = [read_artifact(MixSearch, str(path)) for path in work.glob("runs/find_mix-*/**/search")]
    search = max(searches, key=lambda item: (len(item.tried), len(item.rounds)))
    return search, json.loads(measured.read_text())


def proxy_lines(search: MixSearch, names: Sequence[str]) -> list[list[str]]:
    """Return a line for every short training: share, length, and what it did on every axis."""
    proxies = [score for score in search.scores if not score.is_full]
    trainings = dict.fromkeys((score.percent, score.length) for score in proxies)
    cells = {(score.percent, score.length, score.axis): f"{score.benefit:+.3f}" for score in proxies}
    return [
        [f"{percent:g} %", f"{length:.2f}", *(cells[percent, length, name] for name in names)]
        for percent, length in trainings
    ]


def round_lines(item: SearchRound, names: Sequence[str]) -> list[list[str]]:
    """Return the lines of a full training: what was predicted on every axis, and what was measured."""
    forecast, candidate = item.forecast.recommended, item.candidate
    assert candidate is not None
    predicted = {axis.axis: axis.benefit for axis in forecast.axes}
    measured = {axis.axis: (axis.measure.benefit.difference, axis.verdict) for axis in candidate.comparison.axes}
    intervals = [f"{predicted[name].lower:+.2f} to {predicted[name].upper:+.2f}" for name in names]
    return [
        [f"{forecast.percent:g} %", f"predicted, 90 %; a pass has a chance of {forecast.pass_chance:.0%}", *intervals],
        [
            "",
            f"measured: **{candidate.comparison.verdict}**",
            *("{:+.3f} {}".format(*measured[name]) for name in names),
        ],
    ]


def section(search: MixSearch, minutes: float, seed: int) -> list[str]:
    """Return a seed's lines: its proxies, what was predicted and measured, and its cost."""
    names = [axis.axis for axis in search.axes]
    finished = [item for item in search.rounds if item.candidate]
    return [
        "",
        f"## Seed {seed}",
        "",
        *table_of(["proxy", "length", *names], proxy_lines(search, names)),
        "",
        *table_of(["full training", "", *names], [line for item in finished for line in round_lines(item, names)]),
        "",
        *(f"- {item.forecast.reason}" for item in search.rounds),
        *([f"- {search.stopped}"] if search.stopped else []),
        f"- {describe_cost(search)} The whole pipeline, from reading the records to the report, took {minutes:.0f} minutes of CPU.",
    ]


def main() -> None:
    """Run what was not measured, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    done = {seed: run_search(options.work.resolve() / str(seed), seed) for seed in options.seeds}
    passed = sum(search.tried[-1].comparison.verdict == PASS for search, _ in done.values())
    grid = sum(steps_of(percent) for percent in GRID)
    cost = sum(spent(search) for search, _ in done.values()) / len(done)
    lines = [
        "# The search with a real model",
        INTRODUCTION,
        f"{passed} of {len(done)} searches end in a pass. Their trainings took the steps of {cost:.1f} on customer records alone; "
        f"a grid of seven shares down to 50 % takes {grid:.1f}.",
        *(line for seed, (search, minutes) in done.items() for line in section(search, minutes, seed)),
    ]
    print("\n".join(lines))
    if options.results:
        options.results.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
