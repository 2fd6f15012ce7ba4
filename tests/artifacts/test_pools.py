import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtune import storage
from mixtune.artifacts import pools
from mixtune.artifacts.pools import Pool, Split
from mixtune.artifacts.typed_json import write_artifact
from mixtune.errors import DataError
from mixtune.records import Record, content_id, exact_number, prompt_and_answer, template_messages


def record(text: str, line: int = 1) -> Record:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": text[::-1]}]
    return {"id": content_id(messages), "messages": messages, "origin": {"file": "a.jsonl", "line": line}}  # type: ignore[typeddict-item]


@settings(max_examples=25)
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=20))
def test_records_survive_a_file_whatever_their_text(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("pool")
    records = [record(text, line) for line, text in enumerate(texts, start=1)]
    first = pools.write_records(str(folder / "a.jsonl.zst"), records)
    assert list(pools.read_records(str(folder / "a.jsonl.zst"))) == records
    assert pools.write_records(str(folder / "b.jsonl.zst"), records).sha256 == first.sha256


def test_keys_stay_in_the_order_they_were_given_in_since_templates_write_them_so(tmp_path: Path) -> None:
    parameters = {"type": "object", "properties": {"to": {"type": "string"}, "from": {"type": "string"}}}
    tool: Any = {"name": "trains", "description": "", "parameters": parameters}
    given = Record(**record("Ulm?"), tools=[tool])
    pools.write_records(str(tmp_path / "a.jsonl.zst"), [given])
    (kept,) = pools.read_records(str(tmp_path / "a.jsonl.zst"))
    assert json.dumps(kept) == json.dumps(given)


@pytest.mark.parametrize("number", ["-0", "1.10", "1E+2", "18446744073709551616"])
def test_a_number_of_a_call_is_read_as_it_was_written(number: str, tmp_path: Path) -> None:
    call = {"name": "route", "arguments": {"x": exact_number(number)}}
    messages: Any = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    pools.write_records(str(tmp_path / "a.jsonl.zst"), [Record(**{**record("a"), "messages": messages})])
    (again,) = pools.read_records(str(tmp_path / "a.jsonl.zst"))
    assert str(again["messages"][1]["tool_calls"][0]["arguments"]["x"]) == number


def test_a_pools_artifact_is_read_by_its_manifest_and_only_whole(tmp_path: Path) -> None:
    entries = [pools.write_records(str(tmp_path / "data/chat/train-00000.jsonl.zst"), [record("a"), record("b", 2)])]
    files = [
        storage.FileEntry(path="chat/train-00000.jsonl.zst", num_bytes=entries[0].num_bytes, sha256=entries[0].sha256)
    ]
    chat = Pool(name="chat", splits={"train": Split(num_records=2, files=(files[0].path,))})
    manifest = pools.PoolsManifest(pools=(chat,), data_uri=str(tmp_path / "data"), files=tuple(files))
    write_artifact(str(tmp_path / "pools"), manifest)
    opened = pools.read_pools(str(tmp_path / "pools"))
    assert opened["chat"].num_records("train") == 2
    assert opened["chat"].num_records("test") == 0
    assert [item["origin"]["line"] for item in opened.records("chat", "train")] == [1, 2]
    assert list(opened.records("chat", "test")) == []
    with pytest.raises(DataError, match="no pool 'code'; there are chat"):
        opened["code"]
    (tmp_path / "data/chat/train-00000.jsonl.zst").write_bytes(b"cut")
    with pytest.raises(DataError, match="make it again"):
        pools.read_pools(str(tmp_path / "pools"))


def test_the_same_content_has_the_same_id_and_other_content_another() -> None:
    assert record("a", 1)["id"] == record("a", 2)["id"] != record("b")["id"]


def test_messages_reach_a_template_in_openais_form() -> None:
    call = {"id": "1", "name": "add", "arguments": {"x": 1}}
    message = {"role": "assistant", "content": "", "reasoning": "hm", "tool_calls": [call]}
    assert template_messages([message])[0] == {  # type: ignore[list-item]
        "role": "assistant",
        "content": "",
        "reasoning": "hm",
        "reasoning_content": "hm",
        "thinking": "hm",
        "thought": "hm",
        "tool_calls": [{"type": "function", "function": {"name": "add", "arguments": {"x": 1}}, "id": "1"}],
    }


def test_a_record_without_an_answer_is_named_by_file_and_line() -> None:
    asked = record("a", 7)
    asked["messages"] = asked["messages"][:1]
    with pytest.raises(DataError, match=r"a\.jsonl line 7: the last message is the user's"):
        prompt_and_answer(asked)
