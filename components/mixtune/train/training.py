"""From a component's arguments to a trained model in its place."""

import resource
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mixtune import models, storage
from mixtune.errors import ConfigError, TrainingError
from mixtune.shards import Shards, open_shards
from mixtune.tracking import Tracking, article_tags, task_run
from mixtune.train.config import TrainConfig
from mixtune.train.loop import StepFigures, track, train_steps
from mixtune.train.model import load_trainable


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a training reads and where it writes."""

    shards_path: str
    """Manifest of the shards."""
    base_model: str
    model_path: str
    """Where the model's manifest goes."""
    model_uri: str
    """The artifact's URI: weights and checkpoints lie beside it."""
    tracking: dict[str, Any] = field(default_factory=dict)


def run_training(config: TrainConfig, places: Places) -> str:
    """Train over the shards, or validate in a few steps; the fingerprinted URI of the model's folder comes back.

    A training that was killed goes on from its newest checkpoint when it is run again in the same place. A validation
    run keeps no model and returns an empty text.

    Raises:
        TrainingError: Loss or gradient is not finite, or a validation run's loss does not fall.
        ModelError: The base model cannot be used, or its tokenizer is not the one that the shards were made with.
    """
    folder = models.fetch_model(places.base_model)
    name = "validate-training" if config.validation_steps else "train"
    tracking = Tracking.from_options(places.tracking)
    with tempfile.TemporaryDirectory() as scratch, task_run(tracking, name) as run:
        shards = open_shards(places.shards_path, Path(scratch) / "shards")
        _check_tokenizer(shards, folder)
        run.log_params({**asdict(config), "num_steps": shards.num_steps, "shards": shards.digest})
        if not config.validation_steps:
            run.parent.set_tags(article_tags(_tags(config, shards), tracking))
        model = load_trainable(folder, config)
        steps = min(config.validation_steps, shards.num_steps) or shards.num_steps
        checkpoint_dir = None if config.validation_steps else _checkpoint_dir(places.model_uri, Path(scratch))
        seen = track(train_steps(shards, model, config, checkpoint_dir), steps, run)
        figures = summarise(seen)
        run.log_metrics({key: value for key, value in figures.items() if key != "num_steps"}, steps)
        out = Path(scratch) / "model"
        out.mkdir()
        if config.validation_steps:
            check_falling(seen)
        else:
            model.save(out)
        target = storage.data_uri(places.model_uri, "model")
        entries = storage.upload(out, target)
    manifest = {
        "kind": "model",
        "config": asdict(config),
        "base_model": places.base_model,
        "shards": shards.digest,
        "figures": figures,
    }
    storage.write_manifest(places.model_path, manifest, target, entries)
    if config.validation_steps:
        return ""
    if not storage.is_s3(places.model_uri):
        storage.delete(storage.data_uri(places.model_uri, "checkpoints"))
    return storage.fingerprint(target)


def summarise(seen: list[StepFigures]) -> dict[str, float]:
    """Figures of a whole run: losses, speed in tokens a second, peak memory in bytes."""
    seconds = sum(item.seconds for item in seen)
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "num_steps": len(seen),
        "first_loss": seen[0].loss if seen else 0.0,
        "final_loss": seen[-1].loss if seen else 0.0,
        "mean_tokens_per_second": sum(item.num_tokens for item in seen) / max(seconds, 1e-9),
        "seconds": seconds,
        "peak_memory_bytes": float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit),
    }


def check_falling(seen: list[StepFigures]) -> None:
    """Stop before the expensive part when a validation run diverges.

    Raises:
        TrainingError: The last loss is more than twice the first.
    """
    first, last = seen[0].loss, seen[-1].loss
    if last > 2 * first:
        raise TrainingError(
            f"validation run: the loss went from {first:.3f} to {last:.3f} in {len(seen)} steps; lower learning_rate"
        )


def _check_tokenizer(shards: Shards, folder: Path) -> None:
    made, here = shards.manifest.get("tokenizer_digest", ""), models.tokenizer_digest(folder)
    if made != here:
        raise ConfigError(
            f"the shards were made with tokenizer {made}, the base model has {here}; run mix_shard with this base model"
        )


def _checkpoint_dir(model_uri: str, scratch: Path) -> Path:
    """Beside a local artifact, so that a killed task goes on; on scratch disk where the artifact is in S3."""
    if storage.is_s3(model_uri):
        return scratch / "checkpoints"
    return Path(storage.data_uri(model_uri, "checkpoints"))


def _tags(config: TrainConfig, shards: Shards) -> dict[str, Any]:
    lora = config.method == "lora"
    return {
        "mix_ratio": shards.manifest.get("mix_ratio", "none"),
        "lora_rank": config.lora_rank if lora else "none",
        "lr": config.learning_rate,
        "lora_lr": config.learning_rate * config.lora_plus_ratio if lora else "none",
        "seed": config.seed,
        "steps": shards.num_steps,
        "dataset_version": shards.digest,
        "tokenizer_version": shards.manifest.get("tokenizer_digest", "none"),
    }
