"""The report of several candidates: their plots, and what each gained, forgot and cost, in tables."""

from html import escape
from itertools import groupby
from typing import Any

from mixtune.choose import costs
from mixtune.choose.points import Point, better
from mixtune.report import charts, pages
from mixtune.results import CUSTOMER_AXIS, FAIL

HEADER = ["candidate", "verdict", "steps", "tokens", "training", "cost", "customer", "gain", "worst general loss"]
DIAL_HEADER = ["candidate", "strength", "verdict", "customer", "gain", "worst general loss"]
_DIAL = (
    "The same models drawn back towards the base, without training: strength 0 is the base, 1 the model as trained. "
    "In the plots they lie on the dotted curves."
)
_WHISKERS = "Whiskers are 95 % bounds of the difference from the base model, paired by item."


def write_points(
    title: str,
    points: list[Point],
    turned: list[Point],
    verdict: str,
    reason: str,
    command: str = "",
    *,
    html: str,
    markdown: str,
) -> None:
    """Write the report.

    Args:
        title: Of the page.
        points: The candidates as they were trained.
        turned: The same at lower strengths; may be none.
        verdict: Of the whole.
        reason: In a sentence, which one to take.
        command: What makes that one, if it has still to be made.
        html: Where the page goes.
        markdown: Where the tables go.
    """
    pages.write_text(html, pages.page(title, _body(title, points, turned, verdict, reason, command)))
    cost = costs.total([point.cost for point in points])
    made = [f"    {command}", ""] if command else []
    rows = [_base_row(next(point for point in points if point.axes)), *map(_row, points)]
    lines = [f"# {title}", "", reason, "", *made, pages.markdown_table(HEADER, rows), "", cost]
    lines += ["", *(f"- {text}" for text in _advice([*points, *turned]))]
    if turned:
        lines += ["", "## Turned down", "", pages.markdown_table(DIAL_HEADER, [_dial_row(point) for point in turned])]
    pages.write_text(markdown, "\n".join(lines) + "\n")


def _body(title: str, points: list[Point], turned: list[Point], verdict: str, reason: str, command: str) -> str:
    trained = [point for point in points if point.axes]
    plots = [_plot(name, trained, turned) for name in trained[0].axes if name != CUSTOMER_AXIS]
    advice = "".join(f"<li>{escape(text)}</li>" for text in _advice([*points, *turned]))
    cost = costs.total([point.cost for point in points])
    made = f"<pre>{escape(command)}</pre>" if command else ""
    table = _table(HEADER, [_base_row(trained[0]), *map(_row, points)])
    dial = ""
    if turned:
        dial = f"<h2>Turned down</h2><p class='note'>{_DIAL}</p>{_table(DIAL_HEADER, map(_dial_row, turned))}"
    return (
        f"<h1>{escape(title)}</h1><p class='summary {verdict}'>{escape(reason)}</p>{made}"
        f"{table}<p class='note'>{escape(cost)}</p><ul>{advice}</ul>"
        f"{''.join(plots)}<p class='note'>{_WHISKERS}</p>{dial}"
    )


def _table(header: list[str], rows: Any) -> str:
    """Rows whose verdict, if they have one, is marked."""
    place = header.index("verdict")
    cells = [[escape(cell) for cell in row] for row in rows]
    for row in cells:
        row[place] = row[place] and f'<span class="verdict {row[place]}">{row[place]}</span>'
    return pages.table(header, cells)


def _plot(name: str, trained: list[Point], turned: list[Point]) -> str:
    axes = {axis: trained[0].axes[axis] for axis in (name, CUSTOMER_AXIS)}
    base = (float(axes[name]["base"]), float(axes[CUSTOMER_AXIS]["base"]))
    right, up = (_title(axis, found) for axis, found in axes.items())
    marks = {point.percent: _mark(point, name, point.name) for point in trained}
    seen = groupby((point for point in turned if point.axes), key=lambda point: point.percent)
    curves = [[*(_mark(one, name, f"{one.strength:g}") for one in group), marks[key]] for key, group in seen]
    drawn = charts.frontier([_mark(point, name, point.name) for point in trained], base, (right, up), curves)
    return f"<h2>{escape(name)}</h2>{drawn}"


def _title(name: str, axis: dict[str, Any]) -> str:
    return f"{name} ({axis['metric']}{'' if axis['higher_is_better'] else ', less is better'})"


def _mark(point: Point, axis: str, name: str) -> charts.Mark:
    general, customer = point.axes[axis], point.axes[CUSTOMER_AXIS]
    return charts.Mark(
        name=name,
        x=float(general["candidate"]),
        y=float(customer["candidate"]),
        x_span=_span(general),
        y_span=_span(customer),
        verdict=point.verdict,
    )


def _span(axis: dict[str, Any]) -> tuple[float, float]:
    """The candidate's score at both bounds of its difference."""
    scale = float(axis["base"]) if axis["relative"] else 1.0
    return float(axis["base"]) + scale * float(axis["lower"]), float(axis["base"]) + scale * float(axis["upper"])


def _row(point: Point) -> list[str]:
    work = [f"{point.num_steps:,}", f"{point.num_tokens:,}", *costs.said(point.cost)]
    return [point.name, point.verdict, *work, *_scores(point)]


def _base_row(point: Point) -> list[str]:
    """The base model, which every point was compared with."""
    return ["base model", *[""] * (len(HEADER) - 4), f"{point.axes[CUSTOMER_AXIS]['base']:.3f}", "", ""]


def _dial_row(point: Point) -> list[str]:
    return [f"{point.percent:g} %", f"{point.strength:g}", point.verdict, *_scores(point)]


def _scores(point: Point) -> list[str]:
    """Customer's score, gain, and the general axis that lost most of what it may lose."""
    if not point.axes:
        return ["", "", ""]
    general = [axis for name, axis in point.axes.items() if name != CUSTOMER_AXIS]
    worst = min(general, key=lambda axis: better(axis) / (axis["limit"] or 1.0))
    scale = f"{worst['difference']:+.2%}" if worst["relative"] else f"{worst['difference']:+.3f}"
    customer = point.axes[CUSTOMER_AXIS]["candidate"]
    return [f"{customer:.3f}", f"{point.gain:+.3f}", f"{worst['axis']} {scale}"]


def _advice(points: list[Point]) -> list[str]:
    """What to do about the points that did not pass; of one that failed, its reason."""
    told = []
    for point in points:
        failed = [
            axis["advice"] for name, axis in point.axes.items() if name != CUSTOMER_AXIS and axis["verdict"] == FAIL
        ]
        advice = failed if point.strength == 1 else []
        told += [f"{point.name}: {text}" for text in [point.reason, *advice] if text]
    return told
