from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from mixtune import storage
from mixtune.artifacts import shards
from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import DataError


def write(folder: str, manifest_path: str, steps: int = 5, per_shard: int = 2) -> None:
    entries, files = [], []
    for number, first in enumerate(range(0, steps, per_shard)):
        name, count = f"shard-{number:05d}.arrow", min(per_shard, steps - first)
        with storage.open_write(storage.join(folder, name)) as stream, pa.ipc.new_file(stream, shards.SCHEMA) as writer:
            for step in range(first, first + count):
                ids = [[step, row, 7] for row in range(4)]
                columns = [[0, 0, 1, 0], [bytes([step] * 16)] * 4, ids, [[0, 0, 1]] * 4, [1.0, 1.0, 0.5, 1.0]]
                writer.write_batch(pa.record_batch(columns, schema=shards.SCHEMA))
        entries.append(stream.entry(name))
        files.append(shards.ShardFile(file=name, first_step=first, num_steps=count))
    manifest = shards.ShardsManifest(
        data_uri=folder, files=tuple(entries), num_steps=steps, pools=("customer", "chat"), shards=tuple(files)
    )
    write_artifact(manifest_path, manifest)


@pytest.fixture(params=["local", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "data") if request.param == "local" else f"{request.getfixturevalue('bucket')}/data"


def test_any_step_is_read_by_arithmetic(folder: str, tmp_path: Path) -> None:
    write(folder, str(tmp_path / "manifest"))
    opened = shards.open_shards(str(tmp_path / "manifest"), tmp_path / "fetched")
    for step in (4, 0, 3):
        records = opened.step(step)
        assert [item.input_ids.tolist() for item in records] == [[step, row, 7] for row in range(4)]
        assert [item.pool for item in records] == [0, 0, 1, 0]
        assert records[2].weight == 0.5
        assert records[0].num_loss_tokens == 1
        assert records[0].record_id == bytes([step] * 16).hex()
        assert records[0].input_ids.dtype == np.int32
    with pytest.raises(DataError, match="hold steps 0 to 4; step 5"):
        opened.step(5)


def test_shards_that_were_cut_are_not_opened(tmp_path: Path) -> None:
    write(str(tmp_path / "data"), str(tmp_path / "manifest"))
    shard = tmp_path / "data" / "shard-00001.arrow"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(DataError, match=r"shard-00001\.arrow: .* bytes, the manifest says"):
        shards.open_shards(str(tmp_path / "manifest"), tmp_path / "fetched")
