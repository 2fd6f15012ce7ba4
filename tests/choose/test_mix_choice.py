"""Several mixes side by side: which model is taken, what the dial says, and what the trainings cost."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.comparison import AxisVerdict, DialVerdict
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.choose.costs import describe_total, format_cost, training_cost
from mixtune.choose.mix_choice import Outputs, report_grid
from mixtune.errors import DataError, TrainingError
from mixtune.report import charts

from ..comparisons import make_axis, make_comparison, make_mix
from ..trainings import write_model_manifest


def axes(gain: float, kept: bool, certain: bool = True) -> list[AxisVerdict]:
    general = make_axis("mmlu", "pass", 0.5) if kept else make_axis("mmlu", "fail", 0.4, advice="more general records")
    return [general, make_axis("customer", "pass" if certain else "inconclusive", 0.5 + gain)]


def at_strength(strength: float, gain: float, kept: bool, certain: bool = True) -> DialVerdict:
    return DialVerdict(strength=strength, verdict="pass" if kept else "fail", axes=tuple(axes(gain, kept, certain)))


class Grid:
    """Comparisons in a folder, and the report that is made of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[str] = []

    def add(self, percent: float, gain: float, *dial: DialVerdict, kept: bool, **changes: Any) -> None:
        uri = f"{self.folder}/{percent:g}/data/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1"
        figures = {"verdict": "pass" if kept else "fail", "axes": tuple(axes(gain, kept)), "model_uri": uri, **changes}
        comparison = replace(make_comparison("pass", mix=make_mix(percent), dial=dial), **figures)
        self.paths.append(str(self.folder / f"comparison-{percent:g}"))
        write_artifact(self.paths[-1], comparison)

    def trained(self, percent: float, **figures: Any) -> None:
        """What a training leaves beside its model."""
        (self.folder / f"{percent:g}").mkdir()
        write_model_manifest(str(self.folder / f"{percent:g}" / "model"), **figures)

    def report(self, **tracking: Any) -> GridReport:
        places = {name: str(self.folder / name) for name in ("json_path", "html_path", "markdown_path")}
        report = report_grid(self.paths, Outputs(**places), tracking)
        assert read_artifact(GridReport, places["json_path"]) == report
        return report

    def page(self) -> str:
        return (self.folder / "html_path").read_text()


@pytest.fixture
def grid(tmp_path: Path) -> Grid:
    return Grid(tmp_path)


def test_the_mix_that_gained_most_of_those_that_passed_is_taken_as_it_was_trained(grid: Grid) -> None:
    grid.add(50, 0.1, kept=True)
    grid.add(100, 0.4, at_strength(0.5, 0.3, kept=True), kept=False)
    grid.add(75, 0.25, at_strength(0.5, 0.1, kept=True), kept=True)
    report = grid.report()
    best = report.recommended
    assert best and (report.verdict, best.percent, best.strength, best.command) == ("pass", 75, 1, "")
    assert best.model_uri.endswith("/75/data/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1")
    assert "Take 75 %: the largest gain on the customer's records (accuracy +0.250)" in report.reason
    assert "100 % forgot more than is allowed" in report.reason
    assert "Turned down, more is gained and passes too: 100 % at 0.5 (+0.300)" in report.reason
    assert [candidate.name for candidate in report.candidates] == ["100 %", "75 %", "50 %"]


def test_of_mixes_whose_gains_are_tied_the_one_that_forgot_least_is_taken_and_the_tie_is_said(grid: Grid) -> None:
    forgetful = (make_axis("customer", "pass", 0.775), make_axis("mmlu", "pass", 0.49))
    grid.add(75, 0.275, kept=True, axes=forgetful)
    grid.add(50, 0.25, kept=True)
    grid.add(25, 0.1, kept=True)
    report = grid.report()
    assert report.recommended and report.recommended.name == "50 %"
    assert (
        "Take 50 %: its gain on the customer's records (accuracy +0.250) is tied with that of 75 % (+0.275)"
        in report.reason
    )
    assert "mmlu: 0.010" in grid.page() and "+0.250 (+0.200 to +0.300)" in grid.page()


def test_where_no_mix_passed_as_trained_the_best_that_passed_turned_down_is_taken_and_said_so(grid: Grid) -> None:
    grid.add(100, 0.4, at_strength(0.25, 0.1, kept=True), at_strength(0.5, 0.2, kept=True), kept=False)
    grid.add(75, 0.3, at_strength(0.25, 0.3, kept=False), kept=False)
    report = grid.report()
    best = report.recommended
    assert best and (report.verdict, best.name, best.percent, best.strength) == ("pass", "100 % at 0.5", 100, 0.5)
    assert "No mix passed as it was trained. Take 100 % turned down to 0.5: accuracy +0.200" in report.reason
    command = f"mixtune dial {grid.folder}/100/data/model --base-model BASE --strength 0.5 --out FOLDER"
    assert best.command == command
    assert f"<pre>{command}</pre>" in grid.page()


def test_what_passes_only_because_it_is_nearly_the_base_is_not_taken(grid: Grid) -> None:
    grid.add(100, 0.4, at_strength(0.1, 0.01, kept=True, certain=False), kept=False)
    report = grid.report()
    assert (report.verdict, report.recommended) == ("fail", None)
    assert "No mix passed; try less than 100 %" in report.reason


def test_a_grid_whose_items_were_too_few_is_undecided_and_its_page_proposes_more_of_them(grid: Grid) -> None:
    grid.add(100, 0.4, kept=False)
    grid.add(50, 0.4, kept=False, verdict="inconclusive", limit=60)
    report = grid.report()
    assert (report.verdict, report.recommended) == ("inconclusive", None)
    assert (
        "No mix passed; try less than 50 % customer records. Inconclusive, more items would tell: 50 %" in report.reason
    )
    assert "evaluate_options.limit=0" in grid.page()


def test_the_dial_is_a_table_and_a_dotted_curve_from_the_base_to_the_mix(grid: Grid) -> None:
    grid.add(100, 0.4, at_strength(0.25, 0.1, kept=True), at_strength(0.5, 0.2, kept=False), kept=False)
    grid.add(50, 0.2, DialVerdict(strength=0.5, verdict="failed", reason="no memory"), kept=True)
    grid.report()
    page = grid.page()
    assert page.count("<polyline") == 1, "one mix has a curve, the other's dial failed"
    assert len(page.split('points="')[1].split('"')[0].split()) == 4
    assert "<h2>Turned down</h2>" in page and "50 % at 0.5: no memory" in page
    assert (
        "| 100 % | 0.25 | pass | 0.600 | +0.100 (+0.050 to +0.150) | none |"
        in (grid.folder / "markdown_path").read_text()
    )


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.003, 0.998), (0.624, 7.622), (1e-4, 3e-4), (0.5, 0.5)])
def test_a_plot_is_ruled_at_a_few_round_numbers_within_it(low: float, high: float) -> None:
    ticks = charts.ticks(low, high)
    assert 1 <= len(ticks) <= 6
    assert all(low <= tick <= high and len(f"{tick:g}") <= 7 for tick in ticks)


def test_texts_in_a_plot_lie_neither_on_one_another_nor_on_points() -> None:
    points = [(100.0, 100.0), (103.0, 100.0), (300.0, 100.0)]
    drawing = charts.Drawing()
    labels = charts._Labels(drawing, points)
    for x, y in points:
        labels.add(x, y, "0.75", "red")
    places = set(re.findall(r'x="([\d.]+)" y="([\d.]+)" text-anchor="(\w+)"', "".join(drawing.parts)))
    assert len(places) == len(drawing.parts) >= 2
    drawing = charts.Drawing()
    grid = [(100.0 + dx, 100.0 + dy) for dx in range(-40, 41, 8) for dy in range(-24, 25, 8)]
    crowded = charts._Labels(drawing, grid)
    crowded.add(100.0, 100.0, "0.75", "red")
    assert not drawing.parts
    crowded.add(100.0, 100.0, "75 %: pass", "red", always=True)
    assert drawing.parts


def test_without_a_dial_there_is_neither_table_nor_curve(grid: Grid) -> None:
    grid.add(50, 0.2, kept=True)
    grid.report()
    assert "Turned down" not in grid.page() and "<polyline" not in grid.page()


def test_a_training_costs_dollars_where_its_machines_have_a_price_else_hours(grid: Grid) -> None:
    grid.add(100, 0.4, kept=True)
    grid.add(50, 0.2, kept=True)
    grid.trained(100, seconds=3600.0, num_processes=32, num_gpus=32)
    grid.trained(50, seconds=7200.0, num_processes=32, num_gpus=32)
    costs = [candidate.cost for candidate in grid.report(hyperpod="4x-p5.48xlarge").candidates]
    assert [cost and cost.usd for cost in costs] == [220.16, 440.32]
    assert "$220.16" in grid.page() and "The trainings cost $660.48; validation runs" in grid.page()
    costs = [candidate.cost for candidate in grid.report(hyperpod="4x-unheard-of").candidates]
    assert [cost and (cost.usd, cost.hours) for cost in costs] == [(None, 32), (None, 64)]
    assert "The trainings cost 96.0 GPU-hours" in grid.page() and "No price is known" in grid.page()


def test_hours_on_cpus_are_said_as_such_and_a_training_elsewhere_costs_nobody_knows_what(grid: Grid) -> None:
    grid.trained(75, seconds=90.0, num_processes=2, num_gpus=0)
    cost = training_cost(f"{grid.folder}/75/data/model#d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1", None)
    assert format_cost(cost) == ["1.5 min", "0.05 CPU-hours"]
    assert training_cost("s3://elsewhere/model", 10.0) is None and training_cost("", 10.0) is None
    assert describe_total([None, None]) == ""
    assert describe_total([None, cost]).startswith("The trainings cost 0.05 CPU-hours")


def test_a_mix_whose_training_failed_is_told_and_the_others_count(grid: Grid) -> None:
    grid.add(100, 0.0, kept=False, verdict="failed", reason="step 3: the loss is not finite", axes=(), model_uri="")
    grid.add(50, 0.2, kept=True)
    best = grid.report().recommended
    assert best and best.percent == 50
    assert "100 %: step 3: the loss is not finite" in grid.page()


def test_a_grid_without_one_model_is_an_error_and_so_is_a_comparison_without_its_mix(grid: Grid) -> None:
    grid.add(100, 0.0, kept=False, verdict="failed", reason="no memory", axes=(), model_uri="")
    with pytest.raises(TrainingError, match=r"no mix could be trained \(100 %: no memory\)"):
        grid.report()
    grid.add(50, 0.2, kept=True, mix=None)
    with pytest.raises(DataError, match="compared without shards"):
        grid.report()
