import subprocess
import sys
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import pytest

from mixtune import storage
from mixtune.artifacts import pools
from mixtune.artifacts.shards import SCHEMA, Shards, open_shards
from mixtune.chat import encoding
from mixtune.chat.template_files import read_template_file
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.errors import ConfigError, DataError, ModelError
from mixtune.mix_shard import workers
from mixtune.mix_shard.run import Inputs, Outputs, run
from mixtune.mix_shard.workers import TokenizeJob, tokenize_pools
from mixtune.records import content_id
from mixtune.settings.mix import MixSettings, TokenSettings, read_mix_settings

from ..chat.families import read_templates, save_family
from ..chat_models import make_record, make_records, write_pools


def mixed(folder: Path, model: Path, contents: dict[str, Any], mix: MixSettings) -> Shards:
    customer = write_pools(folder / "customer", {"customer": contents.pop("customer")})
    general = write_pools(folder / "general", contents)
    inputs = Inputs(base_model=str(model), customer_path=customer, general_path=general)
    outputs = Outputs(
        json_path=str(folder / "out" / "shards"),
        data_uri=str(folder / "out" / "data" / "shards"),
        html_path=str(folder / "receipt.html"),
        markdown_path=str(folder / "receipt.md"),
    )
    run(mix, inputs, outputs)
    return open_shards(outputs.json_path, folder / "unused")


def three_pools() -> dict[str, Any]:
    return {
        "customer": make_records("customer", 60),
        "chat": make_records("chat", 40, words=8),
        "math": make_records("math", 10, words=5),
    }


def make_mix(**changed: Any) -> MixSettings:
    mix = {"customer_data_percent": 75, "weights": {"chat": 80, "math": 20}, "global_batch_size": 8, **changed}
    return read_mix_settings({}, mix)


def test_every_global_batch_holds_the_mix_ratio(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    assert shards.num_steps == 10
    for step in range(10):
        assert [record.pool for record in shards.step(step)].count(0) == 6


def test_one_customer_epoch_holds_every_customer_record_once(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    ids = [record.record_id for step in range(10) for record in shards.step(step) if record.pool == 0]
    assert sorted(ids) == sorted(record["id"] for record in make_records("customer", 60))


def test_the_manifest_says_of_which_pools_it_is_by_their_digests(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    digests = {name: pools.read_pools(str(tmp_path / name / "pools")).digest for name in ("customer", "general")}
    assert {name: item.digest for name, item in shards.manifest.inputs.items()} == digests


def test_the_manifest_counts_what_the_shards_hold(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    records = [shards.step(step) for step in range(shards.num_steps)]
    learned = [sum(record.num_loss_tokens for record in batch) for batch in records]
    assert list(shards.manifest.loss_tokens) == learned
    assert shards.manifest.max_record_tokens == max(len(record.input_ids) for batch in records for record in batch)
    for index, pool in enumerate(shards.manifest.receipt.pools):
        mine = [record for batch in records for record in batch if record.pool == index]
        assert pool.num_records == len(mine)
        assert pool.num_tokens == sum(len(record.input_ids) for record in mine)
        assert pool.num_loss_tokens == sum(record.num_loss_tokens for record in mine)


@pytest.mark.parametrize("percent", [0, 100])
def test_nothing_and_everything_from_the_customer_are_legal(tmp_path: Path, chatml: Path, percent: int) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix(customer_data_percent=percent, max_steps=3))
    assert {record.pool == 0 for step in range(3) for record in shards.step(step)} == {percent == 100}


def test_too_long_records_and_records_without_an_answer_are_counted_and_left_out(tmp_path: Path, chatml: Path) -> None:
    contents = three_pools()
    contents["chat"] += [make_record("long", "word " * 500), make_record("empty", "")]
    contents["chat"][-1]["messages"].pop()
    shards = mixed(tmp_path, chatml, contents, make_mix(max_length=200))
    assert shards.manifest.receipt.pools[1].dropped == {"longer than max_length": 1, "no token to learn": 1}
    assert shards.manifest.receipt.pools[1].pool_records == 40


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"customer_data_percent": 0}, "set max_steps"),
        ({"customer_data_percent": 101}, "0 to 100; got 101"),
        ({"weights": {"chat": 100}}, "general pool 'math' has none"),
        ({"weights": {"chat": 80, "math": 20, "code": 0}}, "there is no general pool 'code'"),
        ({"weights": {"chat": 80, "math": 10}}, "the weights sum to 90"),
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
    with pytest.raises(
        DataError, match=r"pool 'math' is to give 5 % of every .* no record .*: its train split is empty"
    ):
        mixed(tmp_path, chatml, {**three_pools(), "math": []}, make_mix())
    too_long = {**three_pools(), "math": [make_record("a", "word " * 500), make_record("b", "word " * 600)]}
    with pytest.raises(
        DataError, match=r"to learn: 2 x longer than max_length; give .* a larger mix_options.max_length"
    ):
        mixed(tmp_path, chatml, too_long, make_mix(max_length=200))


def test_the_same_pools_in_another_folder_give_the_same_shards(tmp_path: Path, chatml: Path) -> None:
    first, second = (mixed(tmp_path / name, chatml, three_pools(), make_mix()) for name in ("one", "two"))
    assert first.digest == second.digest
    assert storage.sha256_file(str(first.folder / "shard-00000.arrow")) == storage.sha256_file(
        str(second.folder / "shard-00000.arrow")
    )


@pytest.mark.parametrize("unit", ["tokens", "loss_tokens"])
def test_shares_may_count_tokens_and_stay_within_the_longest_record(tmp_path: Path, chatml: Path, unit: str) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix(unit=unit))
    receipt = shards.manifest.receipt
    ids = [record.record_id for step in range(shards.num_steps) for record in shards.step(step) if record.pool == 0]
    assert set(ids) == {record["id"] for record in make_records("customer", 60)}
    assert receipt.bound > 1
    for pool in receipt.pools:
        assert pool.worst_deviation <= receipt.bound


def test_the_receipt_says_when_the_general_share_of_what_is_learned_is_another(tmp_path: Path, chatml: Path) -> None:
    contents = {**three_pools(), "chat": make_records("chat", 40, words=60)}
    receipt = mixed(tmp_path, chatml, contents, make_mix()).manifest.receipt
    assert "75.0% customer to 25.0% general in records" in receipt.notes[0]
    general = sum(pool.share_of_loss_tokens for pool in receipt.pools[1:])
    assert f"to {general:.1%} in loss tokens" in receipt.notes[0]
    page = (tmp_path / "receipt.html").read_text()
    assert "<svg" in page
    assert "<script" not in page
    assert receipt.notes[0].split(":")[0] in page


def test_the_windows_of_the_receipt_hold_the_share_of_their_steps(tmp_path: Path, chatml: Path) -> None:
    stages = [{"steps": 4, "customer_data_percent": 25}]
    shards = mixed(tmp_path, chatml, three_pools(), make_mix(stages=stages, max_steps=10))
    receipt, windows = shards.manifest.receipt, shards.manifest.receipt.windows
    assert all(pool.worst_deviation <= receipt.bound < 2 for pool in receipt.pools)
    assert [window.records[0] for window in windows] == [0.25] * 4 + [0.75] * 6
    assert sum(window.num_steps for window in windows) == 10


@pytest.mark.parametrize("unit", ["records", "tokens", "loss_tokens"])
def test_short_stages_leave_no_pool_behind_in_any_unit(tmp_path: Path, chatml: Path, unit: str) -> None:
    stages = [{"steps": 1, "customer_data_percent": 90 + step % 2} for step in range(40)]
    mix = make_mix(unit=unit, stages=stages, weights={"chat": 90, "math": 10}, global_batch_size=8, max_steps=41)
    receipt = mixed(tmp_path, chatml, three_pools(), mix).manifest.receipt
    assert all(pool.worst_deviation <= receipt.bound for pool in receipt.pools)


def test_a_pool_too_small_for_its_share_of_one_batch_is_said_to_give_nothing(tmp_path: Path, chatml: Path) -> None:
    contents = {**three_pools(), "math": make_records("math", 1)}
    mix = make_mix(max_epochs_per_pool=1, when_exhausted="redistribute")
    receipt = mixed(tmp_path, chatml, contents, mix).manifest.receipt
    assert receipt.pools[2].epochs == 0
    assert any(note.startswith("pool 'math' gives none of its 1 records: ") for note in receipt.notes)


def test_a_stage_without_customer_records_needs_no_length_of_the_run(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix(stages=[{"steps": 3, "customer_data_percent": 0}]))
    pools = [[record.pool for record in shards.step(step)] for step in range(shards.num_steps)]
    assert [0 in step for step in pools] == [False] * 3 + [True] * (len(pools) - 3)
    assert sum(step.count(0) for step in pools) >= 60


@pytest.mark.parametrize("when", ["refuse", "warn", "redistribute"])
def test_a_pool_that_repeats_too_often_is_refused_said_or_relieved(tmp_path: Path, chatml: Path, when: str) -> None:
    contents = {**three_pools(), "math": make_records("math", 1)}
    mix = make_mix(max_epochs_per_pool=2, when_exhausted=when)
    if when == "refuse":
        with pytest.raises(
            ConfigError, match=r"pool 'math' gives 4 records of 1: 4\.00 epochs, max_epochs_per_pool is 2"
        ):
            mixed(tmp_path, chatml, contents, mix)
        return
    receipt = mixed(tmp_path, chatml, contents, mix).manifest.receipt
    assert receipt.pools[2].epochs == 4 if when == "warn" else 1 <= receipt.pools[2].epochs <= 2
    assert any("'math' gives 4" in note for note in receipt.notes) == (when == "warn")


def test_weights_may_follow_from_pool_sizes_by_temperature(tmp_path: Path, chatml: Path) -> None:
    mix = make_mix(weights={}, temperature=2.0, customer_data_percent=40, max_steps=30)
    receipt = mixed(tmp_path, chatml, three_pools(), mix).manifest.receipt
    assert [round(pool.planned_share, 3) for pool in receipt.pools] == [0.4, 0.4, 0.2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"unit": "words"}, "unit is 'words'"),
        ({"granularity": "batch", "unit": "tokens"}, "granularity 'batch' counts records"),
        ({"temperature": 2.0}, "give one of the two"),
        ({"stages": [{"steps": 0}]}, "stages, entry 1: steps is 1 or more"),
        ({"stages": [{"step": 3}]}, "stages, entry 1: unknown key 'step'"),
        ({"when_exhausted": "stop"}, "when_exhausted is 'stop'"),
    ],
)
def test_policies_that_are_not_known_are_refused_by_name(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_mix(**changed)


@pytest.mark.slow
def test_the_tokens_are_the_same_for_one_and_two_tokenizing_processes(
    tmp_path: Path, chatml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "BATCH_RECORDS", 7)
    contents = {"customer": make_records("customer", 30), "chat": make_records("chat", 20, words=9)}
    opened = pools.read_pools(write_pools(tmp_path / "pools", contents))
    found = []
    for count in (1, 2):
        (scratch := tmp_path / str(count)).mkdir()
        job = TokenizeJob(folder=chatml, settings=TokenSettings(max_length=60), scratch=scratch, num_workers=count)
        drops = tokenize_pools(job, [(opened, "customer"), (opened, "chat")]).drops
        files = {path.name: path.read_bytes() for path in scratch.iterdir()}
        found.append((drops, files))
    assert found[0] == found[1]
    assert found[0][0][0].num_read == 30
    assert len(found[0][1]["0.tokens"]) > 1000


def test_records_that_fastokens_gets_wrong_are_all_tokenized_again_by_the_models_own(
    tmp_path: Path, chatml: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = mixed(tmp_path / "right", chatml, three_pools(), make_mix())
    really = encoding._flat
    shifted: Any = lambda fast, texts: (really(fast, texts)[0] + ("question 32" in texts[-1]), really(fast, texts)[1])  # noqa: E731
    monkeypatch.setattr(encoding, "_flat", shifted)
    again = mixed(tmp_path / "again", chatml, three_pools(), make_mix())
    assert (right.manifest.tokenizer_backend, again.manifest.tokenizer_backend) == ("fastokens", "tokenizers")
    assert right.manifest.files == again.manifest.files


def test_a_records_weight_reaches_the_shards_and_a_record_of_weight_0_never_enters_a_batch(
    tmp_path: Path, chatml: Path
) -> None:
    contents = three_pools()
    for number, record in enumerate(contents["chat"]):
        record["weight"] = number % 3 / 2
    shards = mixed(tmp_path, chatml, contents, make_mix(max_steps=60))
    assert shards.manifest.receipt.pools[1].dropped == {"weight 0": 14}
    weights = {record["id"]: record["weight"] for record in contents["chat"]}
    found = [record for step in range(60) for record in shards.step(step)]
    assert {record.weight for record in found if record.pool != 1} == {1.0}
    assert all(record.weight == weights[record.record_id] > 0 for record in found if record.pool == 1)


def test_another_chat_template_may_be_given_and_is_in_the_manifest(tmp_path: Path, chatml: Path) -> None:
    path = tmp_path / "chat.jinja"
    path.write_text(
        "{% for m in messages %}{{ '<|im_start|>' + m.role + ': ' + m.content + '<|im_end|>' }}{% endfor %}"
    )
    shards = mixed(tmp_path, chatml, three_pools(), make_mix(chat_template_uri=str(path)))
    tokens = shards.step(0)[0].input_ids
    assert ChatTokenizer(chatml).decode(tokens).startswith("<|im_start|>user: ")
    assert shards.manifest.chat_template == path.read_text()


def test_a_chat_template_that_is_missing_empty_or_not_valid_is_refused(tmp_path: Path, chatml: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_template_file(str(tmp_path / "none.jinja"))
    (tmp_path / "empty.jinja").write_text(" ")
    with pytest.raises(DataError, match=r"empty\.jinja is empty"):
        read_template_file(str(tmp_path / "empty.jinja"))
    with pytest.raises(ModelError, match="the chat template is not valid"):
        ChatTokenizer(chatml, template="{% for m in messages %}")


def test_shards_are_read_with_pyarrow_alone_as_the_documentation_shows(tmp_path: Path, chatml: Path) -> None:
    shards = mixed(tmp_path, chatml, three_pools(), make_mix())
    text = (Path(__file__).parents[2] / "docs" / "shards.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    assert {line.split()[1].split(".")[0] for line in code.splitlines() if line.startswith("import")} == {
        "json",
        "pyarrow",
    }
    done = subprocess.run([sys.executable, "-Ic", code], cwd=tmp_path / "out", capture_output=True, text=True)
    assert [line.split() for line in done.stdout.splitlines()] == [
        [shards.pools[record.pool], record.record_id, "1.0", str(len(record.input_ids))] for record in shards.step(3)
    ]
    for field in SCHEMA:
        kind = escape(str(field.type).replace("item: ", "").replace("fixed_size_binary[16]", "binary(16)"))
        kind = "float32" if kind == "float" else kind
        assert f"| `{field.name}` | {kind} |" in text


def test_every_turn_of_a_split_conversation_is_learned_once_an_epoch(tmp_path: Path) -> None:
    model = save_family(tmp_path / "model", "qwen3", read_templates()["qwen3"][0])
    split = [make_record(f"question {n}", f"answer {n}") for n in range(8)]
    for record in split[::2]:
        record["messages"] = [*record["messages"], *make_record("and then?", "no more")["messages"]]
        record["id"] = content_id(record["messages"])
    contents = {"customer": split, "chat": make_records("chat", 8)}
    shards = mixed(
        tmp_path, model, contents, make_mix(weights={"chat": 100}, customer_data_percent=50, customer_epochs=1.0)
    )
    learned = Counter[str]()
    for batch in map(shards.step, range(shards.num_steps)):
        for row in batch:
            learned[row.record_id] += row.num_loss_tokens * (row.pool == 0)
    tokenizer, expected = ChatTokenizer(model), Counter[str]()
    for item in tokenizer.tokenize(split):
        expected[item.record["id"]] += int(item.loss_mask.sum())
    assert shards.num_steps * 4 == 12, "4 of 8 records are two examples, each of which takes a slot"
    assert {name: learned[name] for name in expected} == expected
