"""Advice on an axis: it says what the items can show, and never asks for what it says is there."""

from dataclasses import replace

import pytest

from mixtune.artifacts.comparison import INCONCLUSIVE, PASS, SUPERIORITY, AxisVerdict, ItemCounts, Measure
from mixtune.compare import paired_stats
from mixtune.compare.advice import advise
from mixtune.evaluate.power import detectable_loss, pass_rate

from ..comparisons import make_axis


def undecided(difference: float, error: float, limit: float, total: int) -> AxisVerdict:
    change = paired_stats.estimate(difference, error)
    measure = Measure(metric="accuracy", base=0.5, candidate=0.5 + difference, change=change)
    axis = make_axis("mmlu", INCONCLUSIVE, 0.5 + difference)
    return replace(
        axis, limit=limit, measures=(measure,), detectable=detectable_loss(error),
        items=ItemCounts(total=total), power=pass_rate(limit, error),
    )  # fmt: skip


def test_items_that_are_enough_are_not_asked_for_again() -> None:
    text = advise(undecided(-0.0069, 0.0028, 0.01, 12_343))
    assert "between 0.00229 and 0.0115, and 0.01 is allowed: 12,343 items cannot tell" in text
    assert "an unchanged model passes in 97 % of such runs" in text
    assert "The items are enough, the loss is close to the allowed one" in text and "too few" not in text


@pytest.mark.parametrize("limit", [0.02, 0.05])
def test_items_that_are_too_few_are_told_by_number(limit: float) -> None:
    text = advise(undecided(-0.001, 0.0402, limit, 100))
    needed = int(text.split("about ")[1].split(", or")[0].replace(",", ""))
    assert needed == pytest.approx(100 * (2.4865 * 0.0402 / limit) ** 2, rel=0.1)
    assert "They are too few" in text and "enough" not in text


def test_no_number_of_items_shows_that_nothing_was_lost() -> None:
    assert "allow a loss above 0" in advise(undecided(-0.001, 0.01, 0.0, 100))


def test_a_gain_that_is_not_proved_says_which_one_would_be() -> None:
    axis = replace(undecided(0.01, 0.01, 0.0, 200), question=SUPERIORITY)
    assert "+0.01 on 200 records, which show a gain of 0.0249 in 80 % of such runs" in advise(axis)
    assert "about 1,300 records prove it" in advise(axis)


def test_answers_that_were_cut_and_thoughts_that_never_ended_are_told() -> None:
    counts = ItemCounts(total=100, base_truncated=3, candidate_truncated=40, candidate_unfinished=12)
    text = advise(replace(undecided(-0.01, 0.02, 0.02, 100), items=counts, max_new_tokens=256))
    assert "3 of the base's and 40 of the candidate's were cut at max_new_tokens 256: raise it." in text
    assert "12 of the candidate never ended" in text


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"base_truncated": 9, "candidate_truncated": 10}, "9 of the base's and 10 of the candidate's were cut at max_new_tokens 256: raise it."),
        ({"candidate_truncated": 9}, ""),
        ({"base_unfinished": 10}, "10 thoughts of the base and 0 of the candidate never ended"),
        ({"base_unfinished": 9}, ""),
    ],
)  # fmt: skip
def test_a_pass_with_many_answers_cut_is_told(counts: dict[str, int], words: str) -> None:
    axis = replace(undecided(0.0, 0.001, 0.02, 100), verdict=PASS, max_new_tokens=256)
    text = advise(replace(axis, items=ItemCounts(total=100, **counts)))
    assert words in text and bool(text) is bool(words)


def test_a_pass_on_an_axis_where_the_base_has_nothing_to_lose_is_told() -> None:
    axis = replace(undecided(0.0, 0.001, 0.02, 500), verdict=PASS)
    assert advise(axis) == ""
    floor = replace(axis, measures=(replace(axis.measure, base=0.004),))
    assert "the base itself scores 0.004, so no more than the 0.02 that is allowed can be lost" in advise(floor)
