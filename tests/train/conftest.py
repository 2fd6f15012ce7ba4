"""Small shards, and records drawn from a seed."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from transformers import AutoModelForCausalLM

from mixtune import storage
from mixtune.artifacts import shards as shards_format
from mixtune.artifacts.shards import ShardFile, ShardsManifest, TokenRecord
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.models import tokenizer_digest
from mixtune.settings.from_dict import from_dict
from mixtune.settings.train import TrainSettings
from mixtune.tracking import Tracking
from mixtune.train.loop import OnStep
from mixtune.train.metrics import StepMetrics
from mixtune.train.run import run_training
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask
from mixtune.train.trainer import Trainer

STEPS, BATCH = 12, 6
torch.set_num_threads(1)  # bits depend on the number of threads


def settings(**options: object) -> TrainSettings:
    """Training settings, groups as dictionaries; LoRA where nothing else is said."""
    return from_dict(TrainSettings, {"method": "lora", **options}, "settings")


def drawn(count: int, seed: int) -> list[TokenRecord]:
    draw = np.random.default_rng(seed)
    out = []
    for number in range(count):
        length = int(draw.integers(4, 30))
        ids = draw.integers(5, 500, length).astype(np.int32)
        mask = (np.arange(length) >= length // 2).astype(np.uint8)
        weight = 1.0 + 0.5 * (number % 2)
        out.append(
            TokenRecord(pool=number % 2, record_id=f"{number:032x}", input_ids=ids, loss_mask=mask, weight=weight)
        )
    return out


def write_steps(stream: Any, steps: list[list[TokenRecord]]) -> None:
    with pa.ipc.new_file(stream, shards_format.SCHEMA) as writer:
        for records in steps:
            columns = [
                [record.pool for record in records],
                [bytes.fromhex(record.record_id) for record in records],
                [record.input_ids.tolist() for record in records],
                [record.loss_mask.tolist() for record in records],
                [record.weight for record in records],
            ]
            writer.write_batch(pa.record_batch(columns, schema=shards_format.SCHEMA))


@pytest.fixture(scope="session")
def shards_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("shards")
    opened = storage.open_write(str(folder / "data/s.arrow"))
    with opened as stream:
        write_steps(stream, [drawn(BATCH, step) for step in range(STEPS)])
    manifest = ShardsManifest(
        data_uri=str(folder / "data"),
        files=(stream.entry("s.arrow"),),
        num_steps=STEPS,
        pools=("customer", "chat"),
        shards=(ShardFile(file="s.arrow", first_step=0, num_steps=STEPS),),
        max_record_tokens=29,
        tokenizer_digest=tokenizer_digest(BASE_MODEL),
    )
    write_artifact(str(folder / "shards"), manifest)
    return str(folder / "shards")


@pytest.fixture(scope="session")
def draw_records() -> Callable[[int, int], list[TokenRecord]]:
    return drawn


def task_in(folder: Path, shards: str, tracking: str = "", validation_steps: int = 0, **options: object) -> TrainTask:
    """A training of the demo's base model in a folder: LoRA, with a checkpoint every two steps."""
    folder.mkdir(exist_ok=True)
    place = str(folder / "model")
    return TrainTask(
        settings=settings(**{"learning_rate": 1e-4, "checkpoints": {"every_steps": 2}, **options}),
        inputs=TrainInputs(shards_path=shards, base_model=str(BASE_MODEL)),
        outputs=TrainOutputs(model_path=place, model_uri=place, tracking=Tracking(uri=tracking)),
        validation_steps=validation_steps,
    )


def no_hook(trainer: Trainer, metrics: StepMetrics) -> None:
    """See nothing."""


@pytest.fixture(scope="session")
def train(shards_path: str) -> Callable[..., str]:
    """Train in a folder, over the small shards where nothing else is said; the model's URI."""

    def run(folder: Path, shards: str = shards_path, on_step: OnStep = no_hook, **options: Any) -> str:
        return run_training(task_in(folder, shards, **options), on_step).uri

    return run


@pytest.fixture(scope="session")
def watched_shards(shards_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same shards with held-out records beside them: what the base model itself says after a few tokens."""
    model = AutoModelForCausalLM.from_pretrained(str(BASE_MODEL), dtype=torch.float32)
    said = model.generate(torch.arange(5, 41).view(9, 4), min_new_tokens=12, max_new_tokens=12, do_sample=False)
    mask = np.repeat(np.array([0, 1], np.uint8), [4, 12])
    held_out = [
        TokenRecord(pool=1, record_id=f"{row:032x}", input_ids=ids.astype(np.int32), loss_mask=mask, weight=1.0)
        for row, ids in enumerate(said.numpy())
    ]
    folder = tmp_path_factory.mktemp("watched")
    manifest = read_artifact(ShardsManifest, shards_path)
    shutil.copytree(manifest.data_uri, folder / "data")
    with storage.open_write(str(folder / "data/holdout.arrow")) as stream:
        write_steps(stream, [held_out])
    files = (*manifest.files, stream.entry("holdout.arrow"))
    write_artifact(str(folder / "shards"), replace(manifest, data_uri=str(folder / "data"), files=files))
    return str(folder / "shards")


def write_half(shards: str, folder: Path) -> str:
    """Write a manifest of the first half of the steps, beside the same files; its path."""
    manifest = read_artifact(ShardsManifest, shards)
    write_artifact(str(folder / "shards"), replace(manifest, num_steps=manifest.num_steps // 2))
    return str(folder / "shards")


@pytest.fixture(scope="session")
def half_shards(shards_path: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first half of the small shards' steps."""
    return write_half(shards_path, tmp_path_factory.mktemp("half"))


@pytest.fixture(scope="session")
def half_watched(watched_shards: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The first half of the steps of the shards with held-out records."""
    return write_half(watched_shards, tmp_path_factory.mktemp("half"))
