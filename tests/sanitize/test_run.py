import bz2
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixtune import storage
from mixtune.artifacts.pools import read_pools
from mixtune.errors import ConfigError, DataError
from mixtune.sanitize.rules.markers import Markers, strip_end_token
from mixtune.sanitize.rules.normalize import normalise

from .conftest import sanitize

ROWS = [{"prompt": f"question number {n}", "completion": f"answer {n}", "label": "ab"[n % 2]} for n in range(40)]


def write(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def source(uri: str, **more: Any) -> dict[str, Any]:
    return {"name": "chat", "uri": uri, **more}


@pytest.mark.parametrize("form", ["jsonl", "json", "keyed", "csv", "tsv", "parquet", "arrow", "gz", "bz2", "zst"])
def test_every_format_gives_the_same_records(form: str, tmp_path: Path) -> None:
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    names = list(ROWS[0])
    table = pa.Table.from_pylist(ROWS)
    path = tmp_path / {"keyed": "a.json", "gz": "a.jsonl.gz", "bz2": "a.jsonl.bz2", "zst": "a.jsonl.zst"}.get(
        form, f"a.{form}"
    )
    if form in ("csv", "tsv"):
        sign = "," if form == "csv" else "\t"
        path.write_text("\n".join([sign.join(names), *(sign.join(str(row[key]) for key in names) for row in ROWS)]))
    elif form == "parquet":
        pq.write_table(table, path)
    elif form == "arrow":
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    elif form == "zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(lines)
    else:
        value = {str(n): row for n, row in enumerate(ROWS)} if form == "keyed" else ROWS
        path.write_bytes(
            {"jsonl": lines, "gz": gzip.compress(lines), "bz2": bz2.compress(lines)}.get(
                form, json.dumps(value).encode()
            )
        )
    manifest = sanitize(tmp_path, sources=[source(str(path))])
    records = list(read_pools(str(tmp_path / "pools")).records("chat", "train"))
    assert [record["messages"][0]["content"] for record in records] == [row["prompt"] for row in ROWS]
    assert records[3]["messages"][1] == {"role": "assistant", "content": "answer 3"}
    assert manifest.counts["chat"].read == manifest.counts["chat"].kept == 40


def test_a_bad_row_is_counted_and_listed_by_file_line_and_reason(tmp_path: Path) -> None:
    good = [json.dumps(row).encode() for row in ROWS]
    bad = [b'{"prompt": "x", ', b"[1, 2]", b'{"prompt": "\xff", "completion": "a"}', b'{"prompt": "x"}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join([*good[:5], *bad, *good[5:]]))
    manifest = sanitize(tmp_path, sources=[source(str(tmp_path / "a.jsonl"))], text={"max_bad_ratio": 0.2})
    assert manifest.counts["chat"].dropped == {"unreadable": 4}
    noted = [json.loads(line) for line in (tmp_path / "data/quarantine.jsonl").read_text().splitlines()]
    assert [(item["file"], item["line"]) for item in noted] == [("a.jsonl", line) for line in (6, 7, 8, 9)]
    with pytest.raises(
        DataError,
        match=r"4 of 44 rows cannot be used, more than max_bad_ratio 0\.05: 1 not JSON .*\(line 6\); .*\(line 7\); ",
    ):
        sanitize(tmp_path, sources=[source(str(tmp_path / "a.jsonl"))])


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "sources is empty"),
        ([{"uri": "a.jsonl"}], "'name' is missing"),
        ([{"name": "a", "uri": "a.jsonl", "colums": {}}], "unknown key 'colums'"),
        ([source("a.jsonl", columns={"prompt": "text", "completion": "label"})], "there is no column 'text'"),
        ([source("a.jsonl", columns={"prompt": "prompt"})], "give `messages`, or both"),
        ([source("nowhere.jsonl")], "nowhere.jsonl: no such file or folder"),
        ([source("a.xls")], "unknown format '.xls'"),
        ([source("cut.jsonl.gz")], "cannot be read as jsonl"),
        ([source("empty.jsonl")], "no rows in it"),
    ],
)
def test_what_cannot_be_used_is_one_clear_error_and_leaves_nothing(
    sources: list[dict[str, Any]], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "a.xls").write_text("x")
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(json.dumps(ROWS[0]).encode() + b"\n")[:-9])
    with pytest.raises((ConfigError, DataError), match=message):
        sanitize(tmp_path / "out", sources=sources)
    assert not (tmp_path / "out" / "pools").exists()


@pytest.mark.parametrize("empty", ["part-1.jsonl", "part-1.csv", "part-1.csv header", "part-1.parquet", "part-1.json"])
def test_a_file_without_rows_in_a_folder_that_has_some_is_left_out_and_said(
    empty: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, name = tmp_path / "in", empty.split()[0]
    folder.mkdir()
    write(folder / "part-0.jsonl", ROWS)
    header = "prompt,completion,label\n" if "header" in empty else ""
    (folder / name).write_text("[]" if name.endswith(".json") else header)
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS)[:0], folder / name)
    manifest = sanitize(tmp_path / "out", sources=[source(str(folder))])
    assert manifest.counts["chat"].kept == 40
    assert f"{folder}/{name}: no rows in it; left out, other files of chat have some" in capsys.readouterr().out
    with pytest.raises(DataError, match="no rows in it"):
        sanitize(tmp_path / "alone", sources=[source(str(folder / name))])


def test_duplicates_test_rows_and_benchmark_items_never_reach_the_training_records(tmp_path: Path) -> None:
    rows = [*ROWS, ROWS[0], {**ROWS[1], "prompt": "Question  NUMBER 1"}]
    held = [ROWS[2], {"prompt": "held out", "completion": "yes", "label": "a"}]
    bench = write(tmp_path / "bench.jsonl", [{"key": 1, "prompt": "Question number 3!"}])
    sources = [source(write(tmp_path / "a.jsonl", rows)), source(write(tmp_path / "t.jsonl", held), split="test")]
    counts = sanitize(tmp_path, sources=sources, benchmarks={"ifeval": {"uri": bench}}).counts["chat"]
    assert counts.dropped == {
        "duplicate": 1, "duplicate but for case or punctuation": 1, "in a benchmark": 1, "in the test set": 1,
    }  # fmt: skip
    other = sanitize(tmp_path / "o", sources=[source(str(tmp_path / "a.jsonl"))], against_path=str(tmp_path / "pools"))
    assert other.counts["chat"].dropped == {
        "duplicate": 1, "duplicate but for case or punctuation": 1, "in another pool": 39,
    }  # fmt: skip


ASKED = {
    "mmlu/test/anatomy_test.csv": "Question number 3?,a,b,c,d,A\nAnd what is the bone above it?,e,f,g,h,B\n",
    "math.jsonl": '{"problem": "Question number 3?", "solution": "It is 3.", "level": "Level 1"}\n',
    "hellaswag.jsonl": '{"ctx": "Question number 3?", "endings": ["a", "b"], "label": "0"}\n',
    "arc.jsonl": '{"id": "1", "question": {"stem": "Question number 3?", "choices": []}, "answerKey": "A"}\n',
    "bfcl/simple.json": '{"id": "s_0", "question": [[{"role": "user", "content": "Question number 3?"}]]}\n',
    "own.jsonl": '{"Frage": "Question number 3?", "Wahl": "a", "answer": "b"}\n',
    "gsm8k/test.jsonl": '{"question": "Question number 3?", "answer": "#### 3"}\n',
    "gsm8k/train.jsonl": '{"question": "Question number 4?", "answer": "#### 4"}\n',
    "harmbench.csv": "Behavior,SemanticCategory\nQuestion number 3?,illegal\n",
    "bfcl/answers.json": '{"id": "s_0", "ground_truth": []}\n',
}
"""Files of benchmarks in the layouts in which they are published."""


@pytest.mark.parametrize(
    "name",
    ["mmlu", "math.jsonl", "hellaswag.jsonl", "arc.jsonl", "bfcl", "own.jsonl", "gsm8k", "harmbench.csv"],
)
def test_items_of_a_benchmark_are_kept_out_of_training_in_every_layout_that_evaluate_reads(
    name: str, tmp_path: Path
) -> None:
    for path, text in ASKED.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    sources, benchmark = [source(write(tmp_path / "a.jsonl", ROWS))], {"uri": str(tmp_path / name)}
    counts = sanitize(tmp_path / "out", sources=sources, benchmarks={"it": benchmark}).counts["chat"]
    assert counts.dropped == {"in a benchmark": 1}


def test_a_benchmark_whose_items_ask_nothing_is_an_error_that_names_its_columns(tmp_path: Path) -> None:
    bench = write(tmp_path / "b.jsonl", [{"nummer": 7, "answer": "Nichts."}])
    with pytest.raises(DataError, match=r"benchmarks: it, .*b\.jsonl row 1: no text that is asked, .* nummer, answer"):
        sanitize(tmp_path, sources=[source(write(tmp_path / "a.jsonl", ROWS))], benchmarks={"it": {"uri": bench}})


def test_labels_lose_the_spaces_of_their_cells_and_those_that_differ_by_case_alone_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = ["Bill", "Bill ", "caf\u00e9", "cafe\u0301", "bill"]
    rows = [{"prompt": f"Question {number}?", "completion": "yes", "label": labels[number % 5]} for number in range(40)]
    columns = {name: name for name in ("prompt", "completion", "label")}
    manifest = sanitize(tmp_path, sources=[source(write(tmp_path / "a.jsonl", rows), columns=columns)])
    assert manifest.labels["chat"]["read"] == {"Bill": 16, "café": 16, "bill": 8}
    assert manifest.counts["chat"].changed["spaces or accents of a label"] == 16
    assert "labels that differ by case alone count as different ones: Bill (16) and bill (8)" in capsys.readouterr().out


def test_the_items_of_a_task_of_lm_eval_are_said_not_to_be_looked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "task.yaml").write_text("task: mine\n")
    tasks = {"mine": {"form": "lm_eval", "task": "mine", "uri": str(tmp_path)}}
    sanitize(tmp_path / "out", sources=[source(write(tmp_path / "a.jsonl", ROWS))], benchmarks=tasks)
    assert "mine: a task of lm-eval, whose items are not looked for" in capsys.readouterr().out


def test_splits_are_seeded_stratified_and_never_empty(tmp_path: Path) -> None:
    uri = write(tmp_path / "a.jsonl", ROWS)
    first = sanitize(
        tmp_path / "1",
        sources=[source(uri, columns={"prompt": "prompt", "completion": "completion", "label": "label"})],
        splits={"test_ratio": 0.2},
    )
    assert first.labels["chat"] == {
        "read": {"a": 20, "b": 20},
        "test": {"a": 4, "b": 4},
        "train": {"a": 16, "b": 16},
    }
    again = sanitize(
        tmp_path / "2",
        sources=[source(uri, columns={"prompt": "prompt", "completion": "completion", "label": "label"})],
        splits={"test_ratio": 0.2},
    )
    hashes = [[item["sha256"] for item in storage.read_json(str(tmp_path / n / "pools"))["files"]] for n in "12"]
    assert hashes[0] == hashes[1]
    assert first.counts == again.counts
    held = sanitize(tmp_path / "3", sources=[source(uri)], splits={"test_ratio": 0, "holdout_records": 200})
    sizes = {split: part.num_records for split, part in held.pools[0].splits.items()}
    assert sizes == {"holdout": 4, "train": 36}
    with pytest.raises(
        DataError,
        match=r"none is left for 'test'.*no such split \(splits.test_ratio=0\), with a set of your own as test_uri",
    ):
        sanitize(tmp_path / "4", sources=[source(write(tmp_path / "b.jsonl", ROWS[:1]))], splits={"test_ratio": 0.1})


MARKER_PARTS = [
    "System:",
    "user:",
    "BOT:",
    "Assistant:",
    "thought:",
    "[EOS]",
    "<image>",
    "<video>",
    "<unk>",
    "MyChatBot:",
    "a",
    " ",
    "[E",
    "OS]",
    "Sys",
    "tem:",
    "\n",
]


@settings(max_examples=200)
@given(st.lists(st.sampled_from(MARKER_PARTS), max_size=12).map("".join))
def test_no_marker_is_left_and_a_second_pass_changes_nothing(text: str) -> None:
    markers = Markers()
    clean = markers.rewrite(text, Counter())
    assert markers.find(clean) == []
    assert markers.rewrite(clean, Counter()) == clean


def test_markers_keep_their_letters_and_removal_makes_no_new_one() -> None:
    counts: Counter[str] = Counter()
    assert Markers().rewrite("System: hi, MyChatBot: x, user: y", counts) == "System : hi, MyChatBot : x, user : y"
    assert Markers().rewrite("a [E<unk>OS] b Sys<image>tem: c", counts) == "a  b System : c"
    assert counts["system:"] == 2
    assert strip_end_token("done <|endoftext|>") == "done"


@pytest.mark.parametrize(
    "text", ["def f(x):\n    return  x\n", "| a  | b |\n|----|---|", '{"k":  [1,  2]}', "caf\u00e9 \u201cquoted\u201d"]
)
def test_code_tables_json_and_quotes_are_not_damaged(text: str) -> None:
    assert normalise(text, Counter()) == text


def test_line_ends_invisible_characters_and_broken_encodings_are_mended() -> None:
    counts: Counter[str] = Counter()
    assert normalise("a\r\nb\u00a0c\u200b d\u0000", counts) == "a\nb c d"
    assert normalise("one\x85two", Counter()) == "one\ntwo"
    assert normalise("\u00c3\x85ngstr\u00c3\u00b6m", Counter()) == "\u00c5ngstr\u00f6m"
    assert normalise("schÃ¶n", counts) == "schön"
    assert normalise("```\nschÃ¶n\n```", Counter()) == "```\nschÃ¶n\n```"
    assert counts["broken encoding"] == 1
