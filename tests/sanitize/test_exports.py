"""Exports of chat apps as files: the conversation that was shown is learned, what an app's tools said never is."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mixtune.sanitize import clean
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile
from mixtune.sanitize.reading import readers
from mixtune.sanitize.reading.readers import plan_ranges

Row = dict[str, Any]
SHOWN = ("role", "content", "reasoning", "learn")


def read(folder: Path, *rows: Row) -> tuple[list[list[tuple[Any, ...]]], Counter[str], Counter[str]]:
    """Return the messages, the fields that were not read and the reasons of dropped rows, of an export of some rows."""
    (folder / "conversations.json").write_text(json.dumps(rows))
    source = SourceFile(pool="p", split="train", uri=str(folder / "conversations.json"), columns={})
    cleaner = Cleaner(source, Rules(max_bad_ratio=1))
    records = [
        [tuple(dict(message)[key] for key in SHOWN if key in message) for message in record["messages"]]
        for record in cleaner.records()
    ]
    return records, cleaner.tally.unread, cleaner.tally.dropped


def spoken(role: str, *texts: Any, **about: Any) -> Row:
    content = about.pop("content", {"content_type": "text", "parts": list(texts)})
    whole = {"status": "finished_successfully", "weight": 1.0, "recipient": "all", "metadata": {}}
    return {"author": {"role": role, "name": None, "metadata": {}}, "content": content, **whole, **about}


def chatgpt(*messages: Row, branches: dict[str, Row] | None = None) -> Row:
    """Return a conversation of ChatGPT's; `branches` are messages beside, by the number of the one before."""
    nodes: dict[str, Row] = {"0": {"id": "0", "message": None, "parent": None, "children": []}}
    for number, message in enumerate(messages, start=1):
        nodes[str(number)] = {"id": str(number), "message": {"id": str(number), **message}, "parent": str(number - 1)}
    for parent, message in (branches or {}).items():
        nodes[f"b{parent}"] = {"id": f"b{parent}", "message": {"id": f"b{parent}", **message}, "parent": parent}
    return {"title": "t", "mapping": nodes, "current_node": str(len(messages)), "conversation_id": "c"}


Q, A = spoken("user", "q"), spoken("assistant", "a")
CONTEXT = {"content_type": "user_editable_context", "user_profile": "p", "user_instructions": "i"}
HIDDEN = {"is_visually_hidden_from_conversation": True}
IMAGE = {"content_type": "image_asset_pointer", "asset_pointer": "file-service://x"}
TOOLS, CUT = "answers by an app's tools, as context", "answers that were cut off, as context"


def test_a_branch_that_was_not_shown_is_counted_and_never_learned(tmp_path: Path) -> None:
    row = chatgpt(Q, A, branches={"1": spoken("assistant", "never"), "2": spoken("user", "nor this")})
    records, unread, _ = read(tmp_path, row)
    assert records == [[("user", "q"), ("assistant", "a")]]
    assert unread["branches beside the conversation"] == 1


def test_what_the_model_was_told_about_the_user_is_the_system_text(tmp_path: Path) -> None:
    hidden = spoken("user", content=CONTEXT, weight=0, metadata=HIDDEN)
    records, _, _ = read(tmp_path, chatgpt(spoken("system", ""), hidden, Q, A))
    assert records == [[("system", "p\n\ni"), ("user", "q"), ("assistant", "a")]]


def test_thoughts_belong_to_the_answer_behind_them(tmp_path: Path) -> None:
    thoughts = spoken("assistant", content={"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "t"}]})
    recap = spoken("assistant", content={"content_type": "reasoning_recap", "content": "Thought for 2s"})
    records, unread, _ = read(tmp_path, chatgpt(Q, thoughts, recap, A))
    assert records == [[("user", "q"), ("assistant", "a", "t")]]
    assert unread["messages.reasoning_recap"] == 1


CODE = {"content_type": "code", "language": "unknown", "text": "search('q')"}
BY_TOOLS = {
    "a call and its result": [spoken("assistant", content=CODE, recipient="web"), spoken("tool", "r"), A],
    "a citation": [spoken("assistant", "a \ue200cite\ue202turn0\ue201")],
    "a citation of a file": [spoken("assistant", "a 【4†source】")],
}


@pytest.mark.parametrize("name", BY_TOOLS)
def test_an_answer_by_an_apps_tools_is_context_alone(name: str, tmp_path: Path) -> None:
    records, unread, _ = read(tmp_path, chatgpt(Q, *BY_TOOLS[name], Q, A))
    assert [message[-1] for message in records[0]] == ["q", False, "q", "a"]
    assert unread[TOOLS] == 1


@pytest.mark.parametrize(
    "about",
    [{"status": "in_progress"}, {"metadata": {"finish_details": {"type": "max_tokens"}}}],
    ids=["broken", "long"],
)
def test_an_answer_that_was_cut_off_ends_nothing(about: Row, tmp_path: Path) -> None:
    records, unread, _ = read(tmp_path, chatgpt(Q, A, Q, spoken("assistant", "half", **about), Q))
    assert records == [[("user", "q"), ("assistant", "a")]]
    assert unread[CUT] == unread["turns behind the last answer that is learned"] == 1


def test_a_hidden_message_is_counted(tmp_path: Path) -> None:
    records, unread, _ = read(
        tmp_path, chatgpt(spoken("user", "h", metadata=HIDDEN), Q, spoken("assistant", "x", weight=0), A)
    )
    assert records == [[("user", "q"), ("assistant", "a")]]
    assert unread["messages that were hidden"] == 1


def test_what_was_spoken_is_read_as_it_was_written_down(tmp_path: Path) -> None:
    parts = [{"content_type": "audio_transcription", "text": "q"}, {"content_type": "audio_asset_pointer"}]
    voice = spoken("user", content={"content_type": "multimodal_text", "parts": parts})
    assert read(tmp_path, chatgpt(voice, A))[0] == [[("user", "q"), ("assistant", "a")]]


DROPPED = {
    "images": (chatgpt(spoken("user", content={"content_type": "multimodal_text", "parts": [IMAGE, "q"]}), A), "images, audio or video"),
    "a file": (chatgpt(spoken("user", "q", metadata={"attachments": [{"name": "a.pdf"}]}), A), "attachments"),
    "another kind": (chatgpt(Q, spoken("assistant", content={"content_type": "super_widget"})), "a kind that is not read .super_widget"),
    "nothing said": (chatgpt(), "without an answer to learn"),
    "an empty chat of Claude's": ({"uuid": "u", "chat_messages": []}, "without an answer to learn"),
    "a file of Claude's": ({"chat_messages": [{"uuid": "1", "sender": "human", "text": "q", "files": [{"file_name": "a.png"}]}]}, "attachments"),
}  # fmt: skip


@pytest.mark.parametrize("name", DROPPED)
def test_a_conversation_that_cannot_be_followed_is_dropped_and_stops_nothing(name: str, tmp_path: Path) -> None:
    row, reason = DROPPED[name]
    records, _, dropped = read(tmp_path, row, chatgpt(Q, A) if "mapping" in row else CLAUDE)
    assert len(records) == 1
    assert [count for why, count in dropped.items() if reason.split(" .")[0] in why] == [1]
    assert "unreadable" not in dropped


def message(uuid: str, sender: str, parent: str, *content: Row, **about: Any) -> Row:
    return {
        "uuid": uuid,
        "sender": sender,
        "parent_message_uuid": parent,
        "created_at": uuid,
        "content": list(content),
        **about,
    }


def text(words: str) -> Row:
    return {"type": "text", "text": words, "citations": []}


CLAUDE = {
    "uuid": "u",
    "chat_messages": [
        message("1", "human", "0", text("q"), attachments=[{"file_name": "a.txt", "extracted_content": "inside"}]),
        message("2", "assistant", "1", text("never")),
        message("3", "assistant", "1", text("x"), {"type": "tool_use", "name": "f", "input": {}}, {"type": "tool_result"}, text("y")),
        message("4", "human", "3", text("q")),
        message("5", "assistant", "4", {"type": "thinking", "thinking": "t"}, text("a")),
    ],
}  # fmt: skip


def test_claudes_newest_branch_is_the_conversation(tmp_path: Path) -> None:
    records, unread, _ = read(tmp_path, CLAUDE)
    question = ("user", "q\n\ninside")
    assert records == [[question, ("assistant", "x\n\ny", False), ("user", "q"), ("assistant", "a", "t")]]
    assert unread["branches beside the conversation"] == unread[TOOLS] == 1


def test_of_messages_of_one_moment_the_last_in_the_file_is_the_newest(tmp_path: Path) -> None:
    row = {"chat_messages": [{**message, "created_at": "1"} for message in CLAUDE["chat_messages"]]}
    nodes = {
        "1": {"id": "1", "message": {"inserted_at": "1", "fragments": [{"type": "REQUEST", "content": "q"}]}},
        "2": {
            "id": "2",
            "parent": "1",
            "message": {"inserted_at": "1", "fragments": [{"type": "SEARCH"}, {"type": "RESPONSE", "content": "x"}]},
        },
        "3": {
            "id": "3",
            "parent": "2",
            "message": {"inserted_at": "1", "fragments": [{"type": "REQUEST", "content": "q"}]},
        },
        "4": {
            "id": "4",
            "parent": "3",
            "message": {"inserted_at": "1", "fragments": [{"type": "RESPONSE", "content": "a"}]},
        },
    }
    assert [messages[-1] for messages in read(tmp_path, row)[0]] == [("assistant", "a", "t")]
    assert read(tmp_path, {"mapping": nodes})[0] == [
        [("user", "q"), ("assistant", "x", False), ("user", "q"), ("assistant", "a")]
    ]


def test_a_disliked_answer_of_open_webui_is_not_learned(tmp_path: Path) -> None:
    nodes = {
        "1": {"id": "1", "role": "user", "content": "q"},
        "2": {"id": "2", "parentId": "1", "role": "assistant", "content": "bad", "annotation": {"rating": -1}},
        "3": {"id": "3", "parentId": "2", "role": "user", "content": "q"},
        "4": {"id": "4", "parentId": "3", "role": "assistant", "content": "a", "feedbackNote": "n", "error": False},
    }
    records, unread, _ = read(tmp_path, {"chat": {"history": {"messages": nodes, "currentId": "4"}}})
    assert records == [[("user", "q"), ("assistant", "bad", False), ("user", "q"), ("assistant", "a")]]
    assert unread == {"answers that were disliked, as context": 1, "messages.feedbackNote": 1}


def test_a_later_part_reads_by_the_schema_of_the_first_row_that_has_one(tmp_path: Path) -> None:
    path = tmp_path / "conversations.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in [chatgpt(), *[chatgpt(Q, A)] * 3]))
    parts = [
        SourceFile(pool="p", split="train", uri=str(path), columns={}, part=part)
        for part in plan_ranges(str(path), 1500)
    ]
    cleaners = [Cleaner(part, Rules(max_bad_ratio=1)) for part in parts]
    assert len(parts) > 1
    assert sum(len(list(cleaner.records())) for cleaner in cleaners) == 3


def test_where_no_row_has_a_schema_a_later_part_looks_for_one_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "conversations.jsonl"
    path.write_text('{"colour": "red"}\n' * 200)
    part = plan_ranges(str(path), 1500)[1]
    reads = []

    def read_rows(*options: Any) -> Any:
        reads.append(options)
        return readers.read_rows(*options)

    monkeypatch.setattr(clean, "read_rows", read_rows)
    cleaner = Cleaner(SourceFile(pool="p", split="train", uri=str(path), columns={}, part=part), Rules(max_bad_ratio=1))
    assert list(cleaner.records()) == []
    assert cleaner.tally.dropped["unreadable"] > 50
    assert len(reads) == 2


def test_messages_in_a_circle_are_refused(tmp_path: Path) -> None:
    row = chatgpt(Q, A)
    row["mapping"]["0"]["parent"] = "2"
    _, _, dropped = read(tmp_path, row, chatgpt(Q, A))
    assert dropped == {"unreadable": 1}
