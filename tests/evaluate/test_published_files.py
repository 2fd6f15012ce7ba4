"""Benchmarks in the files that they are published in: none is misread, and what cannot be scored is refused."""

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest

from mixtune import benchmark_files
from mixtune.errors import DataError
from mixtune.evaluate.asked import read_messages
from mixtune.evaluate.benchmarks import competition_math, gsm8k, mmlu, refusals, tool_calls
from mixtune.evaluate.choice_rows import ChoiceOptions, Question, read_questions
from mixtune.inference.engine import Tokenizer

from ..evaluation import write_files, write_jsonl

ANY = cast(Tokenizer, None)
PAIR = {"question": "q", "choices": ["x", "y"]}


def questions(folder: Path, files: dict[str, Any], **options: Any) -> list[Question]:
    uri = write_files(folder, files)
    return benchmark_files.choose_split(read_questions(ChoiceOptions(uri=uri, **options)), uri)


@pytest.mark.parametrize(
    ("row", "choices", "answer"),
    [
        ({"options": [{"key": "A", "value": "x"}, {"key": "B", "value": "y"}], "answer_idx": "B"}, ("x", "y"), 1),
        ({"options": [{"id": "A", "content": "x"}, {"id": "B", "content": "y"}], "answer": "B"}, ("x", "y"), 1),
        ({"answers": [{"aid": 1, "atext": "x"}, {"aid": 2, "atext": "y"}], "ra": 2}, ("x", "y"), 1),
        ({"answers": ["x", "y"], "label": 1, "id_string": "val_0"}, ("x", "y"), 1),
        ({"ans0": "x", "ans1": "y", "ans2": "z", "answer_info": {"ans0": ["a"]}, "answer_label": 2}, ("x", "y", "z"), 2),
        ({"ans0": "x", "ans1": "y", "ans2": "z", "label": 0}, ("x", "y", "z"), 0),
        ({"options": {"A": "x", "B": "y", "C": None}, "answer": "B"}, ("x", "y"), 1),
        ({"choices": [2, 4, 6], "answer": 4}, ("2", "4", "6"), 1),
        ({"choices": ["False", "True"], "answer": True}, ("False", "True"), 1),
        ({"choices": [True, False], "answer": False}, ("True", "False"), 1),
        ({"choices": ["Paris", "Rome"], "answer": "ROME"}, ("Paris", "Rome"), 1),
        ({"choices": ["Caf\u00e9", "Bar"], "answer": "Cafe\u0301"}, ("Caf\u00e9", "Bar"), 0),
        ({"choices": ["New York", "Rome"], "answer": "New\u00a0York"}, ("New York", "Rome"), 0),
        ({"choices": ["US", "us"], "answer": "us"}, ("US", "us"), 1),
        ({"choices": ["x", "y"], "answer": "\uff22"}, ("x", "y"), 1),
        ({"target": "False"}, ("False", "True"), 0),
        ({"answer": False}, ("no", "yes"), 0),
        ({"target": "Yes"}, ("No", "Yes"), 1),
        ({"premise": "p", "hypothesis": "h", "label": "Contradiction"}, ("True", "Neither", "False"), 2),
        ({"question": "is it", "passage": "p", "answer": "True"}, ("no", "yes"), 1),
    ],
)  # fmt: skip
def test_choices_and_answers_are_read_in_every_form(
    tmp_path: Path, row: dict[str, Any], choices: tuple[str, ...], answer: int
) -> None:
    (item,) = questions(tmp_path, {"test.jsonl": [{"question": "q", **row}]})
    assert (item.choices, item.answer) == (choices, answer)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({**PAIR, "choices": [{"x": "a"}, {"x": "b"}], "answer": "B"}, r"choices is a list of 2 to 26 texts, .* got \[\{'x'"),
        ({**PAIR, "choices": [["a"], ["b"]], "answer": "B"}, "choices is a list of 2 to 26 texts"),
        ({**PAIR, "choices": [1, 2, 3], "answer": 1}, "is an index or a letter, and a choice's text"),
        ({**PAIR, "question": " ", "answer": "B"}, "row 1: nothing in its column 'question'; fill it in, or leave the row out"),
        ({"premise": "p", "label": 1}, "what has none may be a task of form lm_eval"),
        ({"premise": "p", "hypothesis": "h", "label": 1}, "write labels as entailment, neutral and contradiction; their numbers"),
        ({"sentence1": "p", "sentence2": "h", "label": 1}, "write labels as equivalent and not_equivalent; their numbers"),
        ({**PAIR, "image": "iVBORw0K", "answer": "B"}, "row 1: its 'image' would not be shown; leave out rows that have one"),
        ({**PAIR, "image_1": {"bytes": "x", "path": "p"}, "image_2": None, "answer": "B"}, "its 'image_1' would not be shown"),
        ({**PAIR, "decoded_image": {"bytes": "x"}, "answer": "B"}, "its 'decoded_image' would not be shown"),
        ({**PAIR, "audio_path": "a.wav", "answer": "B"}, "its 'audio_path' would not be shown"),
        ({**PAIR, "table": [["a", "b"]], "answer": "B"}, r"its table is a text, or a list of them; write it as one: \"\[\['a'"),
    ],
)  # fmt: skip
def test_what_would_be_asked_or_scored_otherwise_than_it_is_meant_is_refused(
    tmp_path: Path, row: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        questions(tmp_path, {"test.jsonl": [row]})


def test_a_row_whose_image_is_empty_is_asked(tmp_path: Path) -> None:
    rows = [{**PAIR, "question": f"q {n}", "image": image, "answer": "B"} for n, image in enumerate((None, "", [], {}))]
    assert len(questions(tmp_path, {"test.jsonl": rows})) == 4


def test_a_missing_answer_among_others_is_named(tmp_path: Path) -> None:
    rows = [{**PAIR, "answerKey": "A"}, {**PAIR, "question": "r", "answerKey": ""}]
    with pytest.raises(DataError, match="row 2: nothing in its column 'answerkey'; fill it in, or leave the row out"):
        questions(tmp_path, {"test.jsonl": rows})


SUBJECTS = {
    "C-Eval": ("{split}/{subject}_{split}.csv", "val"),
    "CMMLU": ("{split}/{subject}.csv", "test"),
    "the hub": ("{subject}/{split}-00000-of-00001.parquet", "test"),
    "the hub's data folder": ("data/{subject}/{split}.jsonl", "validation"),
}


@pytest.mark.parametrize("layout", SUBJECTS)
def test_the_subject_is_the_files_or_the_folders_name_where_no_column_has_it(tmp_path: Path, layout: str) -> None:
    pattern, asked = SUBJECTS[layout]
    files: dict[str, Any] = {}
    for subject in ("law", "college_physics"):
        for split in ("dev", asked):
            row = {"question": f"{subject} {split}?", "A": "x", "B": "y", "answer": "B"}
            path = pattern.format(split=split, subject=subject)
            csv = "question,A,B,answer\n" + ",".join(row.values()) + "\n"
            files[path] = csv if path.endswith(".csv") else [row]
    parts = mmlu.FORM.plan("mmlu", mmlu.FORM.options(uri=write_files(tmp_path, files), num_fewshot=1), ANY, 0)
    prompts = {item.subject: prompt for part in parts for item, prompt in part.items}
    assert set(prompts) == {"law", "college_physics"}
    assert "about college physics.\n\ncollege_physics dev?\n" in prompts["college_physics"]
    assert "about law.\n\nlaw dev?\n" in prompts["law"]


@pytest.mark.parametrize(
    "files", [("test-00000-of-00002.jsonl", "test-00001-of-00002.jsonl"), ("test_1.jsonl", "test_2.jsonl")]
)
def test_shards_of_a_split_are_no_subjects(tmp_path: Path, files: tuple[str, str]) -> None:
    rows = [{**PAIR, "question": name, "answer": "A"} for name in files]
    assert {item.subject for item in questions(tmp_path, {n: [r] for n, r in zip(files, rows, strict=True)})} == {"all"}


def test_an_all_beside_its_parts_leaves_these_their_subjects(tmp_path: Path) -> None:
    rows = [{**PAIR, "question": f"q {n}", "answer": "A"} for n in range(6)]
    files = {"all/test.parquet": rows, "law/test.parquet": rows[:3], "logic/test.parquet": rows[3:]}
    assert {item.subject for item in questions(tmp_path, files)} == {"law", "logic"}


def test_a_split_that_has_no_column_for_answers_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"test.csv": "id,question,A,B\n0,q,x,y\n", "val.csv": "id,question,A,B,answer\n0,r,x,y,B\n"}
    assert [item.question for item in questions(tmp_path, files)] == ["r"]
    assert "its test split has no answers and is left out" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"no column 'answer', .* say which it is, as columns="):
        questions(tmp_path / "alone", {"test.csv": files["test.csv"]})


@pytest.mark.parametrize(
    ("name", "text", "asked"),
    [
        ("test.tsv", 'question\tA\tB\tanswer\n"15 inch\tx\ty\tA\nnext\tx\ty\tB\n3"\tx\ty\tA\n', ['"15 inch', "next", '3"']),
        ("test.tsv", 'question\tA\tB\tanswer\n"Hi" he said\tx\ty\tA\n', ['"Hi" he said']),
        ("test.tsv", 'question\tA\tB\tanswer\n"a ""b"""\tx\ty\tA\n', ['a "b"']),
        ("test.tsv", 'question\tA\tB\tanswer\n"a\nb"\tx\ty\tA\n', ["a\nb"]),
        ("test.csv", "question,A,B,answer\nq,x,y,A\n,,,\n\n , ,,\n", ["q"]),
        ("test.csv", "question;A;B;answer\nq, or r;x;y;A\n", ["q, or r"]),
    ],
)  # fmt: skip
def test_tables_lose_no_row_and_ask_no_empty_one(tmp_path: Path, name: str, text: str, asked: list[str]) -> None:
    assert [item.question for item in questions(tmp_path, {name: text})] == asked


def test_mgsms_table_has_no_header(tmp_path: Path) -> None:
    rows = benchmark_files.read_items(
        write_files(tmp_path, {"mgsm_de.tsv": 'Janet sagt "ja"?\t18\nWie viele?\t1,200\n'})
    )
    problems = gsm8k.read_problems(rows, "mgsm")
    assert [(item.question, gsm8k.normalise(item.answer)) for item in problems] == [
        ('Janet sagt "ja"?', "18"), ("Wie viele?", "1200")
    ]  # fmt: skip


def test_truthfulqas_table_parts_wrong_answers_by_semicolons(tmp_path: Path) -> None:
    text = "Category,Question,Best Answer,Best Incorrect Answer,Correct Answers,Incorrect Answers\nMisc,q,n,g,n; none,g; d\n"
    (item,) = questions(tmp_path, {"TruthfulQA.csv": text})
    assert (sorted(item.choices), item.choices[item.answer], item.subject) == (["d", "g", "n"], "n", "Misc")


def test_agievals_query_is_asked_without_the_choices_that_it_repeats(tmp_path: Path) -> None:
    query = "Old text.\nQ: Which? Answer Choices: (A)x (B)y\nA: Among A through B, the answer is"
    chinese = "问题：哪个？ 选项：(A)x (B)y\n答案：从A到B, 我们应选择"
    rows = [{"query": text, "choices": ["(A)x", "(B)y"], "gold": [1]} for text in (query, chinese)]
    asked = questions(tmp_path, {"test.jsonl": rows})
    assert [item.question for item in asked] == ["Old text.\nQ: Which?", "问题：哪个？"]
    assert asked[0].choices == ("x", "y")


def test_prose_that_nobody_reads_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    questions(
        tmp_path / "choices", {"test.jsonl": [{**PAIR, "answer": "A", "hint": "Look up.", "id_2": "x", "grade": "g"}]}
    )
    assert "nothing is read from hint\n" in capsys.readouterr().out
    benchmark_files.read_items(
        write_files(tmp_path / "items", {"test.jsonl": [{"prompt": "Say it.", "rubric": "Be kind."}]})
    )
    assert "nothing is read from rubric\n" in capsys.readouterr().out


USER = {"role": "user", "content": "hi"}


@pytest.mark.parametrize(
    ("row", "contents"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]}, ["hi"]),
        ({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "hi"}]}, ["s", "hi"]),
        ({"system": "s", "prompt": "hi"}, ["s", "hi"]),
        ({"system": [{"text": "s"}], "prompt": "hi"}, ["s", "hi"]),
        ({"system": {"text": "s"}, "messages": [{"role": "user", "content": {"text": "hi"}}]}, ["s", "hi"]),
        ({"system": math.nan, "prompt": "hi"}, ["hi"]),
        ({"system_prompt": "s", "messages": [USER]}, ["s", "hi"]),
        ({"instruction": "Translate.", "input": "hi"}, ["Translate.\n\nhi"]),
        ({"turns": ["hi"]}, ["hi"]),
        ({"question": [[USER]]}, ["hi"]),
        ({"paragraph": "p", "question": "hi"}, ["p\n\nhi"]),
    ],
)  # fmt: skip
def test_what_is_said_to_a_model_is_read_in_every_form(
    tmp_path: Path, row: dict[str, Any], contents: list[str]
) -> None:
    (row,) = benchmark_files.read_items(str(write_jsonl(tmp_path / "test.jsonl", [row])))
    assert [message["content"] for message in read_messages(row, "row 1")] == contents


def test_earlier_calls_stay_in_a_conversation(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
    turns = [USER, {"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "content": "2"}, USER]
    messages = read_messages({"messages": turns}, "row 1")
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": {"n": 1}}]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "u"}}]}]}, "row 1: a message has a role"),
        ({"messages": [{"content": "hi"}]}, r"a message has a role \(system, user, assistant, tool\) and a text; got"),
        ({"messages": [USER, {"role": "assistant", "content": "gold"}]}, "its last message is the assistant's"),
        ({"history": [["a", "b"]], "prompt": "hi"}, "not read from 'history'; write it into 'messages'"),
        ({"system": 5, "prompt": "hi"}, "row 1: a message has a role"),
        ({"turns": ["hi", "and?"]}, "row 1: 2 turns that are asked one after another"),
        ({"messages": [USER, {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]}, "'{' is not JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_said_to_a_model_is_refused(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_messages(row, "row 1")


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"question_id": 81, "category": "writing", "turns": ["Compose a blog post.", "Rewrite it."]}, ["Compose a blog post.\nRewrite it."]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "parts"}]}]}, ["parts"]),
        ({"conversations": [{"from": "human", "value": "shared"}, {"from": "gpt", "value": "no"}]}, ["shared"]),
        ({"instruction": "Translate.", "input": "Hallo", "output": "Hi"}, ["Translate.\n\nHallo"]),
    ],
)  # fmt: skip
def test_the_same_is_kept_out_of_the_training_data(tmp_path: Path, row: dict[str, Any], texts: list[str]) -> None:
    assert list(benchmark_files.read_asked(str(write_jsonl(tmp_path / "test.jsonl", [row])))) == texts


def judge(folder: Path, row: dict[str, Any], response: str) -> bool:
    uri = str(write_jsonl(folder / "test.jsonl", [{"question": "q", **row}]))
    (item,) = competition_math.FORM.read_items(competition_math.MathOptions(uri=uri), ANY)
    return competition_math.FORM.judge(item, cast(Any, {"response": response})).correct


@pytest.mark.parametrize(
    ("row", "response", "right"),
    [
        ({"answer": 0}, "\\boxed{0}", True),
        ({"answer": 1.5}, "\\boxed{1.50}", True),
        ({"final_answer": ["$2 \\sqrt{6}$"]}, "\\boxed{2\\sqrt{6}}", True),
        ({"answer": "5"}, "\\boxed{$5$}", True),
        ({"answer": "5"}, "\\boxed{5\\ \\mathrm{cm}}", True),
        ({"answer": "2"}, "\\boxed{2\\ \\text{or}\\ 3}", False),
        ({"answer": "(B)"}, "\\boxed{\\text{B}}", True),
        ({"answer": "\\sqrt{2}"}, "\\boxed{\\displaystyle\\sqrt 2}", True),
        ({"answer": "\\$5"}, "\\boxed{5}", True),
        ({"body": "Seven apples.", "answer": "9 (apples)"}, "\\boxed{9}", True),
        ({"answer": "2 (x+1)"}, "\\boxed{2}", False),
        ({"answer": 3.14, "tolerance": 0.01}, "\\boxed{3.15}", True),
        ({"answer": 3.14, "tolerance": 0.01}, "\\boxed{3.16}", False),
        ({"answer": 3.14, "error": math.nan}, "\\boxed{3.14}", True),
        ({"answer": 3.14, "error": math.nan}, "\\boxed{3.15}", False),
        ({"final_answer": ["1.25"], "error": "1e-1"}, "\\boxed{1.3}", True),
        ({"final_answer": ["1.25"], "error": None}, "\\boxed{1.3}", False),
        ({"final_answer": ["2,3"], "is_multiple_answer": True}, "\\boxed{3, 2}", True),
        ({"final_answer": ["2,3"], "is_multiple_answer": True}, "\\boxed{3}", False),
        ({"final_answer": ["2,3"], "is_multiple_answer": True}, "\\boxed{2,2,3}", False),
        ({"final_answer": ["(1,2),(3,4)"], "is_multiple_answer": True}, "\\boxed{(3,4),(1,2)}", True),
        ({"final_answer": ["(1,2),(3,4)"], "is_multiple_answer": True}, "\\boxed{(2,1),(3,4)}", False),
        ({"final_answer": ["1,000"], "is_multiple_answer": True}, "\\boxed{1000}", True),
        ({"final_answer": ["2,3"], "is_multiple_answer": False}, "\\boxed{3,2}", False),
        ({"final_answer": ["2,3"], "is_multiple_answer": "False"}, "\\boxed{3,2}", False),
        ({"answer": 5}, "So \\boxed{5}.\n\nProblem: What is 1 + 1?\n\nSolution: \\boxed{2}", True),
        ({"answer": 5}, "\\boxed{5}\n\n**Question 2:** And now? \\boxed{2}", True),
        ({"answer": 5}, "\\boxed{5}\nuser\nAnd now?\nassistant\n\\boxed{2}", True),
        ({"answer": 5}, "5\n\nHuman: And now?\n\nAssistant: 2", True),
        ({"answer": 5}, "I restate it.\n**Problem:** What is 2 + 3?\n**Solution:** \\boxed{5}", True),
        ({"answer": 5}, "\\boxed{4}, or rather\n\\boxed{5}", True),
    ],
)  # fmt: skip
def test_answers_to_mathematics_are_right_as_their_set_has_them(
    tmp_path: Path, row: dict[str, Any], response: str, right: bool
) -> None:
    assert judge(tmp_path, row, response) is right


def test_a_tolerance_that_is_no_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="row 1: its tolerance is a number, by which the answer may differ; got 'a bit'"
    ):
        judge(tmp_path, {"answer": 3, "tolerance": "a bit"}, "")


def test_columns_of_other_names_are_asked_and_guarded_by_every_form(tmp_path: Path) -> None:
    rows = [
        {"Aufgabe": f"Was ist {n} + 1?", "Loesung": f"{n + 1}", "problem": "unused", "note": "w " * 40} for n in (1, 2)
    ]
    uri, columns = str(write_jsonl(tmp_path / "test.jsonl", rows)), {"question": "Aufgabe", "answer": "Loesung"}
    items = competition_math.FORM.read_items(competition_math.MathOptions(uri=uri, columns=columns), ANY)
    assert [(item.messages[0]["content"].split("\n")[0], item.gold) for item in items] == [
        ("Was ist 1 + 1?", "2"), ("Was ist 2 + 1?", "3")
    ]  # fmt: skip
    (part,) = gsm8k.FORM.plan("axis", gsm8k.Gsm8kOptions(uri=uri, columns=columns, num_fewshot=0), ANY, 0)
    assert [problem.question for problem in part.items] == ["Was ist 1 + 1?", "Was ist 2 + 1?"]
    assert list(benchmark_files.read_asked(uri, "Aufgabe")) == ["Was ist 1 + 1?", "Was ist 2 + 1?"]
    with pytest.raises(DataError, match="columns: no column 'frage'; there are aufgabe, loesung"):
        benchmark_files.read_items(uri, {"question": "Frage"})


def test_answers_that_are_words_are_not_compared_letter_by_letter(tmp_path: Path) -> None:
    rows = [
        {"problem": f"Who was it {n}?", "answer": answer} for n, answer in enumerate(("Jane Doe", "A swan", "1944"))
    ]
    options = competition_math.MathOptions(uri=str(write_jsonl(tmp_path / "test.jsonl", rows)))
    with pytest.raises(DataError, match="most answers are words, such as 'Jane Doe', whose spellings math cannot tell"):
        competition_math.FORM.read_items(options, ANY)


def test_problems_whose_answer_cannot_be_told_are_left_out_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "q", "answer": answer, "perturbation_type": "x"} for answer in ("3", "None")]
    assert [row["answer"] for row in benchmark_files.read_items(str(write_jsonl(tmp_path / "test.jsonl", rows)))] == [
        "3"
    ]
    assert "1 rows are left out, whose answer is None" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("it/test.jsonl", "Piove perché"),
        ("zh/test.jsonl", "Piove 因为"),
        ("translation-it/test.jsonl", "Piove because"),
    ],
)
def test_xcopas_connective_is_of_its_folders_language(tmp_path: Path, path: str, asked: str) -> None:
    row = {"premise": "Piove.", "choice1": "A", "choice2": "B", "question": "cause", "label": 0, "changed": False}
    assert questions(tmp_path, {path: [row]})[0].question == asked
    with pytest.raises(DataError, match="XCOPA's language is its folder's name, such as it or zh"):
        questions(tmp_path / "x", {"test.jsonl": [row]})


def test_answers_without_a_box_are_counted(tmp_path: Path) -> None:
    uri = str(write_jsonl(tmp_path / "test.jsonl", [{"question": "q", "answer": 4}]))
    (item,) = competition_math.FORM.read_items(competition_math.MathOptions(uri=uri), ANY)
    shares = [
        competition_math.FORM.judge(item, cast(Any, {"response": text})).measures["boxed"]
        for text in ("\\boxed{4}", "It is $4$.", "4")
    ]
    assert shares == [1, 0, 0]


@pytest.mark.parametrize("answer", ["x #### 1/2", "x #### 5 dollars", "about 5", ["1", "2"]])
def test_a_gold_number_that_no_answer_could_match_is_refused(answer: Any) -> None:
    with pytest.raises(DataError, match="row 1: answer "):
        gsm8k.read_problems([{"question": "q", "answer": answer}], "gsm8k")


def test_one_word_on_refusals_does_not_hold_for_several_files(tmp_path: Path) -> None:
    files = {"data/harmful-behaviors.csv": "Goal\nRob a bank\n", "data/benign-behaviors.csv": "Goal\nFound a bank\n"}
    uri = write_files(tmp_path, files)
    with pytest.raises(
        DataError, match=r"of several files \(benign_behaviors, harmful_behaviors\); give each file an entry"
    ):
        refusals.FORM.read_items(refusals.RefusalOptions(uri=uri, refuse=True), ANY)
    alone = refusals.RefusalOptions(uri=f"{uri}/data/harmful-behaviors.csv", refuse=True)
    assert [item.gold for item in refusals.FORM.read_items(alone, ANY)] == ["refuse"]


def test_xstests_completions_ask_its_prompts_and_those_of_five_models_are_refused(tmp_path: Path) -> None:
    prompts = [
        {"id": f"v2-{n}", "type": kind, "prompt": f"How {n}?", "completion": "c", "final_label": "1_full_compliance"}
        for n, kind in enumerate(("homonyms", "contrast_homonyms") * 8)
    ]
    uri = str(write_jsonl(tmp_path / "one.jsonl", prompts))
    golds = [item.gold for item in refusals.FORM.read_items(refusals.RefusalOptions(uri=uri), ANY)]
    assert golds == ["answer", "refuse"] * 8
    models = [{**row, "completion": f"{model} {row['id']}", "model": model} for model in "abcde" for row in prompts]
    uri = str(write_jsonl(tmp_path / "five.jsonl", models))
    with pytest.raises(DataError, match=r"64 of the 80 rows of five.jsonl ask what others ask; each counts once"):
        refusals.FORM.read_items(refusals.RefusalOptions(uri=uri), ANY)


def test_bfcls_folder_is_asked_but_for_what_is_not_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tool = {
        "name": "lookup",
        "description": "d",
        "parameters": {"type": "dict", "properties": {"n": {"type": "integer"}}},
    }

    def ask(name: str, *turns: str) -> dict[str, Any]:
        return {"id": name, "question": [[{"role": "user", "content": text}] for text in turns], "function": [tool]}

    def lines(*rows: dict[str, Any]) -> str:
        return "\n".join(map(json.dumps, rows))

    truth = {"ground_truth": [{"lookup": {"n": [1]}}]}
    files = {
        "BFCL_v4_simple_python.json": lines(ask("simple_python_0", "find 1")),
        "BFCL_v4_simple_java.json": lines(ask("simple_java_0", "java"), ask("simple_java_1", "java two")),
        "BFCL_v3_javascript.json": lines(ask("javascript_0", "script")),
        "BFCL_v4_multi_turn_base.json": lines(ask("multi_turn_base_0", "first", "second")),
        "BFCL_v3_exec_simple.json": lines({**ask("exec_simple_0", "run"), "ground_truth": ["lookup(n=1)"]}),
        "BFCL_v4_live_relevance.json": lines(ask("live_relevance_0-0-0", "any")),
        "BFCL_v4_live_irrelevance.json": lines(ask("live_irrelevance_0-0-0", "none")),
        "BFCL_v4_memory.json": lines({"id": "memory_0-customer-0", "question": [[{"role": "user", "content": "m"}]]}),
        "BFCL_v4_web_search.json": lines(ask("web_search_0", "web")),
        "multi_turn_func_doc/math_api.json": lines({**tool, "response": {}}),
        "possible_answer/BFCL_v4_simple_python.json": lines({"id": "simple_python_0", **truth}),
        "possible_answer/BFCL_v4_simple_java.json": lines({"id": "simple_java_0", **truth}),
    }
    items = tool_calls.FORM.read_items(tool_calls.FORM.options(uri=write_files(tmp_path, files)), ANY)
    assert {item.item_id: item.subject for item in items} == {
        "simple_python_0": "one call", "live_irrelevance_0-0-0": "no call"
    }  # fmt: skip
    assert (
        "9 rows are left out, whose calls are not compared: 1 exec_simple, 1 javascript, 1 live_relevance, 1 memory, "
        "1 multi_turn_base, 2 simple_java, 1 that ask nothing, 1 web_search"
    ) in capsys.readouterr().out
