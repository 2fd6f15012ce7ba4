"""Benchmark files as they are published: layouts of questions, and folders that hold an item twice."""

from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtune.errors import DataError
from mixtune.evaluate.benchmarks.ifeval import FORM as IFEVAL
from mixtune.evaluate.choice_rows import read_questions
from mixtune.inference.engine import Tokenizer
from mixtune.storage import benchmark_files

from ..evaluation import ifeval_rows, mmlu_rows, write_jsonl


@pytest.mark.parametrize(
    ("row", "choices", "answer"),
    [
        ({"question": "q", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "1"}, ("x", "y"), 0),
        ({"question": {"stem": "q", "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]},
          "answerKey": "B"}, ("x", "y"), 1),
        ({"question": "q", "options": ["a", "b", "c", "N/A"], "answer": "C", "answer_index": 2, "category": "law"},
         ("a", "b", "c"), 2),
        ({"ctx": "q", "endings": ["a", "b", "c"], "label": "2"}, ("a", "b", "c"), 2),
        ({"goal": "q", "sol1": "a", "sol2": "b", "label": 1}, ("a", "b"), 1),
        ({"question": "q", "opa": "a", "opb": "b", "opc": "c", "opd": "d", "cop": 3}, ("a", "b", "c", "d"), 3),
        ({"question": "q", "choices": "['it''s', \"b\"]", "answer": 1}, ("its", "b"), 1),
        ({"question": "q", "choices": ["None", "NA"], "answer": "B"}, ("None", "NA"), 1),
        ({"question": "q", "choices": ["x", "y"], "answer": "b"}, ("x", "y"), 1),
        ({"question": "q", "A": "", "B": "y", "C": "z", "D": "", "answer": "B"}, ("", "y", "z"), 1),
    ],
)  # fmt: skip
def test_published_layouts_are_read(tmp_path: Path, row: dict[str, Any], choices: tuple[str, ...], answer: int) -> None:
    (question,) = read_questions(str(write_jsonl(tmp_path / "test.jsonl", [row])))["test"]
    assert (question.question, question.choices, question.answer) == ("q", choices, answer)
    assert question.subject == row.get("category", "all")


def test_the_csv_of_mmlus_authors_has_no_header_and_its_subject_in_its_name(tmp_path: Path) -> None:
    for split, letter in (("test", "B"), ("dev", "A"), ("val", "C")):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"high_school_physics_{split}.csv").write_text(f'"q, one",x,y,z,w,{letter}\n')
    splits = read_questions(str(tmp_path))
    assert {name: [item.answer for item in items] for name, items in splits.items()} == {
        "test": [1], "dev": [0], "validation": [2]
    }  # fmt: skip
    assert splits["test"][0].subject == "high_school_physics"
    assert splits["test"][0].choices == ("x", "y", "z", "w")


def test_a_list_that_numpy_printed_is_named(tmp_path: Path) -> None:
    row = {"question": "q", "choices": "['a' 'b']", "answer": 0}
    with pytest.raises(DataError, match="row 1: choices is not a JSON list; numpy printed it"):
        read_questions(str(write_jsonl(tmp_path / "test.jsonl", [row])))


def test_a_folder_with_all_beside_its_parts_is_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mmlu_rows(20)
    parts = {"all": rows, "anatomy": rows[::2], "high_school_physics": rows[1::2]}
    for name, part in parts.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(part), tmp_path / name / "test-00000-of-00001.parquet")
    write_jsonl(tmp_path / "other_format_test.jsonl", rows)
    assert len(read_questions(str(tmp_path))["test"]) == 20
    assert "3 files" in capsys.readouterr().out


def test_a_file_that_shares_most_of_its_rows_with_another_is_refused(tmp_path: Path) -> None:
    rows = mmlu_rows(20)
    write_jsonl(tmp_path / "test_a.jsonl", rows)
    write_jsonl(tmp_path / "test_b.jsonl", [*rows[:15], {**rows[0], "question": "new"}])
    with pytest.raises(DataError, match=r"15 of the 16 rows of test_b.jsonl are in other files"):
        read_questions(str(tmp_path))


def test_a_prompt_that_is_there_twice_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "ifeval.jsonl", [*ifeval_rows(2), ifeval_rows(1)[0]])
    with pytest.raises(DataError, match="item '0' is there twice; every item needs an id of its own"):
        IFEVAL.plan("ifeval", IFEVAL.options(uri=str(path)), cast(Tokenizer, None), 0)


def test_an_empty_array_holds_no_row(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text("[]")
    assert benchmark_files.read_rows(str(tmp_path / "test.json")) == []


@pytest.mark.parametrize("secret", [{"label": ""}, {"label": -1}, {"answerKey": ""}, {"cop": -1}])
def test_a_test_split_whose_answers_are_secret_is_left_out(
    tmp_path: Path, secret: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"question": "q", "choices": ["x", "y"], **secret}])
    write_jsonl(tmp_path / "validation.jsonl", [{"question": "q", "choices": ["x", "y"], "answer": 1}])
    assert list(read_questions(str(tmp_path))) == ["validation"]
    assert "its test split has no answers" in capsys.readouterr().out


def test_splits_that_no_question_is_read_from_may_have_any_layout(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", mmlu_rows(2))
    write_jsonl(tmp_path / "auxiliary_train" / "train.jsonl", [{"train": row} for row in mmlu_rows(2)])
    (tmp_path / "dataset_infos.json").write_text('{"default": {}}')
    assert {split: len(rows) for split, rows in read_questions(str(tmp_path)).items()} == {"test": 2}


def test_indexes_that_count_from_1_are_refused(tmp_path: Path) -> None:
    rows = [{**row, "answer": 1 + number % 3} for number, row in enumerate(mmlu_rows(60))]
    with pytest.raises(DataError, match="none of 60 answers is 0, so they count from 1"):
        read_questions(str(write_jsonl(tmp_path / "test.jsonl", rows)))
    row = {"question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": "2"}
    with pytest.raises(DataError, match="answer '2' is an index and a choice's text"):
        read_questions(str(write_jsonl(tmp_path / "test.jsonl", [row])))


def test_what_is_asked_twice_is_refused_though_ids_or_answers_differ(tmp_path: Path) -> None:
    rows = [{"question": f"q {number}", "answer": f"#### {number}"} for number in range(6)]
    write_jsonl(tmp_path / "main" / "test.jsonl", rows)
    write_jsonl(tmp_path / "socratic" / "test.jsonl", [{**row, "answer": f"So {row['answer']}"} for row in rows])
    with pytest.raises(DataError, match=r"6 of the 6 rows of socratic/test.jsonl are in other files"):
        benchmark_files.read_items(str(tmp_path))
    twice = [{**row, "id": number} for number, row in enumerate([*rows, *rows])]
    with pytest.raises(DataError, match=r"6 of the 12 rows of twice.jsonl ask what others ask"):
        benchmark_files.read_items(str(write_jsonl(tmp_path / "twice.jsonl", twice)))


def test_only_the_test_split_is_asked_where_there_is_one(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for number in range(2):  # a file a problem, over several lines
            (tmp_path / split / f"{number}.json").write_text(f'{{\n "problem": "{split} {number}"\n}}\n')
    assert [row["problem"] for row in benchmark_files.read_items(str(tmp_path))] == ["test 0", "test 1"]
