"""Shards of random records for the demo's base model."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from mixtune import storage
from mixtune.artifacts import shards
from mixtune.artifacts.shards import ShardFile, ShardsManifest
from mixtune.artifacts.typed_json import write_artifact
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.models import tokenizer_digest


def write_shards(folder: Path, num_steps: int, batch: int = 4) -> str:
    """Write shards of so many steps, the same every time, and return their manifest's path."""
    draw = np.random.default_rng(0)
    with storage.open_write(str(folder / "data/s.arrow")) as stream, pa.ipc.new_file(stream, shards.SCHEMA) as file:
        for _ in range(num_steps):
            lengths = draw.integers(8, 30, batch).tolist()
            columns = [
                [0] * batch,
                [bytes([number] * 16) for number in range(batch)],
                [draw.integers(5, 500, length).astype(np.int32).tolist() for length in lengths],
                [(np.arange(length) >= length // 2).astype(np.uint8).tolist() for length in lengths],
                [1.0] * batch,
            ]
            file.write_batch(pa.record_batch(columns, schema=shards.SCHEMA))
    manifest = ShardsManifest(
        data_uri=str(folder / "data"),
        files=(stream.entry("s.arrow"),),
        num_steps=num_steps,
        pools=("random",),
        shards=(ShardFile(file="s.arrow", first_step=0, num_steps=num_steps),),
        max_record_tokens=29,
        tokenizer_digest=tokenizer_digest(BASE_MODEL),
    )
    write_artifact(str(folder / "shards"), manifest)
    return str(folder / "shards")
