"""Data sets of the hub, from a real HTTP server that answers as the hub does."""

import json
from typing import Any

import pytest

from mixtune import storage
from mixtune.errors import DataError
from mixtune.evaluate import choice_rows
from mixtune.preflight.fingerprint import fingerprint_benchmarks

QUESTION = {"question": "q", "subject": "anatomy", "choices": ["a", "b"], "answer": 1}
FILES = {
    "all/test-00000-of-00001.jsonl": (json.dumps(QUESTION) + "\n").encode() * 3,
    "all/dev-00000-of-00001.jsonl": (json.dumps(QUESTION) + "\n").encode(),
    "other/test.jsonl": b"not wanted",
}


@pytest.fixture(autouse=True)
def questions(hub: Any) -> None:
    hub.repos["org/mmlu"] = FILES


def test_a_benchmark_of_the_hub_is_fingerprinted_and_read_like_a_local_one(hub: Any) -> None:
    uri = "hf://datasets/org/mmlu@v1/all"
    named, _ = fingerprint_benchmarks({"mmlu": uri})
    plain, digest = storage.split_fingerprint(named["mmlu"]["uri"])
    assert (plain, len(digest)) == (uri, 32)
    splits = choice_rows.read_questions(choice_rows.ChoiceOptions(uri=named["mmlu"]["uri"]))
    assert {name: len(found) for name, found in splits.items()} == {"test": 3, "dev": 1}
    assert not any(name.startswith("other/") for name in hub.asked), "more was fetched than was asked for"


def test_one_file_of_the_hub_is_a_source_too(hub: Any) -> None:
    uri = "hf://datasets/org/mmlu@v1/all/dev-00000-of-00001.jsonl"
    assert storage.file_exists(uri)
    assert storage.file_size(uri) == len(FILES["all/dev-00000-of-00001.jsonl"])
    with storage.open_read(uri) as stream:
        assert json.loads(stream.read()) == QUESTION


@pytest.mark.parametrize(
    ("uri", "words"),
    [("hf://datasets/org/mmlu", "revision included"), ("hf://datasets/org/nothing@v1", "the hub did not give it"),
     ("hf://datasets/org/mmlu@v1/none", "no such file or folder")],
)  # fmt: skip
def test_what_the_hub_does_not_give_is_told_with_the_way_out(hub: Any, uri: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        storage.list_files(uri)
