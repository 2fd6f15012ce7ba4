"""Benchmark files as they are published: layouts of questions, and folders that hold an item twice."""

import json
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mixtune import benchmark_files
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.benchmarks import mmlu
from mixtune.evaluate.benchmarks.ifeval import FORM as IFEVAL
from mixtune.evaluate.choice_rows import ChoiceOptions, read_questions
from mixtune.inference.engine import Tokenizer
from mixtune.records import ROW_LISTS

from ..evaluation import evaluate, ifeval_rows, mmlu_rows, write_jsonl


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
        ({"question": "q", "choices": "['x y'\n \"it's\"]", "answer": 1}, ("x y", "it's"), 1),
        ({"question": "q", "choices": ["None", "NA"], "answer": "B"}, ("None", "NA"), 1),
        ({"question": "q", "choices": ["x", "y"], "answer": "b"}, ("x", "y"), 1),
        ({"question": "q", "A": "", "B": "y", "C": "z", "D": "", "answer": "B"}, ("", "y", "z"), 1),
        ({"": "0", "Question": "q", "A": "x", "B": "y", "C": "z", "D": "w", "Answer": "C"}, ("x", "y", "z", "w"), 2),
        ({"question": "q", "option_a": "x", "option_b": "y", "answer": "B"}, ("x", "y"), 1),
        ({"question": "q", "option_0": "x", "option_1": "y", "option_2": None, "answer": "B", "answer_index": 1},
         ("x", "y"), 1),
        ({"question": "q", "answer": 4, "A": "x", "B": "y", "C": "z", "D": "w", "Human Accuracy": 0.5},
         ("x", "y", "z", "w"), 3),
        ({"sentence": "q", "option1": "x", "option2": "y", "answer": "2"}, ("x", "y"), 1),
        ({"question": "q", "answerA": "x", "answerB": "y", "answerC": "z", "label": "3"}, ("x", "y", "z"), 2),
        ({"question": "q", "options": {"A": "x", "B": "y"}, "answer": "y", "answer_idx": "B"}, ("x", "y"), 1),
        ({"sent1": "q", "sent2": "", "ending0": "x", "ending1": "y", "label": 0}, ("x", "y"), 0),
        ({"query": "q", "choices": ["(A)x", "(B)y", "(C)z"], "gold": [2]}, ("x", "y", "z"), 2),
        ({"question": "q", "options": ["A)21", "B)21.5"], "correct": "B", "rationale": "r"}, ("21", "21.5"), 1),
        ({"question": "q", "mc1_targets": {"choices": ["x", "y", "z"], "labels": [0, 1, 0]}}, ("x", "y", "z"), 1),
        ({"inputs": "", "question": "q", "multiple_choice_targets": ["x", "y"], "multiple_choice_scores": [1, 0]},
         ("x", "y"), 0),
        ({"question": "q", "answer": True}, ("no", "yes"), 1),
        ({"QUESTION": "q", "final_decision": "maybe"}, ("yes", "no", "maybe"), 2),
        ({"question": "q", "choices": [{"text": "x"}, {"text": "y"}], "answer": 1}, ("x", "y"), 1),
        ({"question": "q", "options": "A) x\nB) y", "answer": "b)"}, ("x", "y"), 1),
        ({"question": "q", "options": "A) x (b) B) y; C) z", "answer": "B"}, ("x (b)", "y", "z"), 1),
        ({"question": "q", "option_1": "x", "option_2": "y", "option_3": "z", "answer": "Option 2"}, ("x", "y", "z"), 1),
        ({"question": "q", "options": '["x", "y", ""]', "correct_option": "Option B"}, ("x", "y"), 1),
        ({"question": "q", "choices": ["x", "y"], "answer": "B. y"}, ("x", "y"), 1),
        ({"question": "q", "choices": ["10", "12"], "answer": "12"}, ("10", "12"), 1),
        ({"question": "q", "choices": ["x", "y"], "answer": "B", "answer_index": 2.0}, ("x", "y"), 1),
    ],
)  # fmt: skip
def test_published_layouts_are_read(tmp_path: Path, row: dict[str, Any], choices: tuple[str, ...], answer: int) -> None:
    (question,) = read_questions(ChoiceOptions(uri=str(write_jsonl(tmp_path / "test.jsonl", [row]))))["test"]
    assert (question.question, question.choices, question.answer) == ("q", choices, answer)
    assert question.subject == row.get("category", "all")


def test_the_csv_of_mmlus_authors_has_no_header_and_its_subject_in_its_name(tmp_path: Path) -> None:
    for split, letter in (("test", "B"), ("dev", "A"), ("val", "C")):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"high_school_physics_{split}.csv").write_text(f'"q, one",x,y,z,w,{letter}\n')
    splits = read_questions(ChoiceOptions(uri=str(tmp_path)))
    assert {name: [item.answer for item in items] for name, items in splits.items()} == {
        "test": [1], "dev": [0], "validation": [2]
    }  # fmt: skip
    assert splits["test"][0].subject == "high_school_physics"
    assert splits["test"][0].choices == ("x", "y", "z", "w")


def test_a_list_that_numpy_printed_in_part_is_named(tmp_path: Path) -> None:
    row = {"question": "q", "choices": "['a' ... 'b']", "answer": 0}
    with pytest.raises(DataError, match="row 1: choices is not a JSON list; numpy printed it"):
        read_questions(ChoiceOptions(uri=str(write_jsonl(tmp_path / "test.jsonl", [row]))))


def test_a_folder_with_all_beside_its_parts_is_read_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = mmlu_rows(20)
    parts = {"all": rows, "anatomy": rows[::2], "high_school_physics": rows[1::2]}
    for name, part in parts.items():
        (tmp_path / name).mkdir()
        pq.write_table(pa.Table.from_pylist(part), tmp_path / name / "test-00000-of-00001.parquet")
    write_jsonl(tmp_path / "other_format_test.jsonl", rows)
    assert len(read_questions(ChoiceOptions(uri=str(tmp_path)))["test"]) == 20
    assert "3 files" in capsys.readouterr().out


def test_a_file_that_shares_most_of_its_rows_with_another_is_refused(tmp_path: Path) -> None:
    rows = mmlu_rows(20)
    write_jsonl(tmp_path / "test_a.jsonl", rows)
    write_jsonl(tmp_path / "test_b.jsonl", [*rows[:15], {**rows[0], "question": "new"}])
    with pytest.raises(DataError, match=r"15 of the 16 rows of test_b.jsonl are in other files"):
        read_questions(ChoiceOptions(uri=str(tmp_path)))


def test_a_prompt_that_is_there_twice_is_refused_before_anything_is_generated(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "ifeval.jsonl", [*ifeval_rows(2), ifeval_rows(1)[0]])
    with pytest.raises(DataError, match="item '0' is there twice; every item needs an id of its own"):
        IFEVAL.plan("ifeval", IFEVAL.options(uri=str(path)), cast(Tokenizer, None), 0)


@pytest.mark.parametrize("key", ROW_LISTS)
def test_rows_are_found_under_the_keys_under_which_training_files_hold_them(tmp_path: Path, key: str) -> None:
    rows = [{"question": text, "choices": ["x", "y"], "answer": 1} for text in ("q", "r")]
    (tmp_path / "test.json").write_text(json.dumps({key: rows}))
    questions = read_questions(ChoiceOptions(uri=str(tmp_path / "test.json")))["test"]
    assert [item.question for item in questions] == ["q", "r"]


def test_an_empty_array_holds_no_row(tmp_path: Path) -> None:
    (tmp_path / "test.json").write_text("[]")
    assert benchmark_files.read_rows(str(tmp_path / "test.json")) == []


@pytest.mark.parametrize(("path", "answer"), [("cb/snli", "Neither"), ("snli/cb", "False"), ("rte/anli_r1", "Neither")])
def test_the_last_set_that_a_path_names_says_what_a_label_is(tmp_path: Path, path: str, answer: str) -> None:
    row = {"premise": "p", "hypothesis": "h", "label": 1}
    (item,) = benchmark_files.read_items(str(write_jsonl(tmp_path / path / "test.jsonl", [row])))
    assert item["answer"] == answer


def test_answers_of_multirc_whose_labels_are_secret_are_left_out(tmp_path: Path) -> None:
    row = {"paragraph": "p", "question": "q", "answer": "a"}
    for split, label in (("test", -1), ("validation", 1)):
        write_jsonl(tmp_path / "multirc" / f"{split}.jsonl", [{**row, "label": label}])
    assert [item["answer"] for item in benchmark_files.read_items(str(tmp_path / "multirc"))] == ["yes"]


@pytest.mark.parametrize("secret", [{"label": ""}, {"label": -1}, {"answerKey": ""}, {"cop": -1}])
def test_a_test_split_whose_answers_are_secret_is_left_out(
    tmp_path: Path, secret: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "test.jsonl", [{"question": "q", "choices": ["x", "y"], **secret}])
    write_jsonl(tmp_path / "validation.jsonl", [{"question": "q", "choices": ["x", "y"], "answer": 1}])
    assert list(read_questions(ChoiceOptions(uri=str(tmp_path)))) == ["validation"]
    assert "its test split has no answers" in capsys.readouterr().out


def test_splits_that_no_question_is_read_from_may_have_any_layout(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", mmlu_rows(2))
    write_jsonl(tmp_path / "auxiliary_train" / "train.jsonl", [{"train": row} for row in mmlu_rows(2)])
    (tmp_path / "dataset_infos.json").write_text('{"default": {}}')
    assert {split: len(rows) for split, rows in read_questions(ChoiceOptions(uri=str(tmp_path))).items()} == {"test": 2}


def answers_of(path: Path, rows: list[dict[str, Any]], **options: Any) -> list[int]:
    return [item.answer for item in read_questions(ChoiceOptions(uri=str(write_jsonl(path, rows)), **options))["test"]]


def test_where_indexes_count_from_is_read_from_all_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{**row, "answer": str(1 + number % 4)} for number, row in enumerate(mmlu_rows(60))]  # KMMLU
    assert answers_of(tmp_path / "test.jsonl", rows) == [number % 4 for number in range(60)]
    assert "the answers' indexes count from 1" in capsys.readouterr().out
    middle = [{**row, "answer": 1 + number % 3} for number, row in enumerate(mmlu_rows(60))]
    with pytest.raises(DataError, match=r"none of 60 answers is 0, or as many .* set first_index, or write letters"):
        answers_of(tmp_path / "test.jsonl", middle)
    assert answers_of(tmp_path / "test.jsonl", middle, first_index=1) == [number % 3 for number in range(60)]
    mixed = [{**row, "answer": number % 5} for number, row in enumerate(mmlu_rows(60))]
    with pytest.raises(DataError, match=r"row 5: answer is an index 0 to 3, .*; got '4'"):
        answers_of(tmp_path / "test.jsonl", mixed)


def test_answers_that_are_letters_and_texts_are_read_in_the_way_that_fits_all_rows(tmp_path: Path) -> None:
    blood = {"question": "q", "choices": ["O", "A", "B", "AB"]}
    plain = {"question": "r", "choices": ["x", "y", "z", "w"]}
    assert answers_of(tmp_path / "test.jsonl", [{**blood, "answer": "A"}, {**plain, "answer": "D"}]) == [0, 3]
    assert answers_of(tmp_path / "test.jsonl", [{**blood, "answer": "A"}, {**plain, "answer": "w"}]) == [1, 3]
    for answer, choices in (("A", blood["choices"]), ("2", ["1", "2", "3", "4"])):
        with pytest.raises(DataError, match="is an index or a letter, and a choice's text; write its letter"):
            answers_of(tmp_path / "test.jsonl", [{"question": "q", "choices": choices, "answer": answer}])
    numbers = {"question": "q", "choices": ["1", "2", "3", "4"], "answer": 2}
    assert answers_of(tmp_path / "test.jsonl", [numbers]) == [2]


def test_an_answer_that_another_column_contradicts_is_refused(tmp_path: Path) -> None:
    row = {"question": "q", "choices": ["x ", "y"], "answer": "x", "answer_idx": "A"}
    assert answers_of(tmp_path / "test.jsonl", [row]) == [0]
    for name, value in (("answer_idx", "B"), ("answer_idx", "y"), ("answer_index", 2)):
        with pytest.raises(DataError, match="row 1: answer is 'x', and answer_index or answer_idx another choice"):
            answers_of(tmp_path / "test.jsonl", [{**row, "answer_idx": None, name: value}])


def test_a_passage_stands_before_its_question(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"article": "Long ago.", "question": "When?", "options": ["now", "then"], "answer": "B"},
        {"context": {"contexts": ["One.", "Two."]}, "question": "How many?", "options": ["1", "2"], "answer": "B"},
    ]
    first, second = read_questions(ChoiceOptions(uri=str(write_jsonl(tmp_path / "test.jsonl", rows))))["test"]
    assert mmlu.ask(first) == "Long ago.\nWhen?\nA. now\nB. then\nAnswer:"
    assert second.after_context("Question: How many?") == "One.\nTwo.\nQuestion: How many?"
    assert first.cluster != second.cluster != ""


def test_the_right_one_and_wrong_ones_apart_are_put_in_an_order_that_tells_nothing(tmp_path: Path) -> None:
    rows = [
        {"Question": f"q {number}", "Correct Answer": "x", **{f"Incorrect Answer {k}": f"w{k}" for k in (1, 2, 3)}}
        for number in range(80)
    ]
    (questions,) = read_questions(ChoiceOptions(uri=str(write_jsonl(tmp_path / "gpqa_diamond.jsonl", rows)))).values()
    assert all(item.choices[item.answer] == "x" and len(item.choices) == 4 for item in questions)
    assert {item.answer for item in questions} == {0, 1, 2, 3}


def test_letters_are_not_scored_where_the_right_one_is_always_the_same(world: Any, tmp_path: Path) -> None:
    rows = [{"question": f"q {n}", "mc1_targets": {"choices": ["x", "y"], "labels": [1, 0]}} for n in range(20)]
    options = {"uri": str(write_jsonl(tmp_path / "test.jsonl", rows)), "num_fewshot": 0}
    with pytest.raises(DataError, match="the right answer of all 20 items is A: a liking for this letter"):
        evaluate(world, tmp_path, benchmarks={"mmlu": options})
    assert evaluate(world, tmp_path, benchmarks={"mmlu": {**options, "scoring": "text"}}).axes["mmlu"].num_items == 20


def test_what_annotators_found_wrong_is_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = ("ok", "wrong_groundtruth", "ok", "no_correct_answer")
    rows = [{**row, "error_type": kind} for row, kind in zip(mmlu_rows(4), kinds, strict=True)]
    assert answers_of(tmp_path / "test.jsonl", rows) == [0, 2]
    assert "2 rows are left out, whose error_type is not ok" in capsys.readouterr().out


def test_columns_of_other_names_are_named(tmp_path: Path) -> None:
    row = {"Frage": "q", "1. Wahl": "x", "2. Wahl": "y", "Loesung": "B", "answer": "unused", "id": 7}
    columns = {"question": "Frage", "A": "1. Wahl", "B": "2. Wahl", "answer": "Loesung"}
    assert answers_of(tmp_path / "test.jsonl", [row], columns=columns) == [1]
    with pytest.raises(DataError, match="columns: no column 'lösung'; there are frage"):
        answers_of(tmp_path / "test.jsonl", [row], columns={**columns, "answer": "Lösung"})
    with pytest.raises(ConfigError, match="columns: unknown 'anwser'; there are question"):
        answers_of(tmp_path / "test.jsonl", [row], columns={"anwser": "Loesung"})
    with pytest.raises(DataError, match=r"no column 'question', .* say which it is, as columns=\{'question': ...\}"):
        answers_of(tmp_path / "test.jsonl", [{"Frage": "q", "A": "x", "B": "y", "answer": "B"}])


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
