"""Plots as inline SVG: no script, no network."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape

from mixtune.report.pages import shortened

COLORS = {"pass": "#1a7f37", "fail": "#cf222e", "inconclusive": "#9a6700", "advisory": "#57606a"}
POOL_COLORS = ("#0969da", "#1a7f37", "#9a6700", "#cf222e", "#8250df", "#bf3989", "#57606a", "#1b7c83")
INK, MUTED, GRID = "#1f2328", "#57606a", "#d8dee4"
WIDTH = 900
LEFT = 285
"""Where the drawing begins, right of the names."""
RIGHT = 90
"""Room for numbers right of the drawing."""
REACH = 3.0
"""A forest plot ends at so many allowed losses; what is farther out is drawn at the edge, as an arrow."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of a forest plot, in allowed losses: -1 is where the allowed loss ends, more is better."""

    name: str
    value: float
    lower: float
    upper: float
    label: str
    """The difference in its own unit."""
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Dumbbell:
    """One line of a subject plot: a score before and after."""

    name: str
    base: float
    candidate: float
    higher_is_better: bool
    flagged: bool

    @property
    def color(self) -> str:
        """Green where the score got better, red where it got worse."""
        if self.base == self.candidate:
            return MUTED
        return COLORS["pass" if (self.candidate > self.base) is self.higher_is_better else "fail"]


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One point of a frontier plot: a general score to the right, the customer's upwards."""

    name: str
    x: float
    y: float
    x_span: tuple[float, float]
    y_span: tuple[float, float]
    verdict: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line over the steps of a training."""

    name: str
    points: Sequence[tuple[float, float]]
    """Step and value, from the left."""
    dashed: bool = False


class Drawing:
    """An SVG drawing that scales to its place; lengths are in its own units, WIDTH wide."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def text(self, x: float, y: float, text: str, anchor: str, color: str = INK, extra: str = "") -> None:
        """Add a text at a place."""
        place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
        self.parts.append(f'<text {place} fill="{color}"{extra}>{escape(text)}</text>')

    def line(self, start: tuple[float, float], end: tuple[float, float], color: str, extra: str = "") -> None:
        """Add a line."""
        place = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
        self.parts.append(f'<line {place} stroke="{color}" {extra}/>')

    def polyline(self, points: Iterable[tuple[float, float]], color: str, extra: str = "") -> None:
        """Add a line through several points."""
        corners = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self.parts.append(f'<polyline points="{corners}" fill="none" stroke="{color}" {extra}/>')

    def circle(self, x: float, y: float, radius: int, fill: str, extra: str = "") -> None:
        """Add a circle."""
        self.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{fill}"{extra}/>')

    def arrow(self, x: float, y: float, color: str, *, to_right: bool) -> None:
        """Add the tip of an arrow."""
        step = 9 if to_right else -9
        self.parts.append(
            f'<path d="M{x:.1f} {y - 7:.1f}L{x + step:.1f} {y:.1f}L{x:.1f} {y + 7:.1f}Z" fill="{color}"/>'
        )

    def render(self, height: float, title: str) -> str:
        """Return the drawing as SVG."""
        style = "font:13px system-ui,sans-serif;width:100%;height:auto"
        inner = f"<title>{escape(title)}</title>{''.join(self.parts)}"
        svg = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" style="{style}">{inner}</svg>'
        return f'<div class="scroll">{svg}</div>'


def forest(bars: Sequence[Bar]) -> str:
    """Draw differences with their intervals, one line each; the shaded part is more than the allowed loss."""
    drawing, row, top = Drawing(), 38, 30
    bottom = top + row * len(bars)

    def x(value: float) -> float:
        return LEFT + (min(max(value, -REACH), REACH) + REACH) / (2 * REACH) * (WIDTH - LEFT - RIGHT)

    drawing.parts.append(
        f'<rect x="{LEFT}" y="{top}" width="{x(-1) - LEFT:.1f}" height="{bottom - top}" fill="#ffebe9"/>'
    )
    for at, text, color in ((-1.0, "allowed loss", COLORS["fail"]), (0.0, "no change", MUTED)):
        drawing.line((x(at), top), (x(at), bottom), color, 'stroke-dasharray="4 3"')
        drawing.text(x(at), top - 10, text, "middle", MUTED)
    for index, bar in enumerate(bars):
        y, color = top + row * index + row / 2, COLORS[bar.verdict]
        drawing.text(LEFT - 12, y + 4, bar.name, "end")
        drawing.line((x(bar.lower), y), (x(bar.upper), y), color, 'stroke-width="3" stroke-linecap="round"')
        for end in (bar.lower, bar.upper):
            if abs(end) > REACH:
                drawing.arrow(x(end), y, color, to_right=end > 0)
        if abs(bar.value) <= REACH:
            drawing.circle(x(bar.value), y, 6, color)
        drawing.text(WIDTH - RIGHT + 12, y + 4, bar.label, "start", color)
    return drawing.render(bottom + 8, "Differences with their intervals")


def dumbbells(lines: Sequence[Dumbbell], low: float, high: float) -> str:
    """Draw scores before (hollow) and after (full), one line each; where less is better, `high` is less than `low`."""
    drawing, row, top = Drawing(), 19, 26
    bottom = top + row * len(lines)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    for tick in range(5):
        at = low + (high - low) * tick / 4
        drawing.line((x(at), top), (x(at), bottom), GRID)
        drawing.text(x(at), top - 8, f"{at:.2f}", "middle", MUTED)
    for index, line in enumerate(lines):
        y = top + row * index + row / 2
        weight, star = (' font-weight="700"', " *") if line.flagged else ("", "")
        drawing.text(LEFT - 12, y + 4, shortened(line.name, 44), "end", extra=weight)
        drawing.line((x(line.base), y), (x(line.candidate), y), line.color, 'stroke-width="2.5"')
        drawing.circle(x(line.base), y, 4, "#fff", f' stroke="{MUTED}"')
        drawing.circle(x(line.candidate), y, 4, line.color)
        change = f"{line.candidate - line.base:+.3f}{star}"
        drawing.text(WIDTH - RIGHT + 12, y + 4, change, "start", line.color, weight)
    return drawing.render(bottom + 8, "Scores of both models by slice")


def heat(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Draw a confusion table: true labels down, given labels across, each row shaded by its own shares."""
    drawing, cell, top = Drawing(), max(14, min(46, (WIDTH - LEFT - 20) // len(labels))), 120
    for column, label in enumerate(labels):
        x = LEFT + cell * column + cell / 2
        drawing.text(x, top - 8, shortened(label, 22), "start", MUTED, f' transform="rotate(-45 {x:.0f} {top - 8})"')
    for row, (label, line) in enumerate(zip(labels, counts, strict=True)):
        y, total = top + cell * row, max(1, sum(line))
        drawing.text(LEFT - 8, y + cell / 2 + 4, shortened(label, 34), "end")
        for column, count in enumerate(line):
            share, color = count / total, "26,127,55" if row == column else "207,34,46"
            opacity = 0.12 + 0.8 * share if count else 0.04
            place = f'x="{LEFT + cell * column}" y="{y}" width="{cell - 1}" height="{cell - 1}"'
            drawing.parts.append(f'<rect {place} fill="rgba({color},{opacity:.2f})"/>')
            if count and cell >= 22:
                ink = "#fff" if share > 0.6 else INK
                drawing.text(LEFT + cell * (column + 0.5), y + cell / 2 + 4, str(count), "middle", ink)
    return drawing.render(top + cell * len(labels) + 4, "Given label by true label")


def frontier(
    marks: Sequence[Mark],
    base: tuple[float, float],
    titles: tuple[str, str],
    curves: Sequence[Sequence[Mark]] = (),
    *,
    less_is_right: bool = False,
) -> str:
    """Draw points with whiskers in both directions, and the base model as a square.

    Base and titles have what goes right, then what goes up. With `less_is_right` the general axis runs from more to
    less, so that better lies to the right there too. Curves have no whiskers, and run from the base model to their last
    point, which is not drawn.
    """
    top, bottom, start, end = 24, 340, 90, WIDTH - RIGHT
    on_curves = [mark for curve in curves for mark in curve]
    xs = [base[0], *(value for mark in marks for value in (mark.x, *mark.x_span)), *(mark.x for mark in on_curves)]
    ys = [base[1], *(value for mark in marks for value in (mark.y, *mark.y_span)), *(mark.y for mark in on_curves)]
    x = scale(xs, end, start) if less_is_right else scale(xs, start, end)
    y, drawing = scale(ys, bottom, top), Drawing()
    drawing.line((start, bottom), (end, bottom), MUTED)
    drawing.line((start, top), (start, bottom), MUTED)
    for tick in ticks(min(xs), max(xs)):
        drawing.line((x(tick), top), (x(tick), bottom), GRID)
        drawing.text(x(tick), bottom + 18, f"{tick:g}", "middle", MUTED)
    for tick in ticks(min(ys), max(ys)):
        drawing.line((start, y(tick)), (end, y(tick)), GRID)
        drawing.text(start - 8, y(tick) + 4, f"{tick:g}", "end", MUTED)
    for curve in curves:
        ends = [base, *((mark.x, mark.y) for mark in curve)]
        drawing.polyline(((x(right), y(up)) for right, up in ends), MUTED, 'stroke-dasharray="2 3"')
    labels = _Labels(drawing, [(x(mark.x), y(mark.y)) for mark in [*marks, *on_curves]])
    for mark in marks:
        color, right, up = COLORS[mark.verdict], x(mark.x), y(mark.y)
        drawing.line((x(mark.x_span[0]), up), (x(mark.x_span[1]), up), color)
        drawing.line((right, y(mark.y_span[0])), (right, y(mark.y_span[1])), color)
        drawing.circle(right, up, 7, color)
        labels.add(right, up, f"{mark.name}: {mark.verdict}", color, always=True)
    right, up = x(base[0]), y(base[1])
    drawing.parts.append(f'<rect x="{right - 6:.1f}" y="{up - 6:.1f}" width="12" height="12" fill="{MUTED}"/>')
    labels.add(right, up, "base model", MUTED, always=True)
    for mark in (mark for curve in curves for mark in curve[:-1]):
        color, right, up = COLORS[mark.verdict], x(mark.x), y(mark.y)
        drawing.circle(right, up, 4, "#fff", f' stroke="{color}" stroke-width="1.5"')
        labels.add(right, up, mark.name, color)
    drawing.text((start + end) / 2, bottom + 40, titles[0], "middle")
    drawing.text(start, top - 8, titles[1], "start")
    return drawing.render(bottom + 50, f"{titles[1]} against {titles[0]}")


def curves(lines: Sequence[Curve], title: str, *, span: tuple[float, float] | None = None, form: str = "g") -> str:
    """Draw lines over the steps of a training, each with its name and its last value at the right.

    `title` names the values, `form` formats them; they run over `span`, or from the least to the largest.
    """
    drawing, top, bottom, start, end = Drawing(), 24, 260, 70, WIDTH - 230
    steps, values = zip(*(point for line in lines for point in line.points), strict=True)
    low, high = span or (min(values), max(values))
    room = 0.0 if span else 0.06 * (high - low) or 0.5
    first, width = min(steps), max(steps) - min(steps) or 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        height = (value - low + room) / (high - low + 2 * room)
        return start + (step - first) / width * (end - start), bottom - height * (bottom - top)

    for tick in ticks(low, high):
        drawing.line((start, place(first, tick)[1]), (end, place(first, tick)[1]), GRID)
        drawing.text(start - 8, place(first, tick)[1] + 4, format(tick, form), "end", MUTED)
    for tick in (tick for tick in ticks(first, max(steps)) if tick == round(tick)):
        drawing.text(place(tick, low)[0], bottom + 18, f"{tick:,.0f}", "middle", MUTED)
    for number, line in enumerate(lines):
        color = POOL_COLORS[number % len(POOL_COLORS)]
        dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
        drawing.polyline((place(*point) for point in line.points), color, f'stroke-width="2"{dashes}')
        if len(line.points) == 1:
            drawing.circle(*place(*line.points[0]), 3, color)
        label = f"{shortened(line.name, 24)} {format(line.points[-1][1], form)}"
        drawing.text(end + 14, top + 10 + 18 * number, label, "start", color)
    drawing.text((start + end) / 2, bottom + 38, "step", "middle", MUTED)
    drawing.text(start, top - 8, title, "start")
    return drawing.render(max(bottom + 48, top + 18 * len(lines) + 14), f"{title} by step")


def scale(values: Sequence[float], begin: float, end: float) -> Callable[[float], float]:
    """Return where a value lies between two places, with room around all values."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return lambda value: begin + (value - low + room) / (high - low + 2 * room) * (end - begin)


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers from low to high, at most six."""
    if low == high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 5)
    return [round(step * number, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


class _Labels:
    """Texts beside points, each where no other text or point is."""

    def __init__(self, drawing: Drawing, points: Sequence[tuple[float, float]]) -> None:
        self.drawing = drawing
        self.occupied = [(x - 6, y + 5, 12.0) for x, y in points]
        """Left end, base line and width of what is there."""

    def add(self, x: float, y: float, text: str, color: str, *, always: bool = False) -> None:
        """Write a text at the first free place around a point; where there is none, only if it must be shown."""
        width = 7.0 * len(text)
        sides = ((True, -8), (True, 17), (False, -8), (False, 17), (True, 4), (False, 4))
        places = [(x + 9 if to_right else x - 9 - width, y + down, width) for to_right, down in sides]
        place = next(filter(self._is_free, places), places[0] if always else None)
        if place:
            self.occupied.append(place)
            anchor, at = ("start", x + 9) if place[0] > x else ("end", x - 9)
            self.drawing.text(at, place[1], text, anchor, color)

    def _is_free(self, place: tuple[float, float, float]) -> bool:
        begin, base_line, width = place
        return not any(
            abs(base_line - other_line) < 14 and begin < other + other_width and other < begin + width
            for other, other_line, other_width in self.occupied
        )
