"""The search for the least general share on trained worlds: regret and cost against a grid of seven points, coverage.

    python benchmarks/trained_search.py --work DIR --results benchmarks/results/trained_search.md

For every world and seed the proxies of `find_mix` are trained, a share is recommended and trained in full as the pipeline
does, and a grid of seven shares is trained beside it. Every training stays in DIR with its comparison: a search with
another law trains only shares that nobody trained yet.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from trained_cells import Bench, Cell, cpu_seconds

from mixtune.artifacts.comparison import PASS
from mixtune.artifacts.mix_search import AxisForecast, MixForecast, MixSearch
from mixtune.artifacts.samples import read_samples
from mixtune.find_mix.run import plan_proxies
from mixtune.find_mix.search import AGAIN, continue_search, next_action, start_search
from mixtune.settings.find_mix import FindSettings

WORLDS = ("shop", "desk", "notes", "dispatch")
PROXY_ITEMS = (60, 200)
"""Of an axis, which has 389 to 400."""
GRID = (100.0, 98.0, 95.0, 90.0, 80.0, 65.0, 50.0)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a search came to in one world with one seed, and the grid beside it."""

    world: str
    seed: int
    search: MixSearch
    cells: Sequence[Cell]
    """Proxies, then full trainings."""
    grid: Sequence[Cell]
    fit_cpu_seconds: float

    @cached_property
    def fulls(self) -> Sequence[Cell]:
        """The full trainings of the search."""
        return self.cells[len(self.cells) - len(self.search.rounds) :]

    @property
    def best(self) -> Cell | None:
        """The grid's point that gains most of those that pass; None where none does."""
        passing = [cell for cell in self.grid if cell.verdict == PASS]
        return max(passing, key=Cell.benefit, default=None)

    @property
    def regret(self) -> float | None:
        """Customer gain of the best point minus that of the search; None where not both pass."""
        last = self.fulls[-1]
        return self.best.benefit() - last.benefit() if self.best and last.verdict == PASS else None

    @property
    def step_cost(self) -> float:
        """Training steps as a share of the grid's."""
        return sum(cell.num_steps for cell in self.cells) / sum(cell.num_steps for cell in self.grid)

    @property
    def mixed_cost(self) -> float:
        """The same with mixing, which encodes all records for each training."""
        mixing = sum(cell.mix_cpu_seconds for cell in self.cells), sum(cell.mix_cpu_seconds for cell in self.grid)
        trained = sum(cell.cpu_seconds for cell in self.cells), sum(cell.cpu_seconds for cell in self.grid)
        return (mixing[0] + trained[0] + self.fit_cpu_seconds) / (mixing[1] + trained[1])

    @property
    def cpu_cost(self) -> float:
        """CPU-seconds of training, evaluation and fitting as a share of the grid's training and evaluation."""
        spent = sum(cell.cpu_seconds for cell in self.cells) + self.fit_cpu_seconds
        return spent / sum(cell.cpu_seconds for cell in self.grid)

    def inside(self) -> Iterator[bool]:
        """Yield for every axis of every full training of the search whether it lay within the predicted 90 %."""
        for number, cell in enumerate(self.fulls):
            yield from _held(self.search.rounds[number].forecast, cell)

    def inside_on_grid(self) -> Iterator[bool]:
        """Yield the same of the first forecast at every share of the grid."""
        for cell in self.grid:
            yield from _held(self.search.rounds[0].forecast, cell)


def _held(forecast: MixForecast, cell: Cell) -> Iterator[bool]:
    share = next(item for item in forecast.shares if round(item.percent - cell.percent, 6) == 0)
    for axis in share.axes:
        yield _lies_within(axis, cell.benefit(axis.axis))


def _lies_within(axis: AxisForecast, benefit: float) -> bool:
    return axis.benefit.lower <= benefit <= axis.benefit.upper


def run(bench: Bench, settings: FindSettings) -> Result:
    """Search as the pipeline does, and train the grid."""
    epochs, seed = bench.world.customer_epochs, bench.seed
    proxies = plan_proxies(settings, epochs, seed, {})
    cells = [
        bench.train(item["percent"], item["epochs"], item["seed"], settings.proxy_items)  # type: ignore[arg-type]
        for item in proxies
    ]
    base, start = read_samples(bench.base_samples()), cpu_seconds()
    search = start_search([cell.comparison for cell in cells], base, settings, epochs, seed)
    fitting = cpu_seconds() - start
    while next_action(search) == AGAIN:
        cells.append(bench.full(search.rounds[-1].forecast.percent))
        start = cpu_seconds()
        search = continue_search(search, cells[-1].comparison, seed)
        fitting += cpu_seconds() - start
    grid = [bench.full(percent) for percent in GRID]
    return Result(world=bench.name, seed=seed, search=search, cells=cells, grid=grid, fit_cpu_seconds=fitting)


def start_seconds(results: Sequence[Result]) -> float:
    """Return the CPU-seconds that a training takes beside its steps: model, held-out records, saving."""
    cells = [cell for result in results for cell in (*result.cells, *result.grid)]
    steps = [cell.num_steps for cell in cells]
    seconds = [cell.train_cpu_seconds - cell.mix_cpu_seconds for cell in cells]
    return float(np.polyfit(steps, seconds, 1)[1])


def cost_without_starts(result: Result, start: float) -> float:
    """Return the CPU cost of long trainings, whose start is little of them."""
    spent = sum(cell.cpu_seconds - start for cell in result.cells) + result.fit_cpu_seconds
    return spent / sum(cell.cpu_seconds - start for cell in result.grid)


def table_of(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [f"| {' | '.join(line)} |" for line in (titles, ["---"] * len(titles), *lines)]


def line_of(result: Result) -> list[str]:
    """Return a result's line of the table."""
    fulls = ", ".join(f"{cell.percent:g} %: {cell.verdict} ({cell.benefit():+.3f})" for cell in result.fulls)
    best = result.best
    grid = f"{best.percent:g} %: pass ({best.benefit():+.3f})" if best else "none passes"
    regret = "" if result.regret is None else f"{100 * result.regret:+.1f}"
    inside = list(result.inside())
    costs = [f"{result.step_cost:.0%}", f"{result.cpu_cost:.0%}"]
    return [result.world, str(result.seed), fulls, grid, regret, *costs, f"{sum(inside)} of {len(inside)}"]


def summary_of(name: str, results: Sequence[Result]) -> list[str]:
    """Return a group of results in a line: means, and the largest regret and cost."""
    regrets = [100 * result.regret for result in results if result.regret is not None]
    passable = [result for result in results if result.best]
    passed = sum(result.fulls[-1].verdict == PASS for result in passable)
    inside = [value for result in results for value in result.inside()]
    on_grid = [value for result in results for value in result.inside_on_grid()]
    start = start_seconds(results)
    costs = {
        "steps": [result.step_cost for result in results],
        "cpu": [result.cpu_cost for result in results],
        "mixed": [result.mixed_cost for result in results],
        "long": [cost_without_starts(result, start) for result in results],
    }
    return [
        name,
        f"{passed} of {len(passable)}",
        f"{np.mean(regrets):+.1f}, {max(regrets):+.1f}" if regrets else "",
        *(f"{np.mean(values):.0%}, {np.median(values):.0%}, {max(values):.0%}" for values in costs.values()),
        *(f"{np.mean(values):.0%} of {len(values)}" for values in (inside, on_grid)),
    ]


TITLES = [
    "world", "seed", "full trainings of the search (customer gain)", "best of the grid", "regret, points", "steps",
    "CPU time", "axes within 90 %",
]  # fmt: skip
SUMMARY_TITLES = [
    "items of an axis, worlds", "passes where the grid does", "regret, points: mean, most",
    "steps: mean, median, most", "CPU time", "CPU time with mixing", "CPU time without starts",
    "the search's axes within 90 %", "the grid's",
]  # fmt: skip


def report(results: dict[int, list[Result]]) -> list[str]:
    """Return the page: results by the items of an axis that proxies are evaluated on."""
    groups = {"all": WORLDS, "shop, desk, notes": WORLDS[:-1], "dispatch": WORLDS[-1:]}
    summaries = [
        summary_of(f"{items}: {name}", chosen)
        for items, of_items in results.items()
        for name, worlds in groups.items()
        if (chosen := [result for result in of_items if result.world in worlds])
    ]
    lines = [
        "# The least general share, searched for on trained worlds",
        "",
        f"`python benchmarks/trained_search.py`; CPU, tiny models, a grid of {', '.join(f'{x:g}' for x in GRID)} % "
        "customer records. Full trainings are evaluated on all items there are, 389 to 400 of an axis. Costs are shares of "
        "the grid's.",
        "",
        *table_of(SUMMARY_TITLES, summaries),
        "",
        NOTE,
    ]
    for items, of_items in results.items():
        lines += ["", f"## Proxies on {items} items of an axis", "", *table_of(TITLES, [*map(line_of, of_items)])]
    return lines


NOTE = (
    "A customer-only training has some 100 steps of 4 records, its proxies 10 and 25. A customer's gain has a standard error "
    "of 1 to 3 points, and the best of several is the luckiest: a regret of a few points in one search tells nothing. "
    "CPU time is that of training, evaluation and fitting. The base's evaluation is left out, which search and grid both "
    "need once. *Without starts*: as in long trainings, where loading, probing and saving are little. The laws' priors were "
    "widened on shop, desk and notes; on dispatch nothing was chosen. The grid ends at 50 %: where a search trains at 40 % or "
    "less, its one full training takes the steps of two and a half customer-only ones or more, of the grid's nine. "
    "`find_options.max_cost` bounds that. The first full training was the last in every search. Four of them failed: in three "
    "no second one was likelier to pass, in one it would have exceeded `max_cost`.\n\n"
    "In notes the loss does not fall steadily as general records are added. Half of the answers that need a postscript, some 50 "
    "of 400, are lost together or not at all: with seed 42 at 65 and 40 %, not at 80, 50 and 25 %; with seed 1 at 90, 80, 65 and "
    "60 %, not at 95 and 50 %. Which share passes is luck there, and that is all in which 60 and 200 items differ: the searches "
    "went to other shares. No smooth law can foretell it. The full training's verdict tells it."
)


def main() -> None:
    """Run everything that is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--proxy-items", type=int, nargs="+", default=PROXY_ITEMS)
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = options.work.resolve()
    benches = [
        Bench(name, seed, work / f"{name}-{seed}", num_items=0) for name in options.worlds for seed in options.seeds
    ]
    results: dict[int, list[Result]] = {items: [] for items in options.proxy_items}
    for bench in benches:
        for items, of_items in results.items():
            of_items.append(run(bench, FindSettings(proxy_items=items)))
            print(items, *line_of(of_items[-1]), sep=" | ", flush=True)
    lines = report(results)
    print("\n".join(lines))
    if options.results:
        options.results.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
