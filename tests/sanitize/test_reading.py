"""Files of every kind into rows and records: formats, schemas, mappings, patterns, and what is broken in them."""

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtune import storage
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.clean import Cleaner, Rules, SourceFile
from mixtune.sanitize.reading import json_elements, json_rows, readers
from mixtune.sanitize.reading.readers import read_rows, source_files
from mixtune.sanitize.reading.schemas import find_schema
from mixtune.sanitize.rules.normalize import tidy
from mixtune.settings.sanitize import read_sanitize_settings

JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=12)  # fmt: skip
CALL = {"id": "c1", "name": "find", "arguments": {"q": "x"}}
TOOL = {"name": "find", "description": "finds", "parameters": {"type": "object"}}


@settings(max_examples=100)
@given(st.lists(JSON) | st.dictionaries(st.text(), JSON), st.integers(1, 40), st.sampled_from([None, 1]))
def test_a_json_text_falls_into_its_elements_wherever_blocks_end(value: Any, block: int, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=False, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_elements, "BLOCK_BYTES", block)
        bracket, texts = json_elements.split_elements(io.BytesIO(text), 10_000)
        found = [json.loads(item if bracket == b"[" else b"{%b}" % item) for item in texts]
    assert found == (value if isinstance(value, list) else [{key: item} for key, item in value.items()])


LINES = st.lists(
    st.sampled_from([b'{"a": 1}', b'{"a": 1, "a": 2}', b'{"a": "\\u0022", "a": 1}', b'{"a": {"b": 1, "b": 2}}', b'{"a":', b'"b": 2}',
                     b'{"a": "x:\\": y"}', b"", b" ", b"[1]", b'{"a": "' + b"x" * 60 + b'"}', b"\xff", b'{"a": 1}\r']),
    max_size=12,
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(LINES, st.booleans(), st.integers(1, 90), st.integers(1, 200))
def test_lines_are_read_alike_wherever_blocks_and_parts_end(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], ended: bool, block: int, part_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.jsonl"
    path.write_bytes(b"\n".join(lines) + (b"\n" if lines and ended else b""))
    good = {b'{"a": 1}', b'{"a": "x:\\": y"}', b'{"a": 1}\r'}
    expected = [(number, line in good) for number, line in enumerate(lines, start=1) if line.strip()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_BLOCK_BYTES", block)
        patch.setattr(json_rows, "MAX_LINE_BYTES", 50)
        rows = [row for part in readers.plan_ranges(str(path), part_bytes) for row in read_rows(str(path), part)]
    assert [(row.line, not row.problem) for row in rows] == expected
    assert all(row.value == json.loads(lines[row.line - 1]) for row in rows if not row.problem)


def problems(path: Path, content: bytes) -> list[tuple[int, str]]:
    path.write_bytes(content)
    return [(row.line, row.problem) for row in read_rows(str(path)) if row.problem]


def test_a_broken_element_of_a_json_file_costs_none_of_the_others(tmp_path: Path) -> None:
    parts = [b'{"a": 1}', b'{"a": "\\ud800"}', b'{"a": 1, "a": 2}', b"3", b'{"a": "\xff"}', b"{'a': 1}", b'{"b": "]"}']
    reasons = ["half a surrogate pair", "the same key twice", "not an object", "not UTF-8", "not JSON (single"]
    found = problems(tmp_path / "a.json", b"\xef\xbb\xbf [" + b",\n".join(parts) + b"]\n")
    assert [line for line, _ in found] == list(range(2, 7))
    assert all(why.startswith(reason) for (_, why), reason in zip(found, reasons, strict=True))
    keyed = b"{" + b",".join(b'"k%d": %b' % (n, part) for n, part in enumerate(parts)) + b"}"
    assert problems(tmp_path / "a.json", keyed) == found
    assert next(read_rows(str(tmp_path / "a.json"))).value == {"_key": "k0", "a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"a": 1}, {"a"', "it ends early"),
        (b'{"a": 1}\n{"a": 2}', "one object a line is named .jsonl"),
        (b"", "neither a JSON array nor an object"),
        ('[{"a": 1}]'.encode("utf-16"), "a UTF-16 file"),
    ],
)
def test_a_json_file_that_is_none_is_one_error(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        problems(tmp_path / "a.json", content)


def test_feather_and_streams_of_arrow_are_read(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["a", "b"], "completion": ["c", "d"]})
    pa.feather.write_feather(table, str(tmp_path / "a.feather"), compression="zstd")
    with pa.ipc.new_stream(str(tmp_path / "b.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.feather", "b.arrow"):
        assert [row.value for row in read_rows(str(tmp_path / name))] == table.to_pylist()


def test_a_field_of_csv_may_hold_line_ends_and_a_bad_row_names_its_line(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfprompt,completion\r\n"two\nlines, ""quoted""",a\r\nonly one\r\n\xff,b\r\nlast,"c"\r\n'
    found = problems(tmp_path / "a.csv", content)
    assert [(line, why.split(";")[0]) for line, why in found] == [
        (4, "1 fields where the header has 2"),
        (5, "not UTF-8, nor surely Windows-1252"),
    ]
    assert next(read_rows(str(tmp_path / "a.csv"))).value["prompt"] == 'two\nlines, "quoted"'


def test_a_pattern_stands_for_the_files_that_fit_it_here_and_in_s3(tmp_path: Path, bucket: str) -> None:
    names = ("part-1.jsonl", "part-2.jsonl.gz", "notes.txt", "other.csv", "deep/part-3.jsonl")
    for folder in (str(tmp_path / "data"), f"{bucket}/data"):
        for name in names:
            with storage.open_write(f"{folder}/{name}") as stream:
                stream.write(b"x")
        assert source_files(f"{folder}/part-*") == [f"{folder}/part-1.jsonl", f"{folder}/part-2.jsonl.gz"]
        assert source_files(f"{folder}/*/part-[0-9].jsonl") == [f"{folder}/deep/part-3.jsonl"]
        assert len(source_files(folder)) == 4
        digest = storage.fingerprint(f"{folder}/part-?.jsonl")
        with storage.open_write(f"{folder}/part-1.jsonl") as stream:
            stream.write(b"changed")
        assert storage.fingerprint(f"{folder}/part-?.jsonl") != digest
        with pytest.raises(DataError, match="no such file or folder"):
            source_files(f"{folder}/nothing-*")


USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
SCHEMAS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "chat": ({"messages": [USER, ANSWER], "label": "l", "group": "g"}, {"label": "l", "group": "g"}),
    "openai": (
        {"tools": [{"type": "function", "function": TOOL}],
         "messages": [{"role": "developer", "content": "s"}, USER,
                      {"role": "assistant", "content": None, "tool_calls": [
                          {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"q": "x"}'}}]},
                      {"role": "tool", "content": "r", "tool_call_id": "c1"}, ANSWER]},
        {"tools": [TOOL], "messages": [
            {"role": "system", "content": "s"}, USER, {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "r", "tool_call_id": "c1"}, ANSWER]},
    ),
    "converse": (
        {"schemaVersion": "bedrock-conversation-2024", "system": [{"text": "s"}],
         "toolConfig": {"tools": [{"toolSpec": {"name": "find", "description": "finds", "inputSchema": {"json": {"type": "object"}}}}]},
         "messages": [{"role": "user", "content": [{"text": "q"}]},
                      {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "t"}}},
                                                        {"toolUse": {"toolUseId": "c1", "name": "find", "input": {"q": "x"}}}]},
                      {"role": "user", "content": [{"toolResult": {"toolUseId": "c1", "content": [{"json": {"n": 1}}]}}]},
                      {"role": "assistant", "content": [{"text": "a"}]}]},
        {"tools": [TOOL], "messages": [
            {"role": "system", "content": "s"}, USER,
            {"role": "assistant", "content": "", "reasoning": "t", "tool_calls": [CALL]},
            {"role": "tool", "content": '{"n": 1}', "tool_call_id": "c1"}, ANSWER]},
    ),
    "sharegpt": ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
                 {"messages": [{"role": "system", "content": "s"}, USER, ANSWER]}),
    "sharegpt with roles": ({"conversations": [USER, ANSWER]}, {}),
    "alpaca": ({"instruction": "q", "input": "", "output": "a"}, {}),
    "alpaca with input": ({"instruction": "q", "input": "i", "output": "a"}, {"messages": [{"role": "user", "content": "q\n\ni"}, ANSWER]}),
    "dolly": ({"instruction": "q", "context": "c", "response": "a", "category": "x"}, {"messages": [{"role": "user", "content": "q\n\nc"}, ANSWER]}),
    "input/output": ({"input": "q", "output": "a"}, {}),
    "prompt/completion": ({"prompt": "q", "completion": "a", "system": "s", "consent": "yes"},
                          {"messages": [{"role": "system", "content": "s"}, USER, ANSWER], "consent": "yes"}),
    "question/answer": ({"question": "q", "answer": "a"}, {}),
    "text/label": ({"text": "q", "label": "a"}, {"label": "a"}),
    "choices": ({"question": "q", "subject": "s", "choices": ["x", "y"], "answer": 1},
                {"messages": [{"role": "user", "content": "q\nA. x\nB. y"}, {"role": "assistant", "content": "B"}]}),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_detected_and_says_the_same_as_chat(name: str) -> None:
    row, expected = SCHEMAS[name]
    record = find_schema(row, {}).record(row, "a", 1, Counter())
    assert record == {"id": "", "origin": {"file": "a", "line": 1}, "messages": [USER, ANSWER], **expected}


def test_a_mapping_overrides_the_schema_and_fills_a_template() -> None:
    row = {"CONTEXTS": ["one", "two"], "QUESTION": "why?", "final_decision": "yes", "messages": "x", "consent": "no"}
    columns = {
        "prompt": "{CONTEXTS}\n\nQuestion: {QUESTION}",
        "completion": "final_decision",
        "label": "final_decision",
    }
    schema = find_schema(row, columns)
    record = schema.record(row, "a", 1, Counter())
    assert (schema.name, record["label"], record["consent"]) == ("mapping", "yes", "no")
    assert record["messages"][0]["content"] == "one\n\ntwo\n\nQuestion: why?"
    with pytest.raises(ConfigError, match=r"prompt is '\{nothing\}', but there is no column 'nothing'"):
        find_schema(row, {"prompt": "{nothing}", "completion": "final_decision"})


def test_a_row_unlike_the_first_is_counted_without_its_content(tmp_path: Path) -> None:
    rows = [{"question": "q", "choices": ["x", "y"], "answer": 1}, {"question": "q2", "choices": ["x"], "answer": 7}]
    rows += [
        {"question": "q3", "choices": None, "answer": 0},
        {"question": "q4", "choices": ["x", "y"], "answer": "jane"},
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cleaner = Cleaner(SourceFile(pool="a", split="train", uri=str(path), columns={}), Rules(max_bad_ratio=1))
    assert len(list(cleaner.records())) == 1
    assert [json.loads(note)["rule"] for note in cleaner.notes] == [
        "its answer names none of its 1 choices (a hidden one?)",
        "its choices are not a list",
        "its answer names none of its 2 choices (a hidden one?)",
    ]


UNDAMAGED = [
    "def f(x):\n    return  x  # two  spaces",
    "```\nif a  ==  b:\n    say(“x”)\n```",
    "| a  | b |\n|----|---|\n| “x”  | y |",
    '{"k":  [1,  2], "quote": "“x”"}',
    "  indented  text  stays",
    "a\tb  c",
    "SELECT  *  FROM t;",
    "use `a  b` here",
    "<b>x  y</b>",
]


@pytest.mark.parametrize("text", UNDAMAGED)
def test_spaces_and_quotes_on_request_damage_no_code_json_or_table(text: str) -> None:
    assert tidy(text, Counter(), ("spaces", "quotes")) == text


def test_spaces_and_quotes_of_prose_are_mended_on_request_only(tmp_path: Path) -> None:
    text = "“Yes,”  she said.  It’s\n\n```\na  “b”\n```\ndone  now"
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": text, "completion": text}))
    source = SourceFile(pool="a", split="train", uri=str(tmp_path / "a.jsonl"), columns={})
    (plain,) = Cleaner(source, Rules()).records()
    cleaner = Cleaner(source, Rules(also=("spaces", "quotes")))
    (record,) = cleaner.records()
    assert plain["messages"][0]["content"] == text
    assert record["messages"][0]["content"] == '"Yes," she said. It\'s\n\n```\na  “b”\n```\ndone now'
    assert cleaner.tally.changed == {"spaces in prose": 1, "quotes in prose": 1}
    with pytest.raises(ConfigError, match="also_normalise, entry 1 is one of quotes, spaces; got 'dashes'"):
        read_sanitize_settings({"text": {"also_normalise": ["dashes"]}})


def test_a_column_of_weights_reaches_the_records_and_one_that_is_no_weight_is_counted(tmp_path: Path) -> None:
    rows = [{"q": "a", "a": "b", "w": weight} for weight in (0.5, "2", 0, None, -1, "much", "nan")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mapping = {"prompt": "q", "completion": "a", "weight": "w"}
    source = SourceFile(pool="a", split="train", uri=str(tmp_path / "a.jsonl"), columns=mapping)
    cleaner = Cleaner(source, Rules(max_bad_ratio=1))
    assert [record.get("weight") for record in cleaner.records()] == [0.5, 2.0, 0.0, None]
    assert [json.loads(note)["line"] for note in cleaner.notes] == [5, 6, 7]


@pytest.mark.parametrize(("name", "problem"), [("a.jsonl", "line longer than"), ("a.json", "element 2 is longer than")])
def test_a_line_too_long_for_memory_is_named_and_not_held(
    name: str, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_rows, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(json_elements, "BLOCK_BYTES", 100)
    parts = [json.dumps({"prompt": "x" * size, "completion": "a"}) for size in (10, 5000, 10)]
    (tmp_path / name).write_text("\n".join(parts) if name.endswith("l") else f"[{','.join(parts)}]")
    if name == "a.jsonl":
        assert [(row.line, bool(row.problem)) for row in read_rows(str(tmp_path / name))] == [
            (1, False),
            (2, True),
            (3, False),
        ]
    else:
        with pytest.raises(DataError, match=problem):
            list(read_rows(str(tmp_path / name)))
