"""Pools in the formats of others, and back."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.pools import Pool, PoolsManifest, Split, write_records
from mixtune.errors import ConfigError, DataError
from mixtune.open_pools.export import FORMATS, export_pools
from mixtune.records import Record, content_id
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.sanitize.rules.markers import ROLE_WORDS, TAGS

MARKERS = [f"{word}:" for word in ROLE_WORDS] + list(TAGS)
TOOL = {"name": "weather", "description": "Tells it.", "parameters": {"type": "object", "properties": {}}}
CALL = {"id": "c1", "name": "weather", "arguments": {"city": "Ulm"}}


def record(*turns: dict[str, Any], tools: list[dict[str, Any]] | None = None) -> Record:
    fields = {"messages": list(turns), "tools": tools or []}
    made = find_schema(fields, {}).record(fields, "made.jsonl", 1, Counter())
    return {**made, "id": content_id(made["messages"], made.get("tools"))}


def say(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


PLAIN = record(say("user", "Where is Ulm?"), say("assistant", "On the Danube."))
GUIDED = record(say("system", "Be brief."), say("user", "And Bonn?"), say("assistant", "On the Rhine."))
LONG = record(*(say(role, f"{role} {n}") for n in range(3) for role in ("user", "assistant")))
THINKING = record(say("user", "2 + 2?"), say("assistant", "4", reasoning="Two and two."))
TOOLED = record(
    say("user", "Rain in Ulm?"),
    say("assistant", "", tool_calls=[CALL]),
    say("tool", "no", tool_call_id="c1"),
    say("assistant", "No."),
    tools=[TOOL],
)
ALL = [PLAIN, GUIDED, LONG, THINKING, TOOLED]


@pytest.fixture
def pools(tmp_path: Path) -> Callable[[list[Record]], PoolsManifest]:
    def make(records: list[Record]) -> PoolsManifest:
        write_records(str(tmp_path / "train.jsonl.zst"), records)
        splits = {"train": Split(num_records=len(records), files=("train.jsonl.zst",))}
        return PoolsManifest(data_uri=str(tmp_path), pools=(Pool(name="customer", splits=splits),))

    return make


def exported(folder: Path, summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for name in summary["files"] for line in (folder / name).read_text().splitlines()]


def read_back(rows: list[dict[str, Any]]) -> set[str]:
    records = [find_schema(row, {}).record(row, "back.jsonl", 1, Counter()) for row in rows]
    return {content_id(item["messages"], item.get("tools")) for item in records}


@pytest.mark.parametrize(
    ("form", "held"),
    {
        "nova": ALL,
        "nova-eval": [PLAIN, GUIDED],
        "openai": ALL,
        "sharegpt": [PLAIN, GUIDED, LONG],
        "alpaca": [PLAIN, GUIDED],
    }.items(),
)
def test_what_is_read_back_is_what_was_exported_and_the_rest_is_counted(
    form: str, held: list[Record], pools: Callable[[list[Record]], PoolsManifest], tmp_path: Path
) -> None:
    summary = export_pools(pools(ALL), form, str(tmp_path / "out"))
    rows = exported(tmp_path / "out", summary)
    assert read_back(rows) == {item["id"] for item in held}
    assert sum(summary["files"].values()) + sum(summary["refused"].values()) == len(ALL)
    assert json.loads((tmp_path / "out" / "export-train.json").read_text()) == summary


def test_every_file_for_nova_passes_its_checkers_rules(
    pools: Callable[[list[Record]], PoolsManifest], tmp_path: Path
) -> None:
    dirty = " and ".join(f"My{marker} [E<unk>OS]" for marker in MARKERS)
    planted = record(
        say("system", f"First. {dirty}"),
        say("system", "Second."),
        say("user", dirty),
        say("user", "Once more."),
        say("assistant", "", reasoning=dirty, tool_calls=[CALL, {"name": "weather", "arguments": {}}]),
        say("tool", dirty, tool_call_id="c1"),
        say("tool", "fine"),
        say("assistant", dirty),
        tools=[{"name": "weather", "description": "", "parameters": {}}],
    )
    summary = export_pools(pools([*ALL, planted]), "nova", str(tmp_path / "out"))
    assert summary["refused"] == {}
    for name in summary["files"]:
        check_nova_file([json.loads(line) for line in (tmp_path / "out" / name).read_text().splitlines()])


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (record(say("user", "a"), say("assistant", "", tool_calls=[CALL]), say("assistant", "b")), "does not describe"),
        (record(say("assistant", "a"), say("user", "b"), say("assistant", "c")), "speaks first"),
        (record(say("user", "[EOS]"), say("assistant", "b")), "but markers"),
        (record(say("user", "a"), say("tool", "b", tool_call_id="c9"), say("assistant", "c")), "no call before"),
        (
            record(
                say("user", "a"), say("assistant", "", tool_calls=[CALL, CALL]), say("assistant", "b"), tools=[TOOL]
            ),
            "one id",
        ),
    ],
)
def test_a_record_that_nova_would_refuse_is_counted_with_its_reason(
    broken: Record, reason: str, pools: Callable[[list[Record]], PoolsManifest], tmp_path: Path
) -> None:
    summary = export_pools(pools([PLAIN, broken]), "nova", str(tmp_path / "out"))
    assert summary["files"] == {"train.jsonl": 1}
    assert [reason in text for text in summary["refused"]] == [True]


def test_an_export_of_nothing_is_an_error_and_leaves_no_file(
    pools: Callable[[list[Record]], PoolsManifest], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="1 x tools have no place"):
        export_pools(pools([TOOLED]), "alpaca", str(tmp_path / "out"))
    assert not list(tmp_path.glob("out/*"))


def check_nova_file(rows: list[dict[str, Any]]) -> None:
    """Nova's published rules for one file of conversations, both checkers' and the stricter schema's."""
    features = []
    for row in rows:
        assert set(row) <= {"schemaVersion", "system", "toolConfig", "messages"}
        assert row["schemaVersion"] == "bedrock-conversation-2024"
        assert len(row["messages"]) >= 2 and row["messages"][-1]["role"] == "assistant"
        assert all(m["role"] == ("user", "assistant")[n % 2] for n, m in enumerate(row["messages"]))
        assert len(row.get("system", [{}])) == 1
        names = {tool["toolSpec"]["name"] for tool in row.get("toolConfig", {}).get("tools", [])}
        for tool in row.get("toolConfig", {}).get("tools", []):
            assert tool["toolSpec"]["description"] and "type" in tool["toolSpec"]["inputSchema"]["json"]
        used: list[str] = []
        found = {"system"} & set(row)
        texts = [part["text"] for part in row.get("system", [])]
        for message in row["messages"]:
            assert set(message) == {"role", "content"} and message["content"]
            for part in message["content"]:
                ((kind, value),) = part.items()
                found |= {kind} - {"text"}
                if kind == "text":
                    assert value
                    texts.append(value)
                elif kind == "reasoningContent":
                    assert message["role"] == "assistant" and value["reasoningText"]["text"]
                    texts.append(value["reasoningText"]["text"])
                elif kind == "toolUse":
                    assert message["role"] == "assistant" and value["name"] in names and value["toolUseId"] not in used
                    used.append(value["toolUseId"])
                else:
                    assert kind == "toolResult" and message["role"] == "user" and value["toolUseId"] in used
                    assert all(len(item) == 1 and item["text"] for item in value["content"])
                    texts += [item["text"] for item in value["content"]]
        features.append(found)
        for text in texts:
            assert not [marker for marker in MARKERS if marker.lower() in text.lower()]
    assert all(found == features[0] for found in features), "a kind of content is in some rows only"


def test_every_format_is_tested() -> None:
    assert set(FORMATS) == {"nova", "nova-eval", "openai", "sharegpt", "alpaca"}


def test_an_export_replaces_its_own_files_and_no_others(
    pools: Callable[[list[Record]], PoolsManifest], tmp_path: Path
) -> None:
    export_pools(pools([PLAIN, TOOLED]), "nova", str(tmp_path))
    export_pools(pools([PLAIN]), "nova", str(tmp_path))
    assert [path.name for path in tmp_path.glob("*.jsonl")] == ["train.jsonl"]
    with pytest.raises(ConfigError, match=r"train\.jsonl is there, which no export as openai wrote; take another"):
        export_pools(pools([PLAIN]), "openai", str(tmp_path))
    (tmp_path / "export-train.json").unlink()
    with pytest.raises(ConfigError, match="which no export as nova wrote"):
        export_pools(pools([PLAIN]), "nova", str(tmp_path))
