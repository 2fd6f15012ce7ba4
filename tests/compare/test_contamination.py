"""Benchmark items in training shards."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from mixtune import models, storage
from mixtune.artifacts import shards
from mixtune.artifacts.typed_json import write_artifact
from mixtune.compare.contamination import find_coverage, make_items
from mixtune.errors import DataError
from mixtune.ngrams import NGRAM, hash_words
from mixtune.sanitize.dedup.fingerprints import index_texts

from ..evaluation import WORDS, compare, evaluate, write_jsonl

VOCABULARY = [f"word{number}" for number in range(400)]


UNSPACED = {
    "zh": "在下列选项中选出首都位于长江以北并且人口超过一千万的城市",
    "ja": "次のうち江戸時代に作られた俳句はどれか理由とともに選びなさい",
    "th": "กรุงเทพมหานครเป็นเมืองหลวงและนครที่มีประชากรมากที่สุดของประเทศไทยเป็นศูนย์กลางการปกครองการศึกษาและการเงิน",
    "ko": "다음 중 조선 시대에 지어진 건축물이 아닌 것을 고르고 이유를 쓰시오",
}


def coverage(items: list[str], texts: list[str]) -> list[float]:
    made = make_items("mmlu", [str(number) for number in range(len(items))], items)
    assert len(made) == len(items)
    return [float(share) for share in find_coverage(made, iter(texts))]


def test_an_item_inside_a_record_is_found_whatever_its_case_and_punctuation() -> None:
    asked = " ".join(VOCABULARY[:20])
    assert coverage([asked], [f"Well: {asked.upper()}! And more."]) == [1.0]


def test_half_an_item_is_half_covered_and_a_shorter_run_is_not() -> None:
    asked = " ".join(VOCABULARY[:26])
    assert coverage([asked], [" ".join(VOCABULARY[:13])]) == [0.5]
    assert coverage([asked], [" ".join(VOCABULARY[:12])]) == [0.0]


def test_two_records_that_hold_half_each_are_not_the_whole_item() -> None:
    asked = " ".join(VOCABULARY[:26])
    assert coverage([asked], [" ".join(VOCABULARY[:13]), " ".join(VOCABULARY[13:26])]) == [0.5]


def test_a_short_item_is_found_only_whole() -> None:
    asked = " ".join(VOCABULARY[:9])
    assert coverage([asked, asked], [" ".join(VOCABULARY[1:9])]) == [0.0, 0.0]
    assert coverage([asked], [f"x {asked} y"]) == [1.0]


@pytest.mark.parametrize("language", UNSPACED)
def test_an_item_of_a_language_without_spaces_is_searched_for(language: str) -> None:
    asked = UNSPACED[language]
    assert coverage([asked], [f"{asked}。", "hello"]) == [1.0]
    assert coverage([asked], [text for other, text in UNSPACED.items() if other != language]) == [0.0]


def test_an_item_in_chinese_or_japanese_is_found_inside_a_sentence() -> None:
    asked = [UNSPACED["zh"], UNSPACED["ja"]]
    assert coverage(asked, [f"请回答：{asked[0]}吗？谢谢", f"問題です。{asked[1]}。"]) == [1.0, 1.0]
    assert coverage(["北京是中国的首都对吗"], ["我知道北京是中国的首都对吗"]) == [1.0]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_sanitize_drops_the_records_in_which_compare_finds_an_item(data: st.DataObject) -> None:
    asked = data.draw(st.sampled_from([*UNSPACED.values(), " ".join(VOCABULARY[:20])]))
    around = [data.draw(st.sampled_from(["", " Answer this: ", "、", " ... ", "\n"])) for _ in range(2)]
    record = around[0] + asked + around[1] if data.draw(st.booleans()) else " ".join(VOCABULARY[20:50])
    hashed = hash_words([record])
    (dropped,) = index_texts([asked]).find(hashed, np.array([0]))
    assert dropped == (coverage([asked], [record]) == [1.0])


def test_words_hash_alike_in_every_process() -> None:
    code = "from mixtune.ngrams import hash_words; print(hash_words(['Card, lost']).flat.tolist())"
    printed = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
                       text=True, check=True).stdout
        for seed in ("1", "2")
    ]  # fmt: skip
    assert printed[0] == printed[1] == f"{hash_words(['card lost']).flat.tolist()}\n"


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=40),
    st.lists(st.lists(st.integers(0, 3), max_size=60), max_size=4),
)
def test_coverage_is_what_a_plain_search_finds(asked: list[int], texts: list[list[int]]) -> None:
    run, best = min(NGRAM, len(asked)), 0.0
    for text in texts:
        runs = {tuple(text[start : start + run]) for start in range(len(text) - run + 1)}
        covered: set[int] = set()
        for start in range(len(asked) - run + 1):
            if tuple(asked[start : start + run]) in runs:
                covered |= set(range(start, start + run))
        best = max(best, len(covered) / len(asked))
    named = [" ".join(VOCABULARY[one] for one in text) for text in texts]
    assert coverage([" ".join(VOCABULARY[one] for one in asked)], named) == [best]


def test_many_items_and_records_are_searched_in_seconds() -> None:
    random = np.random.default_rng(0)
    texts = [" ".join(VOCABULARY[place] for place in random.integers(0, 400, 60)) for _ in range(600)]
    found = coverage(texts[:300], texts[250:])
    assert found[250:] == [1.0] * 50
    assert sum(found[:250]) == 0


def write_shards(world: Any, folder: Path, texts: list[str], tokenizer_digest: str = "") -> Path:
    tokenizer = AutoTokenizer.from_pretrained(world.base)
    columns = {
        "pool": [0] * len(texts),
        "record_id": [bytes([number] * 16) for number in range(len(texts))],
        "input_ids": [tokenizer(text)["input_ids"] for text in texts],
        "loss_mask": [[1] * len(tokenizer(text)["input_ids"]) for text in texts],
        "weight": [1.0] * len(texts),
    }
    data = Path(storage.data_uri(str(folder / "shards"), "shards"))
    data.mkdir(parents=True)
    table = pa.Table.from_pydict(columns, schema=shards.SCHEMA)
    with pa.ipc.new_file(str(data / "shard-00000.arrow"), shards.SCHEMA) as sink:
        sink.write_table(table)
    manifest = shards.ShardsManifest(
        data_uri=str(data),
        files=tuple(storage.list_files(str(data))),
        num_steps=1,
        global_batch_size=len(texts),
        pools=("customer",),
        shards=(shards.ShardFile(file="shard-00000.arrow", first_step=0, num_steps=1),),
        tokenizer_digest=tokenizer_digest or models.tokenizer_digest(world.base),
    )
    write_artifact(str(folder / "shards"), manifest)
    return folder / "shards"


@pytest.fixture(scope="module")
def asked(world: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An evaluation, and the text of one item of its benchmark."""
    folder = tmp_path_factory.mktemp("asked")
    text = " ".join(f"{word} {number}" for number, word in enumerate(WORDS))
    prompt = {"key": 1, "prompt": text, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    path = write_jsonl(folder / "ifeval.jsonl", [prompt])
    evaluate(world, folder / "base", benchmarks={"ifeval": {"uri": str(path), "max_new_tokens": 2}})
    return folder / "base", text


def test_a_benchmark_item_in_the_shards_stops_the_comparison(world: Any, asked: Any, tmp_path: Path) -> None:
    base, text = asked
    path = str(write_shards(world, tmp_path, ["hello", f"Please say: {text}!"]))
    with pytest.raises(DataError, match=r"ifeval: 1 items are in the training data word for word \(1\)"):
        compare(base, base, tmp_path, shards_path=path)
    allowed = compare(base, base, tmp_path, shards_path=path, allow_overlap=True)
    assert {overlap.axis: overlap.exact for overlap in allowed.contamination}["ifeval"] == 1


def test_clean_shards_pass_and_are_named_in_the_comparison(world: Any, asked: Any, tmp_path: Path) -> None:
    base, _ = asked
    path = str(write_shards(world, tmp_path, ["hello there", "something else"]))
    found = compare(base, base, tmp_path, shards_path=path)
    assert all(overlap.exact == 0 for overlap in found.contamination)
    assert found.mix and found.mix.num_steps == 1


def test_shards_of_another_tokenizer_are_refused(world: Any, asked: Any, tmp_path: Path) -> None:
    base, _ = asked
    with pytest.raises(DataError, match="another tokenizer"):
        compare(base, base, tmp_path, shards_path=str(write_shards(world, tmp_path, ["x"], "other")))
