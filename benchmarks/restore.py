"""What `restore` gives back in the demo's world and what it costs, beside a mix that was there from the beginning.

    python benchmarks/restore.py --work DIR --seeds 42 1 --results benchmarks/results/restore.md

For every seed the demo's grid is trained (`mixtune demo --method lora`), if DIR does not have it. Its customer-only model,
which forgot, is then restored with a share of the customer's records in each batch. Every model is compared with the base
on the demo's own items. What DIR has is not measured again.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from mixtune.artifacts.comparison import Comparison
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.model import find_manifest, read_model
from mixtune.artifacts.pools import read_pools
from mixtune.artifacts.samples import read_samples
from mixtune.artifacts.typed_json import read_artifact
from mixtune.commands.argument_places import Arguments
from mixtune.compare.paired_samples import compare_samples
from mixtune.evaluate import run as evaluation
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.mix_shard import run as mixing
from mixtune.settings.inference import EvaluateSettings
from mixtune.settings.mix import read_mix_settings
from mixtune.train.entry import restore_settings
from mixtune.train.run import run_training
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

GENERAL = {"mmlu": "knowledge", "ifeval": "instructions"}
LEARNING_RATE = 2e-4
"""The demo's own."""
SETTINGS = ((25.0, 60), (25.0, 150), (50.0, 150))
"""Customer share in percent, and steps."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A model beside its base."""

    title: str
    scores: dict[str, float]
    verdict: str
    failed: tuple[str, ...]
    """Axes that failed."""
    num_steps: int = 0
    seconds: float = 0.0

    @property
    def general(self) -> float:
        """Mean score of the general benchmarks."""
        return sum(self.scores[axis] for axis in GENERAL) / len(GENERAL)


def row_of(title: str, comparison: Comparison, num_steps: int = 0, seconds: float = 0.0) -> Row:
    """Return the row of a comparison's candidate."""
    return Row(
        title=title,
        scores={axis.axis: axis.measure.candidate for axis in comparison.axes},
        verdict=comparison.verdict,
        failed=tuple(axis.axis for axis in comparison.axes if axis.verdict == "fail"),
        num_steps=num_steps,
        seconds=seconds,
    )


@dataclass(frozen=True)
class Demo:
    """A seed's grid that was trained, the newest of a work folder."""

    work: Path

    @property
    def report_path(self) -> Path:
        """What `choose_mix` wrote."""
        return sorted(self.work.glob("reports/*/report.json"))[-1]

    @property
    def arguments(self) -> Arguments:
        """What the grid was run with."""
        path = self.work / "runs" / self.report_path.parent.name / "arguments.json"
        return dict(json.loads(path.read_text()))

    def comparison(self, percent: float) -> Comparison:
        """Return the comparison of a mix."""
        candidates = read_artifact(GridReport, str(self.report_path)).candidates
        return next(item.comparison for item in candidates if item.mix.percent == percent)

    def pools(self) -> tuple[str, str]:
        """Return the manifests of the customer's and of the general pools."""
        paths = {
            "customer" in [pool.name for pool in read_pools(str(path)).pools]: str(path)
            for path in sorted(self.work.glob("runs/*/mix-grid/sanitize*/pools"))
        }
        return paths[True], paths[False]


def make_demo(work: Path, seed: int) -> Demo:
    """Return a seed's grid, trained where it is not there."""
    if not list(work.glob("reports/*/report.json")):
        command = [sys.executable, "-m", "mixtune.cli", "demo", "--method", "lora", "--seed", str(seed)]
        subprocess.run([*command, "--work-dir", str(work)], check=True)
    return Demo(work)


def restore(demo: Demo, percent: float, num_steps: int, folder: Path) -> Row:
    """Restore a seed's customer-only model, and compare it with the base."""
    measured = folder / "row.json"
    if measured.exists():
        return Row(**json.loads(measured.read_text()))
    folder.mkdir(parents=True, exist_ok=True)
    arguments = demo.arguments
    task = restoring(demo, mix(demo, percent, num_steps, folder), folder)
    model = run_training(task)
    figures = read_model(str(folder / "model")).figures
    limits = {name: options["max_drop"] for name, options in arguments["benchmarks"].items()}
    base, candidate = (evaluate(demo, uri, folder / name) for uri, name in (("", "base"), (model.uri, "restored")))
    comparison = compare_samples(read_samples(base), read_samples(candidate), limits)
    title = f"restored, {percent:g} % customer"
    row = row_of(title, comparison, num_steps, figures.seconds if figures else 0.0)
    measured.write_text(json.dumps(asdict(row)))
    return row


def mix(demo: Demo, percent: float, num_steps: int, folder: Path) -> str:
    """Write the shards of a restoration; return their manifest's path."""
    customer, general = demo.pools()
    arguments = demo.arguments
    weights = {pool["category"]: pool["weight"] for pool in arguments["general_pools"]}
    parameters = {"customer_data_percent": percent, "weights": weights, "max_steps": num_steps, "customer_epochs": 1.0}
    places = [str(folder / name) for name in ("shards", "data/shards", "receipt.html", "receipt.md")]
    mixing.run(
        read_mix_settings({**parameters, "seed": arguments["seed"]}, arguments["mix_options"]),
        mixing.Inputs(base_model=arguments["base_model"], customer_path=customer, general_path=general),
        mixing.Outputs(**dict(zip(("json_path", "data_uri", "html_path", "markdown_path"), places, strict=True))),
    )
    return places[0]


def restoring(demo: Demo, shards: str, folder: Path) -> TrainTask:
    """Return the task that restores the customer-only model."""
    start, place = demo.comparison(100.0).model_uri, str(folder / "model")
    seed = int(demo.arguments["seed"])
    return TrainTask(
        settings=restore_settings(start, {}, method="lora", learning_rate=LEARNING_RATE, seed=seed),
        inputs=TrainInputs(shards_path=shards, base_model=demo.arguments["base_model"], start_model=start),
        outputs=TrainOutputs(model_path=place, model_uri=place),
    )


def evaluate(demo: Demo, model_uri: str, folder: Path) -> str:
    """Evaluate a model on the demo's items; return the samples' manifest."""
    customer, general = demo.pools()
    benchmarks = {
        name: {key: value for key, value in options.items() if key != "max_drop"}
        for name, options in demo.arguments["benchmarks"].items()
    }
    inputs = evaluation.Inputs(
        base_model=demo.arguments["base_model"],
        customer_path=customer,
        general_path=general,
        model_uri=model_uri,
        benchmarks=parse_benchmarks(benchmarks),
    )
    names = ("json_path", "data_uri", "html_path", "markdown_path")
    places = [str(folder / name) for name in ("samples", "data/samples", "samples.html", "samples.md")]
    evaluation.run(
        EvaluateSettings(thinking="template"), inputs, evaluation.Outputs(**dict(zip(names, places, strict=True)))
    )
    return places[0]


def rows_of(demo: Demo, folder: Path) -> list[Row]:
    """Return base, customer-only training, the mix of 75 %, and what was restored."""
    alone = demo.comparison(100.0)
    base = {axis.axis: axis.measure.base for axis in alone.axes}
    rows = [Row(title="base", scores=base, verdict="", failed=())]
    for title, percent in (("customer only", 100.0), ("75 % customer from the beginning", 75.0)):
        comparison = demo.comparison(percent)
        manifest = find_manifest(comparison.model_uri)
        figures = manifest.figures if manifest else None
        rows.append(row_of(title, comparison, figures.num_steps if figures else 0, figures.seconds if figures else 0.0))
    return rows + [restore(demo, percent, steps, folder / f"{percent:g}-{steps}") for percent, steps in SETTINGS]


def lines_of(seed: int, rows: list[Row]) -> list[str]:
    """Return the table's lines of a seed."""
    base, alone, lines = rows[0], rows[1], []
    for row in rows:
        scores = [f"{row.scores[axis]:.3f}" for axis in (*GENERAL, "general_nll", "customer")]
        back = (row.general - alone.general) / (base.general - alone.general)
        restored = f"{back:.0%}" if row.num_steps and row is not alone else ""
        verdict = f"{row.verdict} ({', '.join(row.failed)})" if row.failed else row.verdict
        cost = [str(row.num_steps), f"{row.seconds:.0f}"] if row.num_steps else ["", ""]
        lines.append(f"| {' | '.join([str(seed), row.title, *cost, *scores, restored, verdict])} |")
    return lines


def main() -> None:
    """Measure every seed, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 1, 2])
    parser.add_argument("--results", type=Path)
    options = parser.parse_args()
    work = options.work.resolve()
    titles = ["seed", "model", "steps", "s", *GENERAL.values(), "general NLL", "customer F1", "came back", "verdict"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for seed in options.seeds:
        demo = make_demo(work / f"seed-{seed}", seed)
        lines += lines_of(seed, rows_of(demo, work / f"restored-{seed}"))
    head = (
        "# Restoring in the demo's world\n\n"
        f"{time.strftime('%Y-%m-%d')}, 2-core CPU machine, shared with other work; `python benchmarks/restore.py`. LoRA, "
        f"learning rate {LEARNING_RATE:g}, 64 tokens an answer.\nCame back: share of the general score (mean of both "
        "benchmarks) lost by customer-only tuning. Seconds are of the steps alone.\n\n"
    )
    text = head + "\n".join(lines) + "\n"
    print(text)
    if options.results:
        options.results.write_text(text)


if __name__ == "__main__":
    main()
