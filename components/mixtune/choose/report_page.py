"""The report of several candidates: their plots, and what each gained, forgot and cost, in tables."""

import os
from collections.abc import Iterable
from html import escape
from itertools import groupby

from mixtune import storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS, FAIL, AxisVerdict
from mixtune.artifacts.grid import GridReport
from mixtune.artifacts.ladder import LadderReport
from mixtune.artifacts.run_report import is_gain_proved, list_candidates
from mixtune.choose.costs import describe_total, format_cost
from mixtune.choose.points import Point, dial_points
from mixtune.report import charts, pages
from mixtune.report.next_steps import NextStep, known_arguments, next_steps, steps_html
from mixtune.report.pages import Verdict

HEADER = ["candidate", "verdict", "steps", "tokens", "training", "cost", "customer", "gain", "worst general loss"]
DIAL_HEADER = ["candidate", "strength", "verdict", "customer", "gain", "worst general loss"]
_DIAL = (
    "The same models drawn back towards the base, without training: strength 0 is the base, 1 the model as trained. "
    "In the plots they lie on the dotted curves."
)
_WHISKERS = (
    "Up and right is better. Whiskers are 95 % bounds of the difference from the base model, paired by item. Hollow "
    "points are the same models turned down towards the base."
)


def write_report(title: str, report: GridReport | LadderReport, *, html: str, markdown: str) -> None:
    """Write the report on candidates, at least one of which has a model, to two paths."""
    candidates = list_candidates(report)
    points, at_strengths = [Point(candidate=item) for item in candidates], dial_points(candidates)
    compared = [point for point in points if point.axes]
    cost = describe_total(item.cost for item in candidates)
    command = report.recommended.command if report.recommended else ""
    advice = list(_advise(points, at_strengths))
    base = f"{compared[0].axes[CUSTOMER_AXIS].measure.base:.3f}"  # the same for every candidate
    rows = [["base model", *[""] * (len(HEADER) - 4), base, "", ""], *map(_row, points)]
    dial_rows = [
        [point.candidate.name, f"{point.strength:g}", Verdict(point.verdict), *_scores(point)] for point in at_strengths
    ]

    plots = [_plot(name, compared, at_strengths) for name in compared[0].axes if name != CUSTOMER_AXIS]
    body = [
        f"<h1>{escape(title)}</h1><p class='summary {report.verdict}'>{escape(report.reason)}</p>",
        f"<pre>{escape(command)}</pre>" if command else "",
        pages.table(HEADER, rows),
        f"{pages.note(cost)}{pages.bullets(advice)}",
        steps_html(_next_steps(report)),
        pages.note(_WHISKERS),
        *plots,
        _models(points),
        f"<h2>Turned down</h2>{pages.note(_DIAL)}{pages.table(DIAL_HEADER, dial_rows)}" if dial_rows else "",
    ]
    pages.write_text(html, pages.page(title, "".join(body)))

    lines = [f"# {title}", "", report.reason, "", *([f"    {command}", ""] if command else [])]
    lines += [pages.markdown_table(HEADER, rows), "", cost, "", *(f"- {text}" for text in advice)]
    if dial_rows:
        lines += ["", "## Turned down", "", pages.markdown_table(DIAL_HEADER, dial_rows)]
    pages.write_text(markdown, "\n".join(lines) + "\n")


def _next_steps(report: GridReport | LadderReport) -> list[NextStep]:
    """Return what to do, with as much of the run's arguments as its candidates tell."""
    arguments = known_arguments([item.comparison for item in list_candidates(report)])
    return next_steps(report.verdict, os.environ.get("MIXTUNE_RUN_ID", ""), arguments, gained=is_gain_proved(report))


def _plot(name: str, compared: list[Point], at_strengths: list[Point]) -> str:
    """Return the plot of one general axis; models at lower strengths lie on a curve to their candidate."""
    general, customer = (compared[0].axes[axis] for axis in (name, CUSTOMER_AXIS))
    marks = [_mark(point, name, point.name) for point in compared]
    by_candidate = {point.candidate.name: mark for point, mark in zip(compared, marks, strict=True)}
    curves = [
        [*(_mark(point, name, f"{point.strength:g}") for point in group), by_candidate[candidate]]
        for candidate, group in groupby(
            (point for point in at_strengths if point.axes), key=lambda point: point.candidate.name
        )
    ]
    base = general.measure.base, customer.measure.base
    titles, backwards = (_title(general), _title(customer)), not general.measure.higher_is_better
    return f"<h2>{escape(name)}</h2>{charts.frontier(marks, base, titles, curves, less_is_right=backwards)}"


def _title(axis: AxisVerdict) -> str:
    backwards = "" if axis.measure.higher_is_better else ", less is better: it runs backwards"
    return f"{axis.axis} ({axis.measure.metric}{backwards})"


def _mark(point: Point, axis: str, name: str) -> charts.Mark:
    general, customer = point.axes[axis], point.axes[CUSTOMER_AXIS]
    return charts.Mark(
        name=name,
        x=general.measure.candidate,
        y=customer.measure.candidate,
        x_span=_span(general),
        y_span=_span(customer),
        verdict=point.verdict,
    )


def _span(axis: AxisVerdict) -> tuple[float, float]:
    """Return the candidate's score at both bounds of its difference."""
    measure = axis.measure
    scale = measure.base if measure.relative else 1.0
    return measure.base + scale * measure.change.lower, measure.base + scale * measure.change.upper


def _row(point: Point) -> list[str]:
    mix = point.candidate.mix
    work = [f"{mix.num_steps:,}", f"{mix.receipt.num_tokens:,}", *format_cost(point.candidate.cost)]
    return [point.name, Verdict(point.verdict), *work, *_scores(point)]


def _scores(point: Point) -> list[str]:
    """Return the customer's score, the gain, and the general axis that lost most of what it may lose."""
    if not point.axes:
        return ["", "", ""]
    customer = point.axes[CUSTOMER_AXIS].measure
    gain = f"{point.gain:+.3f} ({customer.benefit.lower:+.3f} to {customer.benefit.upper:+.3f})"
    return [f"{customer.candidate:.3f}", gain, _worst_loss(point)]


def _worst_loss(point: Point) -> str:
    """Return the general axis that lost most of what it may lose, and how much; `none` where all gained."""
    worst = point.worst_axis
    if worst is None or worst.measure.benefit.difference >= 0:
        return "none"
    loss = -worst.measure.benefit.difference
    return f"{worst.axis}: {loss:.2%}" if worst.measure.relative else f"{worst.axis}: {loss:.3f}"


def _models(points: list[Point]) -> str:
    """Return where the models lie, by candidate."""
    rows = [[point.name, storage.plain_uri(point.candidate.comparison.model_uri)] for point in points]
    return f"<h2>Models</h2>{pages.table(['candidate', 'folder'], [row for row in rows if row[1]], texts=2)}"


def _advise(points: list[Point], at_strengths: list[Point]) -> Iterable[str]:
    """Yield why a model is missing, and what to do about candidates that did not pass."""
    for point in [*points, *at_strengths]:
        if point.reason:
            yield f"{point.name}: {point.reason}"
        if point.dial is None:
            for name, axis in point.axes.items():
                if name != CUSTOMER_AXIS and axis.verdict == FAIL and axis.advice:
                    yield f"{point.name}: {axis.advice}"
