"""The whole demo over three seeds, by LoRA and by full SFT: what is kept, what is gained, what it costs.

    python benchmarks/demo.py --work DIR --results benchmarks/results/demo.md \
        --readme README.md --picture docs/pictures/demo-grid.png

Every figure is read from what `mixtune demo` left. Both methods of a seed share a work folder, so that the second finds
sanitized pools and the base model's evaluation in the cache; the first one's time is that of `make demo`. A demo that
was measured in DIR before is not run again, but decided on and drawn by the code that is here. The README's table and
the picture of its report, for which Chromium is needed, are of the first seed's first method.
"""

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from mixtune.artifacts.comparison import AxisVerdict, Comparison, Measure
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.typed_json import from_json
from mixtune.choose.mix_choice import choose
from mixtune.choose.report_page import write_report
from mixtune.demo.show import format_grid

METHODS = {"lora": "LoRA", "sft": "full SFT"}
GENERAL = ("mmlu", "ifeval")
RUNS = {100.0: "customer only", 75.0: "75 % customer", 50.0: "50 % customer"}
POLL_SECONDS = 0.2
PICTURE_SIZE = "--window-size=1100,2150"


@dataclass(frozen=True, kw_only=True)
class Done:
    """One demo."""

    method: str
    seed: int
    grid: dict[str, Any]
    """What `choose_mix` wrote."""
    wall_seconds: float
    cpu_seconds: float
    peak_bytes: int
    """Largest sum of resident memory over all processes of the demo."""

    @cached_property
    def report(self) -> GridReport:
        """The same, typed, with the choice made anew."""
        return choose(from_json(GridReport, self.grid, f"{self.method}, seed {self.seed}").candidates)

    def comparison(self, percent: float) -> Comparison:
        """The comparison of a mix."""
        (candidate,) = [item for item in self.report.candidates if item.mix.percent == percent]
        return candidate.comparison

    def axis(self, percent: float, name: str) -> AxisVerdict:
        """An axis of a mix."""
        return next(axis for axis in self.comparison(percent).axes if axis.axis == name)

    def measures(self, percent: float) -> list[Measure]:
        """The general axes of a mix."""
        return [self.axis(percent, name).measure for name in GENERAL]


def run_demo(method: str, seed: int, work: Path) -> Done:
    """Run the demo in processes of its own, if it was not measured there before."""
    measured = work / f"{method}.json"
    if measured.exists():
        return Done(**json.loads(measured.read_text()))
    known = set(work.glob("reports/*/report.json"))
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    command = [sys.executable, "-m", "mixtune.cli", "demo", "--method", method, "--seed", str(seed)]
    work.mkdir(parents=True, exist_ok=True)
    with open(work / f"{method}.log", "w", encoding="utf-8") as log:
        demo = subprocess.Popen([*command, "--work-dir", str(work)], stdout=log)
        peak = watch_memory(demo)
    if demo.returncode:
        raise SystemExit(
            f"{method}, seed {seed}: the demo ended with {demo.returncode}; see {work / (method + '.log')}"
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (report,) = set(work.glob("reports/*/report.json")) - known
    done = Done(
        method=method,
        seed=seed,
        grid=json.loads(report.read_text()),
        wall_seconds=time.monotonic() - began,
        cpu_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        peak_bytes=peak,
    )
    measured.write_text(json.dumps(asdict(done)))
    return done


def watch_memory(process: subprocess.Popen[bytes]) -> int:
    """Wait for a process; the largest sum of resident memory of it and its descendants."""
    largest, ended = 0, threading.Event()
    threading.Thread(target=lambda: (process.wait(), ended.set()), daemon=True).start()
    while not ended.wait(POLL_SECONDS):
        largest = max(largest, sum(map(resident_bytes, family(process.pid))))
    return largest


def family(pid: int) -> Iterable[int]:
    """A process and its descendants, by Linux's process table."""
    yield pid
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from family(int(child))
    except OSError:
        return  # it ended meanwhile


def resident_bytes(pid: int) -> int:
    """Resident memory of a process; 0 if it ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


def table(done: list[Done]) -> list[str]:
    """One table: a row per seed and run."""
    lines = [
        "| seed | run | knowledge | instructions | general score | of the base's | general NLL | customer F1 | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for item in done:
        base = statistics.mean(measure.base for measure in item.measures(100.0))
        scores = [f"{item.axis(100.0, name).measure.base:.3f}" for name in (*GENERAL, "general_nll", "customer")]
        lines.append(f"| {item.seed} | base | {scores[0]} | {scores[1]} | {base:.3f} | | {scores[2]} | {scores[3]} | |")
        for percent, run in RUNS.items():
            mean = statistics.mean(measure.candidate for measure in item.measures(percent))
            cells = [cell(item.axis(percent, name)) for name in (*GENERAL, "general_nll", "customer")]
            lines.append(
                f"| | {run} | {cells[0]} | {cells[1]} | {mean:.3f} ({mean - base:+.3f}) | {mean / base:.1%} "
                f"| {cells[2]} | {cells[3]} | **{item.comparison(percent).verdict}** |"
            )
        lines.append(f"| | {item.report.reason} | | | | | | | |")
    return lines


def cell(axis: AxisVerdict) -> str:
    """Score, one-sided 95 % bounds of the difference, verdict."""
    form, measure = "{:+.1%}" if axis.measure.relative else "{:+.3f}", axis.measure
    bounds = ", ".join(form.format(bound) for bound in (measure.change.lower, measure.change.upper))
    return f"{measure.candidate:.3f} [{bounds}] {axis.verdict}"


def write_readme(path: Path, grid: GridReport) -> None:
    """Put what the demo's end prints into the README's block, and its date before it."""
    text = path.read_text()
    begin = text.index("```text\n")
    end = text.index("\n```", begin)
    lead = re.sub(r"\(measured on .*?;", f"(measured on {time.strftime('%-d %B %Y')};", text[:begin])
    path.write_text(f"{lead}```text\n{format_grid(grid)}\n\n{grid.reason}{text[end:]}")


def draw(path: Path, grid: GridReport, folder: Path) -> None:
    """Draw the grid's report as a browser shows it, down to its last plot."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        raise SystemExit("no Chromium on this machine; leave --picture out")
    page = folder / "grid.html"
    write_report("Which mix?", grid, html=str(page), markdown=str(folder / "grid.md"))
    page.write_text(page.read_text().partition("<h2>Models</h2>")[0])
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        f"--user-data-dir={folder / 'browser'}",
        PICTURE_SIZE,
    ]
    command = [browser, *flags, f"--screenshot={path.resolve()}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    Image.open(path).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def text(done: list[Done], command: str) -> str:
    """The page of results."""
    lines = [
        "# The demo over seeds",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} CPU cores, shared with other work; `{command}`",
        "",
    ]
    lines += [
        "Intervals are one-sided 95 % bounds of the difference to the base model, each. Allowed loss: 0.05 of knowledge",
        "and of instructions, 2 % of general NLL. The general score is the mean of knowledge and instructions.",
    ]
    for method, name in METHODS.items():
        chosen = [item for item in done if item.method == method]
        if chosen:
            lines += ["", f"## {name}", "", *table(chosen)]
    lines += ["", "## Cost", "", "| method | seed | wall | CPU | peak memory, all processes |", "|---|---|---|---|---|"]
    lines += [
        f"| {METHODS[item.method]} | {item.seed} | {item.wall_seconds:.0f} s | {item.cpu_seconds:.0f} s "
        f"| {item.peak_bytes / 1e9:.2f} GB |"
        for item in done
    ]
    lines += ["", "The second method of a seed takes sanitized pools and the base's evaluation from the cache."]
    return "\n".join(lines) + "\n"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    parser.add_argument("--results", type=Path, required=True, help="Markdown file; written anew after every demo")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--readme", type=Path, help="whose table is written anew")
    parser.add_argument("--picture", type=Path, help="PNG of the report")
    options = parser.parse_args()
    done: list[Done] = []
    for seed in options.seeds:
        for method in options.methods:
            done.append(run_demo(method, seed, options.work / f"seed-{seed}"))
            options.results.write_text(text(done, "python benchmarks/demo.py --work DIR --results FILE"))
            print(f"{method}, seed {seed}: {done[-1].wall_seconds:.0f} s", flush=True)
    if options.readme:
        write_readme(options.readme, done[0].report)
    if options.picture:
        draw(options.picture, done[0].report, options.work)


if __name__ == "__main__":
    main()
