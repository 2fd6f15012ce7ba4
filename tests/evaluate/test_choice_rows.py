"""Benchmark files as they are published: layouts of questions, and folders that hold an item twice."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtune.errors import DataError
from mixtune.evaluate.benchmarks.ifeval import read_prompts
from mixtune.evaluate.choice_rows import read_questions

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
    with pytest.raises(DataError, match="row 3: key '0' is there twice"):
        read_prompts(str(path))
