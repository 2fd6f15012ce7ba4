"""From a component's arguments to a trained model in its place."""

import hashlib
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixtune import models, storage
from mixtune.artifacts.pools import mixed_pools
from mixtune.artifacts.shards import Shards, open_shards
from mixtune.errors import ConfigError
from mixtune.settings.train import TrainSettings
from mixtune.tracking import Run, Tracking, article_tags, point_name, task_run
from mixtune.train.checkpoints import Checkpoints
from mixtune.train.config import Places
from mixtune.train.distributed import World, join_world
from mixtune.train.loop import Trainer, make_trainer, summarise, train_steps
from mixtune.train.metrics import track
from mixtune.train.modeling.loss import probe
from mixtune.train.modeling.model import load_trainable
from mixtune.train.postprocess import finish
from mixtune.train.validation import validate


def run_training(config: TrainSettings, places: Places) -> str:
    """Train over the shards, or validate in a few steps; the fingerprinted URI of the model's folder comes back.

    A training that was killed goes on from its newest checkpoint when it is run again in the same place. A validation
    run keeps no model and returns an empty text.

    Raises:
        TrainingError: Loss or gradient is not finite or far off, too much is forgotten at once, or a validation run
            does not learn or does not fit.
        ModelError: The base model cannot be used, or does not keep packed records apart.
        ConfigError: Its tokenizer is not the one that the shards were made with.
    """
    with join_world() as world, tempfile.TemporaryDirectory() as scratch, _run(config, places, world) as run:
        with world.one_a_node_first():
            folder = models.fetch_model(places.base_model)
            shards = open_shards(places.shards_path, _shards_folder(places.shards_path, Path(scratch), world))
        _check_tokenizer(shards, folder)
        if finished := world.text(_finished(config, places, shards) if world.is_main else ""):
            if world.is_main:
                storage.delete(storage.data_uri(places.model_uri, "checkpoints"))
            return finished
        run.log_params({**config.flat(), "num_steps": shards.num_steps, "shards": shards.digest})
        if not config.validation_steps:
            run.parent.set_tags(article_tags(_tags(config, shards), Tracking.from_options(places.tracking)))
            _track_origin(run, places, shards, Path(scratch))
        if world.is_main and config.warning():
            print(f"warning: {config.warning()}", flush=True)
        trainer = make_trainer(shards, load_trainable(folder, config, world), config, world)
        if trainer.watch:
            run.log_metrics({"general_nll": trainer.watch.base.nll, "kl_to_base": 0.0})
        probe(trainer.model.loss, shards.step(0)[:3])
        checkpoints = None if config.validation_steps else _checkpoints(config, places, shards, world)
        steps = train_steps(trainer, checkpoints)
        with checkpoints.until_told() if checkpoints else nullcontext():
            seen = track(steps, trainer.last_step, run) if world.is_main else list(steps)
        figures = summarise(trainer, seen) | (validate(trainer, seen) if config.validation_steps else {})
        if checkpoints:
            checkpoints.wait()
        uri = _leave(trainer, places, figures, run, Path(scratch))
        if checkpoints:
            run.set_tags({"model_uri": uri, "attempts": checkpoints.attempts})
        world.wait()
        if checkpoints:
            checkpoints.delete()
        return uri


def _leave(trainer: Trainer, places: Places, figures: dict[str, float], run: Run, scratch: Path) -> str:
    """Save the model, upload it, and write its manifest, last; in the main process its fingerprinted URI comes back."""
    trainer.model.check_finite()
    config, is_main, out = trainer.config, trainer.world.is_main, scratch / "model"
    out.mkdir()
    if not config.validation_steps:
        trainer.model.save(out, is_main)
    if not is_main:
        return ""
    run.log_metrics(figures, trainer.last_step)
    if not config.validation_steps:
        finish(out, trainer.model.folder, config)
    target = storage.data_uri(places.model_uri, "model")
    entries = storage.upload(out, target)
    manifest = {
        "kind": "model",
        "config": asdict(config),
        "base_model": places.base_model,
        "shards": trainer.shards.digest,
        "figures": figures,
    }
    storage.write_manifest(places.model_path, manifest, target, entries)
    return "" if config.validation_steps else storage.fingerprint(target)


def _track_origin(run: Run, places: Places, shards: Shards, scratch: Path) -> None:
    """What a model comes from: its base, its shards, their pools and their receipt."""
    pools = {f"{name}_pools": item.digest for name, item in mixed_pools(shards.manifest).items()}
    run.set_tags({"base_model": places.base_model, "shards": shards.digest, **pools})
    receipt = scratch / "mix_receipt.json"
    receipt.write_text(json.dumps(shards.manifest.get("receipt", {}), indent=1))
    run.log_artifact(receipt)


def _finished(config: TrainSettings, places: Places, shards: Shards) -> str:
    """The model's fingerprinted URI where this very training has already left it: a job may be started once more."""
    if config.validation_steps or not storage.file_exists(places.model_path):
        return ""
    manifest = storage.read_manifest(places.model_path, "model")
    made = (manifest["config"], manifest["shards"], manifest["base_model"])
    if made != (asdict(config), shards.digest, places.base_model):
        return ""
    storage.verify(manifest)
    print(f"this training is done: {manifest['data_uri']}", flush=True)
    return storage.fingerprint(manifest["data_uri"])


@contextmanager
def _run(config: TrainSettings, places: Places, world: World) -> Iterator[Run]:
    """The task's MLflow run in the main process; one that keeps nothing in the others."""
    if not world.is_main:
        yield Run(None, "")
        return
    task = "validate-training" if config.validation_steps else "train"
    shards = storage.read_manifest(places.shards_path, "shards")
    subject = storage.manifest_digest(asdict(config))
    with task_run(Tracking.from_options(places.tracking), point_name(task, shards), subject) as run:
        yield run


def _shards_folder(path: str, scratch: Path, world: World) -> Path:
    """Where shards from S3 are brought: one place a node."""
    if world.local_size == 1:
        return scratch / "shards"
    return models.cache_dir() / "shards" / hashlib.sha256(path.encode()).hexdigest()[:16]


def _checkpoints(config: TrainSettings, places: Places, shards: Shards, world: World) -> Checkpoints:
    identity = {**config.identity(), "shards": shards.digest, "base_model": places.base_model}
    return Checkpoints(storage.data_uri(places.model_uri, "checkpoints"), config, identity, world)


def _check_tokenizer(shards: Shards, folder: Path) -> None:
    made, here = shards.manifest.get("tokenizer_digest", ""), models.tokenizer_digest(folder)
    if made != here:
        raise ConfigError(
            f"the shards were made with tokenizer {made}, the base model has {here}; run mix_shard with this base model"
        )


def _tags(config: TrainSettings, shards: Shards) -> dict[str, Any]:
    lora = config.method == "lora"
    return {
        "mix_ratio": shards.manifest.get("mix_ratio", "none"),
        "lora_rank": config.lora_rank if lora else "none",
        "lr": config.learning_rate,
        "lora_lr": config.fast_learning_rate if lora else "none",
        "seed": config.seed,
        "steps": shards.num_steps,
        "dataset_version": shards.digest,
        "tokenizer_version": shards.manifest.get("tokenizer_digest", "none"),
    }
