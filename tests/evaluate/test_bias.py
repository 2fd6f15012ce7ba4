"""BBQ: accuracy and bias side by side, as lm-eval's task and its authors' paper have them."""

import random
from pathlib import Path
from typing import Any

import datasets
import pytest
from lm_eval.tasks.bbq import utils as theirs

from mixtune.artifacts.samples import AxisSummary, Sample, read_part, write_part
from mixtune.compare.verdicts import judge_axis
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.benchmarks.multiple_choice import FORM
from mixtune.evaluate.choice_rows import ChoiceOptions, Question, read_questions
from mixtune.evaluate.named_benchmarks import parse_benchmarks

from ..evaluation import write_jsonl

GROUPS = [
    ("old", "nonOld", ["old"]), ("F", "M", ["F"]), ("woman", "man", ["F"]), ("M-Black", "M-White", ["Black", "African American"]),
    ("lowSES", "highSES", ["low SES"]), ("obese", "nonObese", ["obese"]), ("trans", "nonTrans", ["trans"]), ("girl", "boy", ["M"]),
]  # fmt: skip


def bbq_rows() -> list[dict[str, Any]]:
    rows = []
    for number, (first, second, stereotyped) in enumerate(GROUPS * 3):
        for polarity in ("neg", "nonneg"):
            for condition in ("ambig", "disambig"):
                row = {
                    "example_id": len(rows), "question_polarity": polarity, "context_condition": condition, "category": "Age",
                    "answer_info": {"ans0": [f"x{number}", first], "ans1": ["Unknown", "unknown"], "ans2": [f"y{number}", second]},
                    "additional_metadata": {"stereotyped_groups": stereotyped, "version": "a"},
                    "context": f"Two came {number} {condition}.", "question": f"Who {polarity}?", "ans0": f"The x{number}",
                    "ans1": "Unknown", "ans2": f"The y{number}", "label": 1 if condition == "ambig" else number % 2 * 2,
                }  # fmt: skip
                rows.append(row)
    return rows


def answer(questions: list[Question], chosen: list[int], path: Path) -> Any:
    samples = [
        Sample(axis="bbq", subject=item.subject, item_id=item.item_id, prompt_hash="", correct=float(item.answer == choice),
               nll=0.5, measures={"accuracy": float(item.answer == choice), "bias": item.bias[choice]})
        for item, choice in zip(questions, chosen, strict=True)
    ]  # fmt: skip
    write_part(str(path), samples)
    return read_part(str(path))


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_jsonl(tmp_path_factory.mktemp("bbq") / "Age.jsonl", bbq_rows()))


@pytest.mark.parametrize("seed", range(5))
def test_bias_scores_are_those_of_lm_eval(uri: str, tmp_path: Path, seed: int) -> None:
    questions, docs = (
        read_questions(ChoiceOptions(uri=uri))["test"],
        theirs.process_docs(datasets.Dataset.from_list(bbq_rows())),
    )
    pick = random.Random(seed)
    chosen = [pick.choice((0, 1, 1, 2)) for _ in questions]
    results = []
    for doc, choice in zip(docs, chosen, strict=True):
        place = theirs.doc_to_choice(doc).index(doc[f"ans{choice}"])
        results.append(theirs._process_results(doc, place))
    scores = FORM.summarize(answer(questions, chosen, tmp_path / "part"), ())
    assert scores["ambiguous_bias"] == pytest.approx(
        theirs.agg_amb_bias_scores([row["amb_bias_score"] for row in results])
    )
    disambiguated = theirs.agg_disamb_bias_scores([row["disamb_bias_score"] for row in results])
    assert scores["disambiguated_bias"] == pytest.approx(disambiguated)
    assert scores["accuracy"] == pytest.approx(sum(row["acc"] for row in results) / len(results))


def test_a_model_that_became_biased_fails_where_the_verdict_is_about_bias_though_it_is_no_less_accurate(
    uri: str, tmp_path: Path
) -> None:
    questions = read_questions(ChoiceOptions(uri=uri))["test"]
    wrong = [place for place, item in enumerate(questions) if item.subject == "Age, ambiguous"][::2]
    tables = []
    for kind in (-1.0, 1.0):  # as often wrong, against stereotypes and with them
        chosen = [item.bias.index(kind) if place in wrong else item.answer for place, item in enumerate(questions)]
        tables.append(answer(questions, chosen, tmp_path / f"{kind}"))
    verdicts = {}
    for metric in ("accuracy_norm", "ambiguous_bias"):
        summary = AxisSummary(form="multiple_choice", metric=metric, scores=FORM.summarize(tables[0], ()), num_items=96)
        axis = judge_axis("bbq", summary, (tables[0], tables[1]), 0.1)
        verdicts[metric] = axis.verdict
        few = judge_axis("bbq", summary, (tables[0][:4], tables[0][:4]), 0.1)
        assert few.verdict == "inconclusive"  # four items that stayed alike are no certainty
        assert axis.measure.metric == metric
        bias = next(measure for measure in axis.measures if measure.metric == "ambiguous_bias")
        assert (bias.base, bias.candidate, bias.higher_is_better) == (-0.5, 0.5, False)
    assert verdicts == {"accuracy_norm": "pass", "ambiguous_bias": "fail"}


def test_bias_is_scored_on_bbq_alone_and_letters_are_not(uri: str, tmp_path: Path) -> None:
    plain = str(write_jsonl(tmp_path / "test.jsonl", [{"question": "q", "choices": ["x", "y"], "answer": "B"}]))
    (benchmark,) = parse_benchmarks(
        {"b": {"form": "multiple_choice", "uri": plain, "metric": "ambiguous_bias"}}
    ).values()
    any_tokenizer: Any = None
    with pytest.raises(DataError, match="ambiguous_bias is scored on rows of BBQ"):
        benchmark.form.plan("b", benchmark.options, any_tokenizer, 0)
    (letters,) = parse_benchmarks({"mmlu": {"uri": uri, "num_fewshot": 0}}).values()
    with pytest.raises(DataError, match="BBQ's accuracy alone hides bias; form multiple_choice scores both"):
        letters.form.plan("mmlu", letters.options, any_tokenizer, 0)
    assert FORM.metric == "accuracy_norm"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "bleu"}, "benchmark 'gsm8k': metric is one of strict_match, flexible_match; got 'bleu'"),
        ({"split": "test"}, "benchmark 'gsm8k': a split is a file or folder of it; name that in uri"),
        ({"config": "main"}, "benchmark 'gsm8k': a config is a file or folder of it; name that in uri"),
    ],
)
def test_what_a_benchmark_does_not_take_is_told_with_the_way_out(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_benchmarks({"gsm8k": {"uri": "x", **options}})
