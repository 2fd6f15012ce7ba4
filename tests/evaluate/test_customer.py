"""The customer's axis, in all its forms, against scikit-learn and by hand."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from mixtune.artifacts.pools import read_pools
from mixtune.artifacts.samples import Sample, read_part, write_part
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import latency_scores
from mixtune.evaluate.benchmarks import classification, generation, multilabel
from mixtune.evaluate.benchmarks.generation import corpus_bleu, same_json
from mixtune.evaluate.customer import plan_axis
from mixtune.evaluate.scoring.answer_matching import match
from mixtune.evaluate.scoring.labels import LabelSet, find_labels
from mixtune.inference.engine import Tokenizer
from mixtune.settings.inference import CustomerOptions

from ..evaluation import INTENTS, compare, customer_records, evaluate, make_record, sentence, write_pools

LABELS = LabelSet(labels=INTENTS, answers=(), aliases={"lost it": "card_lost"})


def table(folder: Path, pairs: list[tuple[str, str]], shares: np.ndarray | None = None) -> Any:
    samples = []
    for number, (gold, said) in enumerate(pairs):
        logprobs = () if shares is None else tuple(np.log(shares[number]))
        measures = {"invalid": float(not said)} if shares is None else {}
        samples.append(
            Sample(axis="customer", subject=gold, item_id=str(number), prompt_hash="x", gold=gold, prediction=said,
                   correct=float(gold == said), choice_logprobs=logprobs, measures=measures)
        )  # fmt: skip
    write_part(str(folder / "part"), samples)
    return read_part(str(folder / "part"))


def test_scores_are_scikit_learns(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    gold = [INTENTS[number] for number in random.integers(0, 3, 200)]
    shares = random.dirichlet(np.ones(3), 200)
    said = [INTENTS[number] for number in shares.argmax(1)]
    scores = classification.FORM.summarize(table(tmp_path, list(zip(gold, said, strict=True)), shares), INTENTS)
    for average in ("macro", "micro", "weighted"):
        assert scores[f"f1_{average}"] == pytest.approx(sk.f1_score(gold, said, average=average))
    assert scores["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(gold, said))
    assert scores["auc_macro"] == pytest.approx(sk.roc_auc_score(gold, shares, multi_class="ovr"), abs=1e-6)


def test_an_invalid_answer_counts_as_wrong_and_is_reported(tmp_path: Path) -> None:
    pairs = [("card_lost", "card_lost"), ("card_lost", ""), ("exchange_rate", "exchange_rate")]
    scores = classification.FORM.summarize(table(tmp_path, pairs), INTENTS)
    assert (scores["accuracy"], scores["invalid_ratio"]) == (pytest.approx(2 / 3), pytest.approx(1 / 3))
    assert scores["f1_macro"] == pytest.approx((2 / 3 + 1) / 2)
    assert sum(map(sum, classification.FORM.confusion(table(tmp_path, pairs), INTENTS))) == 2


@pytest.mark.parametrize(
    ("label", "options", "words"),
    [
        ("card_lost", {"pattern": "a"}, "pattern is for answers without labels"),
        ("", {"aliases": {"x": "y"}}, "no record has one"),
    ],
)
def test_an_option_that_has_no_part_in_how_records_are_scored_is_refused(
    tmp_path: Path, label: str, options: dict[str, Any], words: str
) -> None:
    records = [make_record(number, "where?", "there", **({"label": label} if label else {})) for number in range(2)]
    pools = read_pools(str(write_pools(tmp_path / "pools", {"customer": {"test": records}})))
    with pytest.raises(ConfigError, match=words):
        plan_axis(pools, CustomerOptions(**options), cast(Tokenizer, None), 0)


def test_calibration_error_is_the_gap_between_confidence_and_accuracy() -> None:
    sure = np.full(10, 0.95)
    assert classification.calibration_error(sure, np.array([1.0] * 5 + [0.0] * 5)) == pytest.approx(0.45)
    assert classification.calibration_error(np.full(4, 1.0), np.ones(4)) == 0


@pytest.mark.parametrize(
    ("text", "label"),
    [("card_lost", "card_lost"), ("Card Lost.", "card_lost"), ("lost it", "card_lost"), ("card_lost\nBecause", "card_lost"),
     ("no idea", ""), ("", "")],
)  # fmt: skip
def test_an_answer_is_read_by_name_and_alias(text: str, label: str) -> None:
    assert LABELS.parse(text) == ([label] if label else [])


@given(st.text())
@settings(max_examples=50, deadline=None)
def test_no_answer_breaks_the_reading_of_labels(text: str) -> None:
    assert set(LABELS.parse(text)) <= set(INTENTS)


def test_labels_in_several_places_are_compared_as_sets(tmp_path: Path) -> None:
    records = [make_record(n, sentence(n), label, label=label) for n, label in enumerate(["a|b", "b", "c|a"])]
    labels = find_labels(records, "|", {})
    assert labels.labels == ("a", "b", "c")
    said, gold = labels.parse("b|a|c"), labels.gold(records[0])
    assert (said, gold) == (["a", "b", "c"], ["a", "b"])
    pairs = [('["a", "b"]', '["a", "b", "c"]'), ('["b"]', '["b"]')]
    scores = multilabel.FORM.summarize(table(tmp_path, pairs), labels.labels)
    assert scores["f1_micro"] == pytest.approx(2 * 3 / (3 + 4))
    assert scores["f1_samples"] == pytest.approx((0.8 + 1) / 2)


def test_every_label_has_precision_recall_and_f1(tmp_path: Path) -> None:
    pairs = [("card_lost", "card_lost"), ("card_lost", "exchange_rate"), ("exchange_rate", "exchange_rate")]
    by_label = {one.label: one for one in classification.FORM.scores_per_class(table(tmp_path, pairs), INTENTS)}
    assert vars(by_label["card_lost"]) == {"label": "card_lost", "precision": 1, "recall": 0.5,
                                           "f1": pytest.approx(2 / 3), "records": 2}  # fmt: skip
    assert by_label["card_arrival"].records == 0


def test_an_alias_of_no_label_is_refused() -> None:
    with pytest.raises(DataError, match="no record has that label"):
        LabelSet(labels=("a", "b"), answers=(), aliases={"x": "c"})


def test_generated_answers_are_measured_against_their_reference() -> None:
    same = generation.measure("The card is lost.", "the card is lost", "")
    assert (same["exact_match"], same["token_f1"]) == (1, 1)
    assert match("lost card", "my card").f1 == pytest.approx(0.5)
    found = generation.measure('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', r"\{.*\}")
    assert (found["json_valid"], found["json_equal"], found["pattern"]) == (1, 1, 1)
    assert not same_json("{", "{}")
    assert generation.measure("no", '{"a": 1}', "")["json_valid"] == 0


def test_texts_are_measured_as_the_libraries_measure_them() -> None:
    found = generation.measure("the cat sat", "the cat sat down", "")
    assert found["rouge_l"] == pytest.approx(2 * 1 * 0.75 / 1.75)
    assert found["chrf"] == pytest.approx(
        sacrebleu.CHRF().sentence_score("the cat sat", ["the cat sat down"]).score / 100
    )
    assert corpus_bleu(["a b c d e"], ["a b c d e"]) == pytest.approx(1)
    assert corpus_bleu(["a b c d x", "y"], ["a b c d e", "y"]) == pytest.approx(
        sacrebleu.BLEU().corpus_score(["a b c d x", "y"], [["a b c d e", "y"]]).score / 100
    )
    assert generation.measure("yes", "no", r"yes|no")["pattern"] == 1
    assert generation.measure("yes, I do", "no", r"yes|no")["pattern"] == 0


def test_latency_is_told_by_its_median_its_95th_percentile_and_tokens_per_second(tmp_path: Path) -> None:
    samples = [
        Sample(axis="customer", subject="a", item_id=str(n), prompt_hash="x", latency_seconds=n / 10, num_tokens=5,
               truncated=n == 7) for n in range(101)
    ]  # fmt: skip
    write_part(str(tmp_path / "part"), samples)
    scores = latency_scores(read_part(str(tmp_path / "part")))
    assert scores["latency_p50_seconds"] == pytest.approx(5.0)
    assert scores["latency_p95_seconds"] == pytest.approx(9.5)
    assert scores["tokens_per_second"] == pytest.approx(505 / 505)
    assert scores["truncated_ratio"] == pytest.approx(1 / 101)


@pytest.mark.parametrize("method", ["logprobs", "generation"])
def test_macro_f1_of_an_evaluated_model_is_scikit_learns(world: Any, tmp_path: Path, method: str) -> None:
    options = {"method": method, "max_new_tokens": 12, "aliases": {"i": "card_arrival", "my": "card_lost"}}
    found = evaluate(world, tmp_path / "out", benchmarks={}, customer_options=options)
    table = found.table("customer")
    truth = {record["id"]: record["label"] for record in customer_records(24, 100)}
    gold = [truth[item] for item in table["item_id"].to_pylist()]
    said = table["prediction"].to_pylist()
    labels = sorted({*gold, *said} - {""})
    expected = sk.f1_score(gold, said, labels=labels, average="macro", zero_division=0)
    assert found.axes["customer"].score == pytest.approx(expected, abs=1e-12)
    compared = {axis.axis: axis for axis in compare(tmp_path / "out", tmp_path / "out", tmp_path).axes}
    assert compared["customer"].measure.base == pytest.approx(expected, abs=1e-12)


def test_labels_by_generation_and_records_without_labels_are_evaluated(world: Any, tmp_path: Path) -> None:
    options = {"method": "generation", "max_new_tokens": 4}
    named = evaluate(world, tmp_path / "named", benchmarks={}, customer_options=options)
    scores = named.axes["customer"].scores
    assert {"invalid_ratio", "latency_p50_seconds", "latency_p95_seconds", "tokens_per_second"} <= set(scores)
    free = [make_record(n, sentence(n), sentence(n + 1)) for n in range(6)]
    world_free = type(
        "W", (), {**vars(world), "customer": write_pools(tmp_path / "pools", {"customer": {"test": free}})}
    )
    found = evaluate(world_free, tmp_path / "free", benchmarks={}, customer_options={"max_new_tokens": 4})
    assert found.axes["customer"].form == "generation"
    assert {"rouge_l", "chrf", "bleu", "token_f1", "exact_match"} <= set(found.axes["customer"].scores)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"method": "guess"}, "there are auto"), ({"pattern": "("}, "no regular expression"), ({"max_new_tokens": 0}, "1 or more")],
)  # fmt: skip
def test_bad_options_are_refused(world: Any, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        evaluate(world, tmp_path / "out", benchmarks={}, customer_options=options)
