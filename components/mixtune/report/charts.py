"""Plots as inline SVG: no script, no network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLORS = {"pass": "#1a7f37", "fail": "#cf222e", "inconclusive": "#9a6700", "advisory": "#57606a"}
WIDTH = 900
LEFT = 285
"""Where the drawing begins, right of the names."""
RIGHT = 90
"""Room for numbers right of the drawing."""
REACH = 3.0
"""A forest plot ends at so many allowed losses; what is farther out is drawn at the edge, as an arrow."""
GRID = "#d8dee4"
MUTED = "#57606a"


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


def forest(bars: list[Bar]) -> str:
    """Differences with their intervals, one line each; the shaded part is more than the allowed loss."""
    row, top = 38, 30
    bottom = top + row * len(bars)

    def x(value: float) -> float:
        return LEFT + (min(max(value, -REACH), REACH) + REACH) / (2 * REACH) * (WIDTH - LEFT - RIGHT)

    parts = [f'<rect x="{LEFT}" y="{top}" width="{x(-1) - LEFT:.1f}" height="{bottom - top}" fill="#ffebe9"/>']
    for at, text in ((-1.0, "allowed loss"), (0.0, "no change")):
        stroke = "#cf222e" if at else MUTED
        parts.append(_line(x(at), top, x(at), bottom, stroke, 'stroke-dasharray="4 3"'))
        parts.append(_text(x(at), top - 10, text, "middle", MUTED))
    for index, bar in enumerate(bars):
        y, color = top + row * index + row / 2, COLORS[bar.verdict]
        parts.append(_text(LEFT - 12, y + 4, bar.name, "end"))
        parts.append(_line(x(bar.lower), y, x(bar.upper), y, color, 'stroke-width="3" stroke-linecap="round"'))
        parts += [_arrow(x(end), y, color, end) for end in (bar.lower, bar.upper) if abs(end) > REACH]
        if abs(bar.value) <= REACH:
            parts.append(f'<circle cx="{x(bar.value):.1f}" cy="{y}" r="6" fill="{color}"/>')
        parts.append(_text(WIDTH - RIGHT + 12, y + 4, bar.label, "start", color))
    return svg(bottom + 8, parts, "Differences with their intervals")


def dumbbells(lines: list[Dumbbell], low: float, high: float) -> str:
    """Scores before (hollow) and after (full), one line each.

    Args:
        lines: From top to bottom.
        low: Left end of the scale.
        high: Right end; more than `low`.
    """
    row, top = 19, 26
    bottom = top + row * len(lines)

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    parts = []
    for tick in range(5):
        at = low + (high - low) * tick / 4
        parts.append(_line(x(at), top, x(at), bottom, GRID))
        parts.append(_text(x(at), top - 8, f"{at:.2f}", "middle", MUTED))
    for index, line in enumerate(lines):
        y = top + row * index + row / 2
        weight = ' font-weight="700"' if line.flagged else ""
        parts.append(_text(LEFT - 12, y + 4, line.name[:44], "end", extra=weight))
        parts.append(_line(x(line.base), y, x(line.candidate), y, line.color, 'stroke-width="2.5"'))
        parts.append(f'<circle cx="{x(line.base):.1f}" cy="{y}" r="4" fill="#fff" stroke="{MUTED}"/>')
        parts.append(f'<circle cx="{x(line.candidate):.1f}" cy="{y}" r="4" fill="{line.color}"/>')
        change = f"{line.candidate - line.base:+.3f}{' *' if line.flagged else ''}"
        parts.append(_text(WIDTH - RIGHT + 12, y + 4, change, "start", line.color, weight))
    return svg(bottom + 8, parts, "Scores of both models by slice")


def heat(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion table: true labels down, given labels across, each row shaded by its own shares."""
    cell = max(14, min(46, (WIDTH - LEFT - 20) // len(labels)))
    top = 120
    parts = []
    for column, label in enumerate(labels):
        at = LEFT + cell * column + cell / 2
        turn = f' transform="rotate(-45 {at:.0f} {top - 8})"'
        parts.append(_text(at, top - 8, label[:22], "start", MUTED, turn))
    for row, (label, line) in enumerate(zip(labels, counts, strict=True)):
        y, total = top + cell * row, max(1, sum(line))
        parts.append(_text(LEFT - 8, y + cell / 2 + 4, label[:34], "end"))
        for column, count in enumerate(line):
            share, right = count / total, row == column
            color = "26,127,55" if right else "207,34,46"
            place = f'x="{LEFT + cell * column}" y="{y}" width="{cell - 1}" height="{cell - 1}"'
            parts.append(f'<rect {place} fill="rgba({color},{0.04 if not count else 0.12 + 0.8 * share:.2f})"/>')
            if count and cell >= 22:
                ink = "#fff" if share > 0.6 else "#1f2328"
                parts.append(_text(LEFT + cell * (column + 0.5), y + cell / 2 + 4, str(count), "middle", ink))
    return svg(top + cell * len(labels) + 4, parts, "Given label by true label")


def frontier(
    marks: list[Mark], base: tuple[float, float], titles: tuple[str, str], curves: Sequence[list[Mark]] = ()
) -> str:
    """Points with whiskers in both directions, and the base model as a square.

    Args:
        marks: The points.
        base: Scores of the base model, right and up.
        titles: Names of the axes, right and up.
        curves: Points without whiskers, each curve drawn on from the base model; the last point of one is not drawn.
    """
    top, bottom, left = 24, 340, 90
    small = [mark for curve in curves for mark in curve]
    xs = [base[0], *(value for mark in marks for value in (mark.x, *mark.x_span)), *(mark.x for mark in small)]
    ys = [base[1], *(value for mark in marks for value in (mark.y, *mark.y_span)), *(mark.y for mark in small)]
    right, up = _scale(xs, left, WIDTH - RIGHT), _scale(ys, bottom, top)
    parts = [_line(left, bottom, WIDTH - RIGHT, bottom, MUTED), _line(left, top, left, bottom, MUTED)]
    for tick in _ticks(min(xs), max(xs)):
        parts.append(_line(right(tick), top, right(tick), bottom, GRID))
        parts.append(_text(right(tick), bottom + 18, f"{tick:g}", "middle", MUTED))
    for tick in _ticks(min(ys), max(ys)):
        parts.append(_line(left, up(tick), WIDTH - RIGHT, up(tick), GRID))
        parts.append(_text(left - 8, up(tick) + 4, f"{tick:g}", "end", MUTED))
    labels = _Labels([(right(mark.x), up(mark.y)) for mark in [*marks, *small]])
    for curve in curves:
        ends = " ".join(f"{right(x):.1f},{up(y):.1f}" for x, y in [base, *((mark.x, mark.y) for mark in curve)])
        parts.append(f'<polyline points="{ends}" fill="none" stroke="{MUTED}" stroke-dasharray="2 3"/>')
    for mark in marks:
        color, x, y = COLORS[mark.verdict], right(mark.x), up(mark.y)
        parts.append(_line(right(mark.x_span[0]), y, right(mark.x_span[1]), y, color))
        parts.append(_line(x, up(mark.y_span[0]), x, up(mark.y_span[1]), color))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="7" fill="{color}"/>')
        parts.append(labels.add(x, y, f"{mark.name}: {mark.verdict}", color, always=True))
    x, y = right(base[0]), up(base[1])
    parts.append(f'<rect x="{x - 6:.1f}" y="{y - 6:.1f}" width="12" height="12" fill="{MUTED}"/>')
    parts.append(labels.add(x, y, "base model", MUTED, always=True))
    for mark in (mark for curve in curves for mark in curve[:-1]):
        color, x, y = COLORS[mark.verdict], right(mark.x), up(mark.y)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#fff" stroke="{color}" stroke-width="1.5"/>')
        parts.append(labels.add(x, y, mark.name, color))
    parts.append(_text((left + WIDTH - RIGHT) / 2, bottom + 40, titles[0], "middle"))
    parts.append(_text(left, top - 8, titles[1], "start"))
    return svg(bottom + 50, parts, f"{titles[1]} against {titles[0]}")


def _scale(values: list[float], begin: float, end: float) -> Callable[[float], float]:
    """Where a value lies between two places, with room around all of them."""
    low, high = min(values), max(values)
    room = 0.08 * (high - low) or 0.5
    return lambda value: begin + (value - low + room) / (high - low + 2 * room) * (end - begin)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from low to high, at most six."""
    if low == high:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / 5))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= 5)
    return [round(step * number, 12) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


class _Labels:
    """Texts beside points, each where no other text or point is."""

    def __init__(self, points: list[tuple[float, float]]) -> None:
        self.taken = [(x - 6, y + 5, 12.0) for x, y in points]

    def add(self, x: float, y: float, text: str, color: str, *, always: bool = False) -> str:
        """The text at the first free place around a point; empty where there is none, unless it must be shown."""
        width = 7.0 * len(text)
        for right, down in ((True, -8), (True, 17), (False, -8), (False, 17), (True, 4), (False, 4)):
            box = (x + 9 if right else x - 9 - width, y + down, width)
            if not any(
                abs(box[1] - at) < 14 and box[0] < begin + wide and begin < box[0] + width
                for begin, at, wide in self.taken
            ):
                break
        else:
            if not always:
                return ""
            right, box = True, (x + 9, y - 8, width)
        self.taken.append(box)
        return _text(x + 9 if right else x - 9, box[1], text, "start" if right else "end", color)


def svg(height: float, parts: list[str], title: str) -> str:
    """A drawing that scales to its place."""
    style = "font:13px system-ui,sans-serif;width:100%;height:auto"
    inner = f"<title>{escape(title)}</title>{''.join(parts)}"
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" style="{style}">{inner}</svg>'


def _text(x: float, y: float, text: str, anchor: str, color: str = "#1f2328", extra: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"{extra}>{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, color: str, extra: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{color}" {extra}/>'


def _arrow(x: float, y: float, color: str, direction: float) -> str:
    step = 9 if direction > 0 else -9
    return f'<path d="M{x:.1f} {y - 7:.1f}L{x + step:.1f} {y:.1f}L{x:.1f} {y + 7:.1f}Z" fill="{color}"/>'
