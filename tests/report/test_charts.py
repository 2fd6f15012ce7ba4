"""Plots say what they show, whatever the values."""

import html
import re

import pytest

from mixtune.report.charts import Curve, curves
from mixtune.report.pages import key_value_table


@pytest.mark.parametrize(
    "points",
    [((1, 2.5),), ((1, 2.0), (2, 2.0)), ((0, 3.1), (50, 1.2), (100, 0.9)), ((7, -1e-9), (7000, 1e6))],
    ids=["one point", "no change", "a training", "far apart"],
)
def test_a_curve_stays_in_its_drawing_and_is_named_with_its_last_value(points: tuple[tuple[float, float], ...]) -> None:
    lines = [Curve(name="<chat>", points=points), Curve(name="held out", points=points, dashed=True)]
    svg = curves(lines, "nats a token", form=".3g")
    width, height = map(float, re.search(r'viewBox="0 0 (\S+) (\S+)"', svg).groups())  # type: ignore[union-attr]
    places = [
        tuple(map(float, pair.split(","))) for line in re.findall(r'points="(.*?)"', svg) for pair in line.split()
    ]
    assert len(places) == 2 * len(points)
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    assert f"&lt;chat&gt; {points[-1][1]:.3g}" in svg and svg.count("stroke-dasharray") == 1


def test_a_table_writes_lists_and_objects_as_arguments_are_written() -> None:
    pools = [{"category": "chät", "uri": "c.jsonl", "weight": 100}]
    text = html.unescape(key_value_table({"general_pools": pools, "mix_options": {"chat": {"on": True}}, "none": {}}))
    assert '[{"category": "chät", "uri": "c.jsonl", "weight": 100}]' in text and 'chat: {"on": true}' in text
