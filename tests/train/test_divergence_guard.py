"""What stops a training, and what it says then."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mixtune import storage
from mixtune.artifacts import shards as shards_format
from mixtune.artifacts.shards import ShardsManifest, TokenRecord
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.errors import TrainingError
from mixtune.train.divergence_guard import WINDOW, DivergenceGuard, StepLosses

from .conftest import settings

POOLS = ["customer", "chat"]


def record(number: int, pool: int = 0) -> TokenRecord:
    ones = np.ones(5, np.uint8)
    return TokenRecord(pool=pool, record_id=f"{number:032x}", input_ids=ones.astype(np.int32), loss_mask=ones, weight=1)


def losses(step: int, loss: float, grad_norm: float = 1.0) -> StepLosses:
    return StepLosses(step=step, loss=loss, grad_norm=grad_norm, records=[record(1)], record_losses=[8.0], pools=POOLS)


def steady(**options: float) -> DivergenceGuard:
    guard = DivergenceGuard(settings(guards=options))
    for step in range(1, WINDOW + 1):
        guard.check(losses(step, 2.0))
    return guard


@pytest.mark.parametrize(
    ("loss", "norm", "reason"),
    [
        (7.5, 1.0, "loss 7.500, after 2.000 in the steps before .max_loss_rise 5."),
        (2.0, 150.0, "gradient norm 150, after 1 before .max_grad_ratio 100."),
        (math.nan, 1.0, "loss nan, gradient norm 1.0"),
        (2.0, math.inf, "loss 2.0, gradient norm inf"),
    ],
)
def test_a_step_far_off_stops_with_its_number_and_the_records_that_weigh_most(
    loss: float, norm: float, reason: str
) -> None:
    records = [record(number, number % 2) for number in range(8)]
    record_losses = [4.0, 4.0, 4.0, 40.0, 4.0, math.nan, 4.0, 4.0]
    with pytest.raises(TrainingError, match=f"^step 21: {reason}.*highest loss: chat 0+5 .nan., chat 0+3 .10.000."):
        steady().check(replace(losses(21, loss, norm), records=records, record_losses=record_losses))


def test_a_limit_of_zero_lets_any_finite_step_pass_but_no_other() -> None:
    guard = steady(max_loss_rise=0.0, max_grad_ratio=0.0)
    guard.check(losses(21, 900.0, 900.0))
    with pytest.raises(TrainingError, match="step 22: loss nan"):
        guard.check(losses(22, math.nan))


def test_a_guard_that_has_seen_little_waits_and_then_wakes() -> None:
    guard = DivergenceGuard(settings())
    for step in range(1, WINDOW // 2 + 1):
        guard.check(losses(step, 20.0 / step))
    with pytest.raises(TrainingError, match="step 11: loss 40"):
        guard.check(losses(11, 40.0))


def with_weight(shards_path: str, folder: Path, step: int, row: int, weight: float) -> str:
    """The same shards, but for the weight of one record."""
    manifest = read_artifact(ShardsManifest, shards_path)
    shutil.copytree(manifest.data_uri, folder / "data")
    with pa.ipc.open_file(str(folder / "data/s.arrow")) as reader:
        tables = [reader.get_batch(number).to_pydict() for number in range(reader.num_record_batches)]
    tables[step]["weight"][row] = weight
    opened = storage.open_write(str(folder / "data/s.arrow"))
    with opened as stream, pa.ipc.new_file(stream, shards_format.SCHEMA) as writer:
        for table in tables:
            writer.write_batch(pa.RecordBatch.from_pydict(table, schema=shards_format.SCHEMA))
    changed = replace(manifest, data_uri=str(folder / "data"), files=(stream.entry("s.arrow"),))
    write_artifact(str(folder / "shards"), changed)
    return str(folder / "shards")


def test_one_record_that_is_not_a_number_stops_the_training_at_its_step_and_leaves_no_model(
    train: Callable[..., str], shards_path: str, tmp_path: Path
) -> None:
    broken = with_weight(shards_path, tmp_path, 3, 1, math.nan)
    with pytest.raises(TrainingError, match=f"step 4: loss nan.*highest loss: chat {1:032x} .nan.") as error:
        train(tmp_path / "out", broken)
    assert "nothing of this step was learned" in str(error.value)
    assert not (tmp_path / "out" / "model").exists()
