"""Trainings of a world that are evaluated and compared, each in a folder of its own, and none of them twice."""

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from trained_worlds import World, write_world

from mixtune.artifacts.comparison import CUSTOMER_AXIS, Comparison
from mixtune.artifacts.samples import read_samples
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.compare.paired_samples import compare_samples
from mixtune.compare.run import describe_mix
from mixtune.evaluate import run as evaluation
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.mix_shard import run as mixing
from mixtune.preflight.fingerprint import HOLDOUT_RECORDS
from mixtune.sanitize import run as sanitizing
from mixtune.settings.inference import CustomerOptions, EvaluateSettings
from mixtune.settings.mix import read_mix_settings
from mixtune.settings.train import TrainSettings
from mixtune.train.run import run_training
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

NUM_ITEMS = 240
"""Of an axis, in an evaluation of a full training, where a bench says nothing else."""
GUARDS = {"max_loss_rise": 0.0, "max_grad_ratio": 0.0}
"""None: with a batch so small a loss leaps."""
MIX_OPTIONS = {"global_batch_size": 4, "max_length": 512}


def cpu_seconds() -> float:
    """Return what this process has used so far."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model that was evaluated, and its cost."""

    percent: float
    """Customer share."""
    epochs: float
    num_steps: int
    train_cpu_seconds: float
    """Of mixing and training."""
    mix_cpu_seconds: float
    evaluate_cpu_seconds: float
    comparison: Comparison

    @property
    def cpu_seconds(self) -> float:
        """Of training and evaluation, without mixing."""
        return self.train_cpu_seconds - self.mix_cpu_seconds + self.evaluate_cpu_seconds

    @property
    def verdict(self) -> str:
        """Of all axes."""
        return self.comparison.verdict

    def benefit(self, axis: str = CUSTOMER_AXIS) -> float:
        """Return what the model gained on an axis."""
        return next(item.measure.benefit.difference for item in self.comparison.axes if item.axis == axis)


@dataclass(frozen=True)
class Bench:
    """A world with a seed, in a folder of its own."""

    name: str
    seed: int
    folder: Path
    num_items: int = NUM_ITEMS
    """Of an axis, in an evaluation of a full training and of the base model; 0: all."""

    @cached_property
    def world(self) -> World:
        """Its files."""
        return write_world(self.name, self.seed, self.folder / "world")

    @cached_property
    def pools(self) -> tuple[str, str]:
        """Manifests of the customer's and of the general pools, sanitized as the pipelines do."""
        general = [{"name": pool["category"], "uri": pool["uri"]} for pool in self.world.pools]
        splits = {"test_ratio": 0.0, "validation_ratio": 0.0, "holdout_records": HOLDOUT_RECORDS}
        against = self._sanitize("general", {"sources": general, "splits": splits, "consent": {"required": False}})
        customer = {"sources": self.world.sources, "splits": {"holdout_records": 0}, "against_path": against}
        return self._sanitize("customer", customer), against

    def _sanitize(self, name: str, parameters: dict[str, object]) -> str:
        folder = self.folder / name
        if not (folder / "pools").exists():
            benchmarks = {axis: {"uri": options["uri"]} for axis, options in self.world.benchmarks.items()}
            parameters |= {"benchmarks": benchmarks, "base_model": self.world.base_model, "seed": self.seed}
            names = ("json_path", "data_uri", "html_path", "markdown_path")
            places = [str(folder / place) for place in ("pools", "data", "report.html", "summary.md")]
            outputs = sanitizing.Outputs(**dict(zip(names, places, strict=True)))
            sanitizing.run(*sanitizing.read_parameters(parameters), outputs)
        return str(folder / "pools")

    def full(self, percent: float) -> Cell:
        """Train in full."""
        return self.train(percent, self.world.customer_epochs, self.seed, self.num_items)

    def train(self, percent: float, epochs: float, seed: int, num_items: int) -> Cell:
        """Train on a mix, and compare, where nobody did so yet; evaluations on other items share a training."""
        folder = self.trained_folder(percent, epochs, seed)
        trained = folder / "trained.json"

        def train() -> tuple[str, ShardsManifest]:
            if not trained.exists():
                options = {"checkpoints": {"every_steps": 25, "keep": 1}, "guards": GUARDS}
                rate, method = self.world.learning_rate, self.world.method
                settings = TrainSettings.from_options(options, method=method, learning_rate=rate, seed=seed)
                start = cpu_seconds()
                shards = self.mix(folder, customer_data_percent=percent, customer_epochs=epochs, seed=seed)
                uri = self.run_training(settings, shards, folder)
                trained.write_text(json.dumps({"model_uri": uri, "cpu_seconds": cpu_seconds() - start}))
            return json.loads(trained.read_text())["model_uri"], read_artifact(ShardsManifest, str(folder / "shards"))

        folder.mkdir(parents=True, exist_ok=True)
        cell = self.cell(folder / f"{num_items or 'all'}-items", train, num_items)
        mixing, seconds = (
            json.loads((folder / "mixed.json").read_text()),
            json.loads(trained.read_text())["cpu_seconds"],
        )
        return replace(cell, train_cpu_seconds=seconds, mix_cpu_seconds=mixing)

    def trained_folder(self, percent: float, epochs: float = 0.0, seed: int = 0) -> Path:
        """Return where a training lies; of a full one the share is enough."""
        return self.folder / f"{percent:g}-{epochs or self.world.customer_epochs:g}-{seed or self.seed}"

    def mix(self, folder: Path, **parameters: float) -> str:
        """Write shards; return their manifest."""
        customer, general = self.pools
        weights = {pool["category"]: pool["weight"] for pool in self.world.pools}
        names = ("json_path", "data_uri", "html_path", "markdown_path")
        places = [str(folder / place) for place in ("shards", "data/shards", "receipt.html", "receipt.md")]
        start = cpu_seconds()
        mixing.run(
            read_mix_settings({"max_steps": 0, **parameters, "weights": weights}, MIX_OPTIONS),
            mixing.Inputs(base_model=self.world.base_model, customer_path=customer, general_path=general),
            mixing.Outputs(**dict(zip(names, places, strict=True))),
        )
        (folder / "mixed.json").write_text(json.dumps(cpu_seconds() - start))
        return places[0]

    def run_training(self, settings: TrainSettings, shards: str, folder: Path, start: str = "") -> str:
        """Train, or restore the model `start`; return the model's URI."""
        place = str(folder / "model")
        inputs = TrainInputs(shards_path=shards, base_model=self.world.base_model, start_model=start)
        outputs = TrainOutputs(model_path=place, model_uri=place)
        return run_training(TrainTask(settings=settings, inputs=inputs, outputs=outputs)).uri

    def cell(
        self, folder: Path, train: Callable[[], tuple[str, ShardsManifest]], num_items: int, strength: float = 1.0
    ) -> Cell:
        """Return a model's cell, trained and evaluated where the folder does not hold it."""
        place = folder / "measured.json"
        if not place.exists():
            folder.mkdir(parents=True, exist_ok=True)
            base = read_samples(self.base_samples())
            with open(folder / "log", "w") as log, contextlib.redirect_stdout(log):
                start = cpu_seconds()
                model_uri, shards = train()
                trained = cpu_seconds()
                candidate = read_samples(self.evaluate(model_uri, num_items, folder, strength))
                spent = [trained - start, cpu_seconds() - trained]
            comparison = compare_samples(base, candidate, self.world.limits, mix=describe_mix(shards))
            write_artifact(str(folder / "comparison"), comparison)
            place.write_text(json.dumps({"train_cpu_seconds": spent[0], "evaluate_cpu_seconds": spent[1]}))
            scores = {axis.axis: round(axis.measure.candidate, 3) for axis in comparison.axes}
            print(f"{folder.relative_to(self.folder.parent)}: {comparison.verdict} {scores}, CPU {spent}", flush=True)
        comparison = read_artifact(Comparison, str(folder / "comparison"))
        assert comparison.mix is not None
        return Cell(
            percent=comparison.mix.percent,
            epochs=comparison.mix.receipt.pools[0].epochs,
            num_steps=comparison.mix.num_steps,
            comparison=comparison,
            mix_cpu_seconds=json.loads(mixed.read_text()) if (mixed := folder / "mixed.json").exists() else 0.0,
            **json.loads(place.read_text()),
        )

    def base_samples(self) -> str:
        """Return the base model's samples, evaluated where they are missing; shorter evaluations are held against them."""
        folder = self.folder / f"base-{self.num_items or 'all'}"
        return str(folder / "samples") if (folder / "samples").exists() else self.evaluate("", self.num_items, folder)

    def evaluate(self, model_uri: str, num_items: int, folder: Path, strength: float = 1.0) -> str:
        """Evaluate a model; return the manifest of its samples."""
        customer, general = self.pools
        benchmarks = {
            axis: {key: value for key, value in options.items() if key != "max_drop"}
            for axis, options in self.world.benchmarks.items()
        }
        inputs = evaluation.Inputs(
            base_model=self.world.base_model,
            customer_path=customer,
            general_path=general,
            model_uri=model_uri,
            strength=strength,
            benchmarks=parse_benchmarks(benchmarks),
        )
        names = ("json_path", "data_uri", "html_path", "markdown_path")
        places = [str(folder / place) for place in ("samples", "data/samples", "samples.html", "samples.md")]
        answers = CustomerOptions(max_new_tokens=24)
        settings = EvaluateSettings(thinking="template", limit=num_items, customer_options=answers)
        evaluation.run(settings, inputs, evaluation.Outputs(**dict(zip(names, places, strict=True))))
        return places[0]
