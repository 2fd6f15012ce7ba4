"""Held-out general records beside the shards."""

from pathlib import Path

from mixtune import storage
from mixtune.artifacts import pools
from mixtune.artifacts.shards import Shards, ShardsManifest
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.mix_shard.holdout import HOLDOUT_RECORDS, write_holdout
from mixtune.settings.mix import TokenSettings

from ..chat_models import make_record, make_records

NO_STEPS = ShardsManifest(num_steps=0, pools=("customer", "chat", "math"), shards=())


def held_back(folder: Path, contents: dict[str, list[pools.Record]]) -> pools.PoolsManifest:
    listed = []
    for name, records in contents.items():
        file = f"{name}/holdout-00000.jsonl.zst"
        pools.write_records(storage.join(str(folder), file), records)
        listed.append(pools.Pool(name=name, splits={"holdout": pools.Split(num_records=len(records), files=(file,))}))
    return pools.PoolsManifest(data_uri=str(folder), pools=tuple(listed))


def test_every_pool_gives_as_many_held_out_records_and_no_longer_ones(tmp_path: Path, chatml: Path) -> None:
    long = make_record("why", " ".join(["word"] * 200))
    general = held_back(
        tmp_path / "pools", {"chat": [long, *make_records("chat", 100)], "math": make_records("math", 5)}
    )
    tokenizer = ChatTokenizer(chatml, TokenSettings(max_length=100))
    (entry,) = write_holdout(general, tokenizer, str(tmp_path / "shards"))
    assert entry.path == "holdout.arrow"
    records = Shards(tmp_path / "shards", NO_STEPS).holdout()
    assert [record.pool for record in records] == [1] * (HOLDOUT_RECORDS // 2) + [2] * 5
    first = general.records("math", "holdout")
    (wanted,) = tokenizer.tokenize([next(first)])
    assert records[32].input_ids.tolist() == wanted.input_ids.tolist()
    assert records[32].record_id == wanted.record["id"]


def test_pools_that_hold_nothing_back_leave_no_file(tmp_path: Path, chatml: Path) -> None:
    assert write_holdout(held_back(tmp_path / "pools", {}), ChatTokenizer(chatml), str(tmp_path / "shards")) == []
    assert Shards(tmp_path / "shards", NO_STEPS).holdout() == []
