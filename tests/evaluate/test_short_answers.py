"""Short free answers: the published rules by which they are compared, the rows that ask, and an axis that is compared."""

import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.tasks.drop.utils import get_metrics
from lm_eval.tasks.qasper.metrics import f1_abstractive, normalize_answer
from lm_eval.tasks.truthfulqa.utils import process_results_mc2

from mixtune import benchmark_files
from mixtune.artifacts.samples import Sample
from mixtune.errors import DataError
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.evaluate.scoring.answer_matching import DROP, EXACT, SQUAD, TRIVIA_QA, best_match, match
from mixtune.inference.engine import Completion, Request, Scores

from ..evaluation import compare, evaluate, make_tokenizer, write_files, write_jsonl
from .layouts import Noting, ask

PIECES = [
    *[
        "a",
        "an",
        "the",
        "The",
        "cat-dog",
        "U.S.",
        "5",
        "3.5",
        "-50",
        "1,500",
        "$5",
        "50%",
        ",",
        ".",
        "-",
        "é",
        "O'Neill",
        "café",
        "and",
        "1990s",
        "nan",
        "(big)",
        "3-4",
        "six",
        "½",
    ],
    "",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=5).map(" ".join)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    tokenizer.chat_template = None
    return tokenizer


def asked(
    tokenizer: Any, folder: Path, files: dict[str, Any], said: str = "", **options: Any
) -> tuple[list[str], list[Sample]]:
    """The prompts and the samples of files where the model says a text."""
    entry = {"form": "short_answers", "uri": write_files(folder, files), "num_fewshot": 0, **options}
    (benchmark,) = parse_benchmarks({"axis": entry}).values()
    engine, samples = ask(benchmark, tokenizer, said)
    return [prompt for prompt, _ in engine.asked], samples


def is_one_number(text: str) -> bool:
    return re.fullmatch(r"[-$ ]*\d[\d,. ]*[%$]?", text.strip()) is not None


@settings(max_examples=500, deadline=None)
@given(TEXTS, TEXTS)
def test_squads_rule_is_the_one_of_its_own_script_where_not_both_are_numbers(answer: str, reference: str) -> None:
    ours = match(answer, reference)
    if not normalize_answer(reference) or (is_one_number(answer) and is_one_number(reference)):
        return
    assert ours.exact == float(normalize_answer(answer) == normalize_answer(reference))
    assert ours.f1 == pytest.approx(f1_abstractive([answer], [reference]))


@settings(max_examples=500, deadline=None)
@given(TEXTS, TEXTS.filter(str.strip))
def test_drops_rule_is_the_one_of_lm_evals_task(answer: str, reference: str) -> None:
    assert best_match(answer, [(reference,)], DROP) == get_metrics([answer], (reference,))


@pytest.mark.parametrize(
    ("rule", "answer", "reference", "exact", "f1"),
    [
        (SQUAD, "The Cat.", "a cat", 1, 1),
        (SQUAD, "-50", "50", 0, 0),
        (SQUAD, "35", "3.5", 0, 0),
        (SQUAD, "5.0", "5", 1, 1),
        (SQUAD, "$1,500", "1500", 1, 1),
        (SQUAD, "5€", "€5", 1, 1),
        (SQUAD, "€ 5.00", "5 €", 1, 1),
        (SQUAD, "$-5", "-5 $", 1, 1),
        (SQUAD, "1\u202f234", "1,234", 1, 1),
        (SQUAD, "1’234.5", "1234.5", 1, 1),
        (SQUAD, "٣٫٥", "3.5", 1, 1),
        (SQUAD, "12 34", "1234", 0, 0),
        (DROP, "−5 yards", "-5 yards", 1, 1),
        (SQUAD, "", "5", 0, 0),
        (SQUAD, "] )", "] )", 1, 1),
        (SQUAD, "] ]", "] )", 0, 0),
        (SQUAD, "“Zürich”", "Zu\u0308rich", 1, 1),
        (SQUAD, "STRASSE", "Straße", 1, 1),
        (SQUAD, "１９９４年", "1994年", 1, 1),
        (SQUAD, "北京。", "北京", 1, 1),
        (SQUAD, "在北京市", "北京市", 0, 6 / 7),
        (SQUAD, "서울특별시에서", "서울특별시", 0, 10 / 12),
        (SQUAD, "в Москве", "Москве", 0, 2 / 3),
        (SQUAD, "oneill", "O'Neill", 1, 1),
        (TRIVIA_QA, "oneill", "O'Neill", 0, 0),
        (TRIVIA_QA, "o neill", "O´Neill", 1, 1),
        (TRIVIA_QA, "mute swan", "The_Mute-Swan", 1, 1),
        (DROP, "5.0 yards", "5 yards", 1, 1),
        (EXACT, "Costume, oven.", "costume oven", 1, 1),
        (DROP, "6 yards", "5 yards", 0, 0),
    ],
)
def test_hard_cases_of_every_rule(rule: str, answer: str, reference: str, exact: float, f1: float) -> None:
    assert best_match(answer, [(reference,)], rule) == (exact, pytest.approx(f1))


@pytest.mark.parametrize(
    ("answer", "exact", "f1"),
    [("Ann and Bob Lee", 1, 1), ("Bob Lee, Ann", 1, 1), ("Ann; Bob", 0, 0.83), ("Ann", 0, 0.5), ("Ann, Bob Lee, Cy", 0, 0.67)],
)  # fmt: skip
def test_several_spans_are_right_together_in_any_order(answer: str, exact: float, f1: float) -> None:
    assert best_match(answer, [("Ann", "Bob Lee")], DROP) == (exact, f1)


def test_the_best_of_thousands_of_references_counts() -> None:
    references = [(f"name {number}",) for number in range(5000)]
    assert best_match("Name 4999!", references, TRIVIA_QA) == (1, 1)
    assert best_match("name", references, TRIVIA_QA) == (0, pytest.approx(2 / 3))


def squad(number: int, passage: str, *answers: str) -> dict[str, Any]:
    starts = [0 for _ in answers]
    return {"id": f"q{number}", "title": "T", "context": f"{passage} {number // 2} is here.", "question": f"Which {number}?",
            "answers": {"text": list(answers), "answer_start": starts}}  # fmt: skip


def test_solved_items_are_of_different_passages_and_with_and_without_an_answer(tokenizer: Any, tmp_path: Path) -> None:
    files = {
        "train-00000.parquet": [squad(number, "Cup", *["blue"][: number % 3]) for number in range(80)],
        "validation-00000.parquet": [squad(0, "Jug", "red"), squad(1, "Jug")],
    }
    (prompt, _), samples = asked(tokenizer, tmp_path, files, "unanswerable", num_fewshot=2)
    assert prompt.startswith(
        "Answer in words of the passage, or say unanswerable where it has no answer.\n\nCup 0 is here."
    )
    assert [prompt.count(text) for text in ("Cup", "Answer: unanswerable\n", "Answer: blue\n")] == [2, 1, 1]
    assert [(sample.subject, sample.correct) for sample in samples] == [("answerable", 0), ("unanswerable", 1)]
    assert prompt.count("Cup 0 is here.") == 1
    assert samples[0].cluster == samples[1].cluster != ""


def test_a_model_that_says_nothing_knows_of_no_question_that_it_has_no_answer(tokenizer: Any, tmp_path: Path) -> None:
    _, samples = asked(tokenizer, tmp_path, {"dev.parquet": [squad(0, "Jug", "red"), squad(1, "Jug")]}, "\n")
    assert [(sample.correct, dict(sample.measures)["token_f1"]) for sample in samples] == [(0, 0), (0, 0)]


def test_a_limit_takes_questions_of_all_passages(tokenizer: Any, tmp_path: Path) -> None:
    files = {"test.parquet": [squad(number, "Cup", "blue") for number in range(8)]}
    entry = {"form": "short_answers", "uri": write_files(tmp_path, files), "num_fewshot": 0}
    (benchmark,) = parse_benchmarks({"axis": entry}).values()
    (part,) = benchmark.form.plan("axis", benchmark.options, tokenizer, 4)
    assert [item.question for item in part.items] == ["Which 0?", "Which 2?", "Which 4?", "Which 6?"]


def test_a_question_that_is_there_again_counts_once_with_all_answers(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"question": "Which bird?", "answer": answer} for answer in ("swan", "owl", "swan")]
    _, (sample,) = asked(tokenizer, tmp_path, {"test.jsonl": [*rows]}, "owl")
    assert (sample.gold, sample.correct) == ("swan", 1)
    assert "2 of 3 rows ask what others ask; each question counts once" in capsys.readouterr().out


def test_a_split_whose_answers_are_secret_is_not_asked(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {
        "test.jsonl": [{"question": "Which?", "answer": None}],
        "dev.jsonl": [{"question": "What?", "answer": "x"}],
    }
    assert asked(tokenizer, tmp_path, files)[0] == ["Question: What?\nAnswer:"]
    assert "its test split has no answers and is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "gold"),
    [
        ({"question": "q", "answer": 5.0}, "5"),
        ({"question": "q", "answer": 2.5}, "2.5"),
        ({"question": "q", "answer": True}, "yes"),
        ({"question": "q", "passage": "p", "answer": 1}, "1"),
        ({"question": "q", "answer": Decimal("3.50")}, "3.50"),
        ({"question": {"text": "q", "tokens": ["q"]}, "answers": [{"text": "x"}, {"text": "y"}]}, "x"),
        ({"question": "q", "answer": [1994, 1995]}, "1994"),
        ({"question": "q", "answer": "['swan', 'the swan']"}, "swan"),
        ({"question": "q", "answer": "['swan'\n 'the swan']"}, "swan"),
        (
            {"question": "q", "answers": "{'text': array(['a])', 'b'], dtype=object), 'answer_start': array([1, 2])}"},
            "a])",
        ),
        ({"question": "q", "answers": '{"text": ["a"], "answer_start": [1]}'}, "a"),
        ({"question": "q", "answers": "{'text': [], 'answer_start': []}"}, "unanswerable"),
        ({"question": "q", "answer": '{"value": "swan", "aliases": ["the swan"]}'}, "swan"),
        ({"question": "q", "answer": "{'x': 1}"}, "{'x': 1}"),
        ({"question": "q", "possible_answers": '["swan"]', "obj": "x y"}, "swan"),
        ({"question": "q", "answers": {"text": "Schwan", "answer_start": 3}}, "Schwan"),
        ({"question": "q", "answers": ["a", "b"]}, "a"),
        ({"input": "] ] is followed by", "target": "[ ]"}, "[ ]"),
    ],
)
def test_answers_are_read_in_every_form(tokenizer: Any, tmp_path: Path, row: dict[str, Any], gold: str) -> None:
    _, (sample,) = asked(tokenizer, tmp_path, {"test.parquet": [row]}, gold)
    assert (sample.gold, sample.correct) == (gold, 1)


def test_a_file_without_any_answer_is_refused_by_its_first_row(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: no right answer; there are question, reply; name its column as"):
        asked(tokenizer, tmp_path, {"test.jsonl": [{"question": "q", "reply": "x"}]})


@pytest.mark.parametrize(
    "passage",
    [
        {"context": '[["Owl", ["It is brown.", "It flies."]]]'},
        {"context": "[['Owl', ['It is brown.', 'It flies.']]]"},
        {"context": {"title": ["Owl"], "content": [["It is brown.", " It flies."]]}},
        {"passages": [{"title": "Owl", "text": "It is brown. It flies.", "id": "7", "score": 0.5}]},
        {"ctxs": {"title": "Owl", "sentences": ["It is brown.", "It flies."]}},
        {"documents": ["Owl: It is brown. It flies."]},
        {"documents": [{"title": "Owl", "page_content": "It is brown. It flies.", "metadata": {}}]},
        {"paragraphs": [], "context": "Owl: It is brown. It flies.", "document": {}},
    ],
)
def test_passages_are_asked_as_text_whatever_holds_them(
    tokenizer: Any, tmp_path: Path, passage: dict[str, Any]
) -> None:
    rows = {"test.jsonl": [{"question": "Which?", "answer": "x", **passage}]}
    assert asked(tokenizer, tmp_path, rows)[0] == ["Owl: It is brown. It flies.\nQuestion: Which?\nAnswer:"]


def test_a_text_that_begins_as_a_list_does_is_asked_as_it_is(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"question": "Which?", "answer": "x", "context": text} for text in ("[1] Owls fly.", '{"rows": [[1, 2]]}')]
    prompts, _ = asked(tokenizer, tmp_path, {"test.jsonl": rows})
    assert [prompt.split("\n")[0] for prompt in prompts] == [row["context"] for row in rows]


def test_a_table_marks_questions_without_an_answer_in_words(tokenizer: Any, tmp_path: Path) -> None:
    table = "question,context,answer,is_impossible\nWho?,Ann left.,Ann,False\nWhat?,Ann left.,Ann,True\n"
    assert [sample.gold for sample in asked(tokenizer, tmp_path, {"test.csv": table})[1]] == ["Ann", "unanswerable"]


def test_passages_that_are_not_shown_are_named(
    tokenizer: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"question": "q", "answer": "x", "search_results": {"rank": [1], "search_context": ["A swan is white."]}}
    asked(tokenizer, tmp_path, {"test.parquet": [row]})
    assert "nothing is read from search_results" in capsys.readouterr().out


def test_sorted_words_in_another_order_are_wrong_whatever_the_score(tokenizer: Any, tmp_path: Path) -> None:
    rows = {"word_sorting.json": [{"input": "Sort: oven costume", "target": "costume oven"}]}
    _, (sample,) = asked(tokenizer, tmp_path, rows, "oven costume")
    assert (sample.correct, dict(sample.measures)["token_f1"]) == (0, 0)


def test_columns_of_other_names_are_read(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"Frage": "Welcher Vogel?", "Text": "Der Schwan ist weiß.", "Antwort": "der Schwan", "answers": ["falsch"]}]
    columns = {"question": "Frage", "context": "Text", "answer": "Antwort"}
    prompts, (sample,) = asked(tokenizer, tmp_path, {"test.jsonl": rows}, "der Schwan", columns=columns)
    assert prompts == ["Der Schwan ist weiß.\nQuestion: Welcher Vogel?\nAnswer:"]
    assert sample.correct == 1


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        ({"question": "q", "answer": ""}, {}, r"row 2: no right answer; there are question, answer; name its column as"),
        ({"question": "q", "answer": {"x": 1}}, {}, "row 2: an answer is a text or a number, a list of them, or an object of"),
        ({"question": "q", "answer": "B", "choices": ["x", "y"]}, {}, "row 2: it has choices.*take form multiple_choice"),
        ({"question": "q", "answer": "x", "image": "a.png"}, {}, "row 2: its 'image' would not be shown"),
        ({"question": "q", "answer": "x", "context": {"table": [1]}}, {}, "row 2: its context is a text, or a list of"),
        ({"question": "q", "answer": "x", "document": {"text": "A b.", "summary": {"text": "A c."}}}, {}, "its document is a text"),
        ({"question": "q", "answers": {"text": None}}, {}, "row 2: no right answer"),
        ({"story": "s", "questions": ["q", "r"], "answers": ["x"]}, {}, "not asked as one of coqa .*that is as long"),
        ({"answer": "x"}, {}, "row 2: no column 'problem' or 'question'"),
        ({"question": "q", "answer": "word " * 60}, {}, "1 of 2 right answers have more than max_new_tokens=48, the longest"),
        ({"question": "q", "answer": "x"}, {"num_fewshot": 5}, "0 solved items beside those that are asked, num_fewshot is 5"),
    ],
)  # fmt: skip
def test_rows_that_are_no_such_questions_are_refused_with_the_way_out(
    tokenizer: Any, tmp_path: Path, row: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words):
        asked(tokenizer, tmp_path, {"test.jsonl": [{"question": "first", "answer": "x"}, row]}, **options)


def test_a_first_row_that_is_refused_is_named(tokenizer: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1: an answer is a text or a number"):
        asked(tokenizer, tmp_path, {"test.jsonl": [{"question": "q", "answer": {"x": 1}}]})


class Cutting(Noting):
    """An engine whose answers went on to their limit, with little room for prompts."""

    max_length = 100

    def generate(self, *arguments: Any) -> list[Completion]:  # type: ignore[override]
        return [Completion(token_ids=item.token_ids, truncated=True, latency_seconds=0.1) for item in super().generate(*arguments)]  # fmt: skip


@pytest.mark.parametrize("form", ["short_answers", "gsm8k"])
def test_an_answer_that_ended_is_not_cut_but_a_passage_may_be(form: str, tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"question": "Which?", "answer": "5"}, {"context": "long " * 90, "question": "Which?", "answer": "5"}]
    entry = {"form": form, "uri": write_files(tmp_path, {"test.jsonl": rows}), "num_fewshot": 0, "max_new_tokens": 48}
    (benchmark,) = parse_benchmarks({"axis": entry}).values()
    (part,) = benchmark.form.plan("axis", benchmark.options, tokenizer, 0)
    for said, cut in (("5\nQuestion: What", [False, True]), ("5 and", [True, True])):
        samples = part.score_items(part.items, Cutting(tokenizer, said))
        assert [sample.truncated for sample in samples] == cut


class Weighing(Noting):
    """An engine that likes the second choice best."""

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        return [Scores(logprobs=(-2.0, -0.5, -3.0, -6.0), truncated=False, latency_seconds=0) for _ in requests]


@pytest.mark.parametrize("entry", [{"form": "multiple_choice"}, {"form": "mmlu", "num_fewshot": 0}])
def test_a_choice_that_is_there_twice_is_right_twice(entry: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    row = {"question": "q", "choices": ["x", "a", "y", "a"], "answer": "D"}
    entry = {**entry, "uri": write_files(tmp_path, {"test.jsonl": [row]})}
    (benchmark,) = parse_benchmarks({"axis": entry}).values()
    (part,) = benchmark.form.plan("axis", benchmark.options, tokenizer, 0)
    (sample,) = part.score_items(part.items, Weighing(tokenizer))
    assert sample.correct == 1
    assert math.exp(-sample.nll) == pytest.approx(
        (math.exp(-0.5) + math.exp(-6)) / sum(map(math.exp, (-2, -0.5, -3, -6)))
    )


@pytest.mark.parametrize("entry", [{"form": "multiple_choice"}, {"form": "mmlu", "num_fewshot": 0, "scoring": "text"}])
def test_a_choice_without_a_text_is_not_scored_as_one(entry: dict[str, Any], tokenizer: Any, tmp_path: Path) -> None:
    rows = [{"question": "q", "choices": ["x", " ", "y"], "answer": letter} for letter in "CB"]
    for files, row in zip(("right", "blank"), rows, strict=True):
        entry = {**entry, "uri": write_files(tmp_path / files, {"test.jsonl": [row]})}
        (benchmark,) = parse_benchmarks({"axis": entry}).values()
        if files == "right":
            engine, (sample,) = ask(benchmark, tokenizer)
            assert (engine.asked[0][1], sample.nll) == ([" x", " y"], pytest.approx(math.log(2)))
            continue
        with pytest.raises(DataError, match="item all/0: its right choice, or all others, have no text; leave it out"):
            ask(benchmark, tokenizer)


def test_of_several_right_choices_the_probability_is_truthfulqas_mc2(tokenizer: Any, tmp_path: Path) -> None:
    choices, labels = ["A tree grows.", "You digest them.", "Nothing", "You turn into a tree at night."], [0, 1, 1, 0]
    row = {"question": "What if you eat seeds?", "mc2_targets": {"choices": choices, "labels": labels}}
    entry = {"uri": write_files(tmp_path, {"validation.parquet": [row]}), "columns": {"choices": "mc2_targets"}}
    metric = {"form": "multiple_choice", "metric": "gold_probability"}
    (benchmark,) = parse_benchmarks({"axis": entry | metric}).values()
    (part,) = benchmark.form.plan("axis", benchmark.options, tokenizer, 0)
    (sample,) = part.score_items(part.items, Weighing(tokenizer))
    theirs = process_results_mc2(row, [(value, False) for value in sample.choice_logprobs])
    assert math.exp(-(sample.nll or 0.0)) == pytest.approx(theirs["acc"])
    assert (sample.correct, sample.prediction) == (1, "You digest them.")
    (letters,) = parse_benchmarks({"axis": entry | {"form": "mmlu", "num_fewshot": 0}}).values()
    with pytest.raises(DataError, match="several choices are right; form multiple_choice has their"):
        letters.form.plan("axis", letters.options, tokenizer, 0)


def test_an_axis_of_short_answers_is_compared_like_any_other(world: Any, tmp_path: Path) -> None:
    rows = [squad(number, "Cup", *["blue"][: number % 3]) for number in range(6)]
    uri = str(write_jsonl(tmp_path / "test.jsonl", rows))
    benchmarks = {"cups": {"form": "short_answers", "uri": uri, "num_fewshot": 0, "max_new_tokens": 8}}
    base = evaluate(world, tmp_path / "base", benchmarks=benchmarks)
    evaluate(world, tmp_path / "candidate", benchmarks=benchmarks, model_uri=str(world.damaged))
    names = {"token_f1", "exact_match", "token_f1/answerable", "token_f1/unanswerable", "truncated_ratio"}
    assert names <= set(base.axes["cups"].scores)
    axes = {axis.axis: axis for axis in compare(tmp_path / "base", tmp_path / "candidate", tmp_path).axes}
    assert [measure.metric for measure in axes["cups"].measures] == ["token_f1", "exact_match"]
    assert (axes["cups"].limit, axes["cups"].items.total) == (0.02, 6)


@pytest.mark.parametrize("spell", [repr, json.dumps])
def test_problems_that_a_cell_holds_are_rows_as_python_or_as_json_spells_them(
    spell: Callable[[object], str], tmp_path: Path
) -> None:
    problems = [{"question": "Where?", "answer": "A", "options": ["home", "away"], "hint": None}]
    row = {"article": "Ann went home.", "problems": spell(problems)}
    (tmp_path / "race.jsonl").write_text(json.dumps(row))
    assert benchmark_files.read_rows(str(tmp_path / "race.jsonl")) == [{"article": "Ann went home.", **problems[0]}]
