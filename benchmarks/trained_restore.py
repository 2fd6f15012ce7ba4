"""What `restore` gives back on trained worlds and what it costs, beside a mix from the beginning and the dial.

    python benchmarks/trained_restore.py --work DIR --results benchmarks/results/trained_restore.md --picture docs/pictures/ways-back.svg

DIR is that of `trained_search.py`, whose customer-only model, which forgot, is restored with a share of the customer's
records in each batch, and turned down. Every model is compared with the base. What DIR has is not measured again.
"""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from trained_cells import GUARDS, NUM_ITEMS, Bench, Cell
from trained_search import WORLDS

from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact
from mixtune.report.charts import Mark, frontier
from mixtune.train.entry import restore_settings

STRENGTHS = (0.5,)
MIXES = (80.0, 50.0)
NLL_AXIS = "general_nll"
NUM_STEPS = 40
DEFAULT_RATE = 1e-5


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to restore."""

    title: str
    percent: float = 25.0
    learning_rate: float = 0.0
    """0: the training's own."""
    learned_ratio: float = 0.0


WAYS = (
    Way(title="restored"),
    Way(title="restored, at the default rate", learning_rate=DEFAULT_RATE),
    Way(title="restored, half of the general records learned", learned_ratio=0.5),
)


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model beside the one that forgot."""

    title: str
    cell: Cell
    alone: Cell
    """The customer-only training."""

    @property
    def came_back(self) -> float:
        """Share of the general benchmarks' lost score that is there again."""
        losses = [_benchmark_loss(cell) for cell in (self.cell, self.alone)]
        return 1 - losses[0] / losses[1]

    @property
    def customer(self) -> float:
        """Change of the customer's score by the customer-only training's gain, a share."""
        return self.cell.benefit() / self.alone.benefit() - 1

    @property
    def nll(self) -> float:
        """Relative change of the general NLL from the base's; above 0 is a loss."""
        return -self.cell.benefit(NLL_AXIS)


def _benchmark_loss(cell: Cell) -> float:
    axes = [axis.axis for axis in cell.comparison.axes if axis.axis not in (CUSTOMER_AXIS, NLL_AXIS)]
    return float(-np.mean([cell.benefit(axis) for axis in axes]))


def restore(bench: Bench, way: Way) -> Cell:
    """Restore a world's customer-only model."""
    rate = way.learning_rate or bench.world.learning_rate
    folder = bench.folder / f"restored-{way.percent:g}-{rate:g}-{way.learned_ratio:g}-{NUM_STEPS}"
    start = bench.full(100.0).comparison.model_uri

    def train() -> tuple[str, ShardsManifest]:
        shards = bench.mix(
            folder, customer_data_percent=way.percent, customer_epochs=1.0, max_steps=NUM_STEPS, seed=bench.seed
        )
        options = {"restore": {"max_new_tokens": 24, "learned_ratio": way.learned_ratio}, "guards": GUARDS}
        method = bench.world.method
        settings = restore_settings(start, options, method=method, learning_rate=rate, seed=bench.seed)
        return bench.run_training(settings, shards, folder, start), read_artifact(ShardsManifest, shards)

    return bench.cell(folder, train, NUM_ITEMS)


def turn_down(bench: Bench, strength: float) -> Cell:
    """Evaluate a world's customer-only model at a lower strength."""
    alone = bench.full(100.0).comparison.model_uri
    shards = read_artifact(ShardsManifest, str(bench.trained_folder(100.0) / "shards"))
    return bench.cell(bench.folder / f"dial-{strength:g}", lambda: (alone, shards), NUM_ITEMS, strength)


def rows_of(bench: Bench) -> list[Row]:
    """Return a world's models."""
    alone = bench.full(100.0)
    rows = [Row(title="customer only", cell=alone, alone=alone)]
    for percent in MIXES:
        rows.append(Row(title=f"{percent:g} % customer from the beginning", cell=bench.full(percent), alone=alone))
    for strength in STRENGTHS:
        rows.append(Row(title=f"dial at {strength:g}", cell=turn_down(bench, strength), alone=alone))
    return rows + [Row(title=way.title, cell=restore(bench, way), alone=alone) for way in WAYS]


TITLES = ["model", "came back", "least", "general NLL", "customer's score", "CPU time", "verdicts"]


def table(rows: Sequence[Sequence[Row]]) -> list[str]:
    """Return a line for every kind of model: means over worlds and seeds.

    Args:
        rows: Of every world and seed, in the same order.
    """
    lines = [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
    for kind in zip(*rows, strict=True):
        back = [row.came_back for row in kind]
        first = kind[0].cell is kind[0].alone
        cost = np.mean([row.cell.train_cpu_seconds / row.alone.train_cpu_seconds for row in kind])
        verdicts = [row.cell.verdict for row in kind]
        counts = ", ".join(f"{verdicts.count(name)} {name}" for name in sorted(set(verdicts)))
        values = [
            kind[0].title,
            "" if first else f"{np.mean(back):.0%}",
            "" if first else f"{min(back):.0%}",
            f"{np.mean([row.nll for row in kind]):+.0%}",
            "" if first else f"{np.mean([row.customer for row in kind]):+.0%}",
            f"{cost:.0%}",
            counts,
        ]
        lines.append(f"| {' | '.join(values)} |")
    return lines


def _short(title: str) -> str:
    for words, instead in ((" customer from the beginning", " mix"), (" of the general records learned", " learned")):
        title = title.replace(words, instead)
    return title


def draw_picture(rows: Sequence[Sequence[Row]]) -> str:
    """Return a plot of every kind of model as SVG: means over worlds and seeds, and their standard errors."""
    marks = []
    for kind in zip(*rows, strict=True):
        values = np.array([(row.came_back, 1 + row.customer) for row in kind])
        middle, error = values.mean(0), values.std(0) / len(values) ** 0.5
        verdicts = [row.cell.verdict for row in kind]
        spans = [(float(low), float(high)) for low, high in zip(middle - error, middle + error, strict=True)]
        marks.append(
            Mark(
                name=_short(kind[0].title),
                x=float(middle[0]),
                y=float(middle[1]),
                x_span=spans[0],
                y_span=spans[1],
                verdict=max(sorted(set(verdicts)), key=verdicts.count),
            )
        )
    titles = ("share of what the customer-only training forgot that is there", "customer's gain, of that training's")
    svg = re.sub(r"</?div[^>]*>", "", frontier(marks, (1.0, 0.0), titles))
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" width="900" ', 1)
    return svg.replace('style="', 'style="background:#fff;', 1) + "\n"


def main() -> None:
    """Measure what is missing, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--results", type=Path)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = options.work.resolve()
    by_world = {
        name: [rows_of(Bench(name, seed, work / f"{name}-{seed}")) for seed in options.seeds] for name in options.worlds
    }
    lines = [
        "# Restoring on trained worlds",
        "",
        f"`python benchmarks/trained_restore.py`; CPU, tiny models, {len(options.seeds)} seeds each; {NUM_STEPS} steps, a quarter of "
        "each batch the customer's, where nothing else is said.",
        "Came back: share of the mean benchmark score that the customer-only training lost. General NLL: relative to the "
        "base's. Customer's score: its gain relative to the customer-only training's. CPU time: of that training's.",
        "",
        "## All worlds",
        "",
        *table([rows for world in by_world.values() for rows in world]),
    ]
    for name, rows in by_world.items():
        lines += ["", f"## {name}", "", *table(rows)]
    print("\n".join(lines))
    if options.results:
        options.results.write_text("\n".join(lines) + "\n")
    if options.picture:
        options.picture.write_text(draw_picture([rows for world in by_world.values() for rows in world]))


if __name__ == "__main__":
    main()
