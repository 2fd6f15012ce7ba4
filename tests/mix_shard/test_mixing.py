from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.errors import ConfigError, DataError
from mixtune.mix_shard.exposure import Mix
from mixtune.mix_shard.mixing import Places, mix_shard
from mixtune.shards import Shards, open_shards

from .conftest import make_record, make_records, write_pools


def mixed(folder: Path, model: Path, contents: dict[str, Any], mix: Mix, max_length: int = 8192) -> Shards:
    customer = write_pools(folder / "customer", {"customer": contents.pop("customer")})
    general = write_pools(folder / "general", contents)
    places = Places(
        customer_path=customer,
        general_path=general,
        manifest_path=str(folder / "out" / "shards"),
        data_uri=str(folder / "out" / "data" / "shards"),
        html_path=str(folder / "receipt.html"),
        markdown_path=str(folder / "receipt.md"),
    )
    mix_shard(str(model), mix, places, max_length)
    return open_shards(places.manifest_path, folder / "unused")


def three_pools() -> dict[str, Any]:
    return {
        "customer": make_records("customer", 60),
        "chat": make_records("chat", 40, words=8),
        "math": make_records("math", 10, words=5),
    }


def make_mix(**changed: Any) -> Mix:
    return Mix(**{"customer_data_percent": 75, "weights": {"chat": 80, "math": 20}, "global_batch_size": 8, **changed})


def test_every_global_batch_holds_the_mix_ratio(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    assert shards.num_steps == 10
    for step in range(10):
        assert [record.pool for record in shards.step(step)].count(0) == 6


def test_one_customer_epoch_holds_every_customer_record_once(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    ids = [record.record_id for step in range(10) for record in shards.step(step) if record.pool == 0]
    assert sorted(ids) == sorted(record["id"] for record in make_records("customer", 60))


def test_the_manifest_counts_what_the_shards_hold(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    records = [shards.step(step) for step in range(shards.num_steps)]
    learned = [sum(record.num_loss_tokens for record in batch) for batch in records]
    assert shards.manifest["loss_tokens"] == learned
    assert shards.manifest["max_record_tokens"] == max(len(record.input_ids) for batch in records for record in batch)
    for index, pool in enumerate(shards.manifest["receipt"]["pools"]):
        mine = [record for batch in records for record in batch if record.pool == index]
        assert pool["num_records"] == len(mine)
        assert pool["num_tokens"] == sum(len(record.input_ids) for record in mine)
        assert pool["num_loss_tokens"] == sum(record.num_loss_tokens for record in mine)


@pytest.mark.parametrize("percent", [0, 100])
def test_nothing_and_everything_from_the_customer_are_legal(tmp_path: Path, chatml: Path, percent: int) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix(customer_data_percent=percent, max_steps=3))
    assert {record.pool == 0 for step in range(3) for record in shards.step(step)} == {percent == 100}


def test_too_long_records_and_records_without_an_answer_are_counted_and_left_out(tmp_path: Path, chatml: Path) -> None:
    contents = three_pools()
    contents["chat"] += [make_record("long", "word " * 500), make_record("empty", "")]
    contents["chat"][-1]["messages"].pop()
    shards = mixed(tmp_path, chatml, contents, make_mix(), max_length=200)
    assert shards.manifest["receipt"]["pools"][1]["dropped"] == {"longer than max_length": 1, "no token to learn": 1}
    assert shards.manifest["receipt"]["pools"][1]["pool_records"] == 40


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"customer_data_percent": 0}, "set max_steps"),
        ({"customer_data_percent": 101}, "0 to 100; got 101"),
        ({"weights": {"chat": 100}}, "general pool 'math' has none"),
        ({"weights": {"chat": 80, "math": 20, "code": 0}}, "there is no general pool 'code'"),
        ({"weights": {"chat": 80, "math": 10}}, "these sum to 90"),
        ({"weights": {"chat": 120, "math": -20}}, "'math' is -20"),
        ({"customer_epochs": 0}, "customer_epochs is more than 0"),
        ({"global_batch_size": 0}, "global_batch_size counts records"),
    ],
)
def test_a_mix_that_cannot_be_is_refused_by_name(
    tmp_path: Path, chatml: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        mixed(tmp_path, chatml, three_pools(), make_mix(**changed))


def test_an_empty_pool_with_a_share_is_refused_by_name(tmp_path: Path, chatml: Path) -> None:
    with pytest.raises(DataError, match="pool 'math' is to give 5 % of every global batch and has no record"):
        mixed(tmp_path, chatml, {**three_pools(), "math": []}, make_mix())


def test_the_same_pools_in_another_folder_give_the_same_shards(tmp_path: Path, chatml: Path) -> None:
    first, second = (mixed(tmp_path / name, chatml, three_pools(), make_mix()) for name in ("one", "two"))
    assert first.digest == second.digest
    assert storage.sha256_file(str(first.folder / "shard-00000.arrow")) == storage.sha256_file(
        str(second.folder / "shard-00000.arrow")
    )
