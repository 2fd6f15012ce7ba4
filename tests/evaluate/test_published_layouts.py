"""Every published benchmark of `published_layouts.yaml`: what is asked of it, what is right, and lm-eval on the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest

from mixtune.evaluate.named_benchmarks import parse_benchmarks

from ..evaluation import write_files
from .layouts import LAYOUTS, OUTCOMES, ask, make_asking_tokenizer, of_lm_eval, outcome

KNOWN: dict[str, dict[str, Any]] = json.loads(OUTCOMES.read_text())
SCORED = [name for name, known in KNOWN.items() if "asked" in known]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return make_asking_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_documents_show_what_becomes_of_a_published_benchmark(name: str, tokenizer: Any, tmp_path: Path) -> None:
    assert outcome(LAYOUTS[name], tokenizer, tmp_path) == KNOWN[name]


def test_at_least_forty_benchmarks_are_scored_and_every_refusal_names_a_way_out_or_what_is_missing() -> None:
    assert len(SCORED) >= 40
    assert set(KNOWN) == set(LAYOUTS)
    ways = (
        "lm_eval",
        "short_answers",
        "leave it out",
        "no column",
        "items of one turn",
        "write it as one",
        "write labels",
        "write a row",
    )
    assert all(any(way in known["refused"] for way in ways) for known in KNOWN.values() if "refused" in known)


@pytest.mark.parametrize("name", [name for name in SCORED if "lm_eval" in LAYOUTS[name]])
def test_the_right_answer_is_the_one_of_lm_evals_own_task(name: str) -> None:
    ours, theirs = KNOWN[name], of_lm_eval(LAYOUTS[name])
    choices = [str(choice).strip() for choice in theirs["choices"]]
    right = theirs["right"][0] if isinstance(theirs["right"], list) else theirs["right"]
    if name == "GPQA":  # put in an order by chance there, and by one of our own here
        assert [theirs["asked"].split(f"({letter}) ")[1][0] for letter in "ABCD"][right] == "x"
    elif name == "SciQ":
        assert choices[right] == ours["right"]
    elif len(ours["choices"]) == 1:  # WinoGrande, whose choices stand in the prompt
        assert right == ["the cup", "the box"].index(ours["right"])
    elif choices:
        assert right == [choice.strip() for choice in ours["choices"]].index(ours["right"])
    elif ours["right"]:
        assert str(ours["right"]) in str(right)
    if ours["lm_eval"] == "the same prompt":
        assert theirs["asked"] == ours["asked"]


@pytest.mark.parametrize("name", SCORED)
def test_what_is_guarded_is_what_is_asked(name: str) -> None:
    asked = " ".join(KNOWN[name]["asked"].split())
    assert all(" ".join(line.split()[:4]) in asked for line in KNOWN[name]["guarded"].splitlines())


@pytest.mark.parametrize("name", [name for name in SCORED if "wrong" in LAYOUTS[name]])
def test_a_right_answer_counts_and_a_wrong_one_does_not(name: str, tokenizer: Any, tmp_path: Path) -> None:
    layout = LAYOUTS[name]
    (benchmark,) = parse_benchmarks(
        {"axis": {**layout["entry"], "uri": write_files(tmp_path, layout["files"])}}
    ).values()
    assert [ask(benchmark, tokenizer, layout[said])[1][0].correct for said in ("right", "wrong")] == [1, 0]


@pytest.mark.parametrize("name", ["Belebele", "RACE, its authors' file", "SQuAD v2"])
def test_questions_about_one_passage_are_taken_as_dependent(name: str, tokenizer: Any, tmp_path: Path) -> None:
    entry = {**LAYOUTS[name]["entry"], "uri": write_files(tmp_path, LAYOUTS[name]["files"])}
    (benchmark,) = parse_benchmarks({"axis": entry}).values()
    first, second = ask(benchmark, tokenizer)[1]
    assert first.cluster == second.cluster != ""
