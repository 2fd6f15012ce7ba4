"""Of two base models the surely better one on the customer's records is taken, else the cheaper one; pairs are items."""

import html
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from mixtune.artifacts.comparison import Estimate, Measure
from mixtune.artifacts.model_choice import AxisContest, ModelChoice, PricedModel
from mixtune.artifacts.samples import Samples
from mixtune.errors import DataError
from mixtune.model_choice.choice_page import write_choice
from mixtune.model_choice.contest import choose, hold_contest, pair_items, price_model
from mixtune.prices import read_prices
from mixtune.settings.serving import ServeSettings

FIRST = PricedModel(name="a#1", serving="", usd_per_hour=2.0, evaluation_seconds=1)
OTHER = PricedModel(name="b#2", serving="", usd_per_hour=1.0, evaluation_seconds=1)
CHANGE = Estimate(difference=0.0, standard_error=0.1, lower=-0.1, upper=0.1)
EVEN = AxisContest(
    axis="customer",
    num_items=9,
    better="",
    measure=Measure(metric="macro_f1", base=0.5, candidate=0.5, change=CHANGE),
)


def test_the_better_model_is_taken_whatever_it_costs_and_of_equals_the_cheaper() -> None:
    assert choose(replace(EVEN, better="a#1"), (FIRST, OTHER))[0] == "a#1"
    assert choose(EVEN, (FIRST, OTHER)) == (
        "b#2", "neither is surely better on the customer's records, and it is cheaper to serve",
    )  # fmt: skip
    unknown = replace(OTHER, usd_per_hour=None)
    assert choose(EVEN, (FIRST, unknown))[0] == "a#1"
    assert "more items would tell" in choose(EVEN, (FIRST, unknown))[1]


def test_pairs_are_the_items_that_both_were_asked() -> None:
    first = pa.table({"item_id": ["c", "a", "b"], "nll": [3.0, 1.0, 2.0]})
    other = pa.table({"item_id": ["b", "d", "c"], "nll": [20.0, 40.0, 30.0]})
    left, right = pair_items(first, other)
    assert left["item_id"].to_pylist() == right["item_id"].to_pylist() == ["b", "c"]
    assert (left["nll"].to_pylist(), right["nll"].to_pylist()) == ([2.0, 3.0], [20.0, 30.0])
    with pytest.raises(DataError, match="twice"):
        pair_items(first, pa.table({"item_id": ["a", "a"], "nll": [1.0, 1.0]}))


def test_evaluations_that_differ_in_more_than_the_model_prove_nothing() -> None:
    first = Samples(axes={}, limit=0)
    other = replace(first, identity=replace(first.identity, customer="c2"))
    with pytest.raises(DataError, match="another customer"):
        hold_contest((first, other), (FIRST, OTHER))
    with pytest.raises(DataError, match="give test_uri"):
        hold_contest((first, first), (FIRST, OTHER))


def test_a_price_that_cannot_be_known_is_said_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    priced = price_model(str(tmp_path), Samples(), ServeSettings(), read_prices())
    assert priced.usd_per_hour is None and "no .safetensors file" in priced.serving


def test_the_page_says_which_model_to_take_at_what_price_and_why(tmp_path: Path) -> None:
    first, other = replace(FIRST, name=f"/models/small#{32 * '1'}"), replace(OTHER, name="org/large@v1")
    better = replace(EVEN, better=first.name, measure=replace(EVEN.measure, base=0.7))

    def page(axis: AxisContest, other: PricedModel) -> str:
        chosen, reason = choose(axis, (first, other))
        choice = ModelChoice(first=first, other=other, axes=(axis,), chosen=chosen, reason=reason)
        write_choice(choice, str(tmp_path / "page"), str(tmp_path / "summary"))
        return html.unescape((tmp_path / "page").read_text())

    text = page(better, other)
    assert "<h1>Take small, at $2.00 an hour</h1>" in text and 'class="summary pass"' in text
    assert "surely better on the customer's records: macro_f1 0.700 against 0.500 on 9 items" in text
    assert "small costs $2.00 an hour to serve, large $1.00 an hour" in text
    assert "mixtune run finetune --like" in text and "base_model=/models/small" in text
    assert "<h1>Take large, at $1.00 an hour</h1>" in page(EVEN, other)
    tie = page(EVEN, replace(other, usd_per_hour=2.0))
    assert "<h1>small or large: nothing tells them apart</h1>" in tie and 'class="summary inconclusive"' in tie
    assert "/models/small or /other/small:" in page(EVEN, replace(other, name="/other/small", usd_per_hour=None))
