"""A predicted curve with its band, and what was measured, as inline SVG."""

from dataclasses import dataclass

from mixtune.report.charts import COLORS, GRID, MUTED, RIGHT, WIDTH, Drawing, scale, ticks


@dataclass(frozen=True, kw_only=True)
class BandPoint:
    """One place of the curve."""

    x: float
    middle: float
    lower: float
    upper: float


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measured point with whiskers."""

    name: str
    x: float
    y: float
    reach: float
    """Half the length of the whiskers."""
    is_full: bool
    """Filled; else only its outline is drawn."""


@dataclass(frozen=True, kw_only=True)
class Band:
    """Everything in the plot."""

    points: tuple[BandPoint, ...]
    """From the left, two or more."""
    measured: tuple[Measured, ...]
    limit: float
    """Where the dashed line is."""


def draw_band(band: Band, titles: tuple[str, str]) -> str:
    """Draw the band, its middle, the limit, and the measured points; values far below the limit are left to the edge.

    The titles are those of the axes, right and up.
    """
    top, bottom, start, end = 24, 300, 90, WIDTH - RIGHT
    ys = [band.limit, 0.0, *(point.y for point in band.measured), *(point.middle for point in band.points)]
    low, high = min(ys) - 0.4 * (max(ys) - min(ys)), max(ys) + 0.4 * (max(ys) - min(ys))
    x, y = scale([point.x for point in band.points], start, end), scale([low, high], bottom, top)
    drawing = Drawing()

    def place(value: float) -> float:
        return min(max(y(value), top), bottom)

    for tick in ticks(low, high):
        drawing.line((start, y(tick)), (end, y(tick)), GRID)
        drawing.text(start - 8, y(tick) + 4, f"{tick:g}", "end", MUTED)
    for tick in ticks(band.points[0].x, band.points[-1].x):
        drawing.text(x(tick), bottom + 18, f"{tick:g}", "middle", MUTED)
    outline = [(x(point.x), place(point.upper)) for point in band.points]
    outline += [(x(point.x), place(point.lower)) for point in reversed(band.points)]
    corners = " ".join(f"{right:.1f},{up:.1f}" for right, up in outline)
    drawing.parts.append(f'<polygon points="{corners}" fill="{MUTED}" fill-opacity="0.18"/>')
    drawing.polyline(((x(point.x), place(point.middle)) for point in band.points), MUTED, 'stroke-width="1.5"')
    drawing.line((start, y(band.limit)), (end, y(band.limit)), COLORS["fail"], 'stroke-dasharray="6 4"')
    for point in band.measured:
        right = x(point.x)
        drawing.line((right, place(point.y - point.reach)), (right, place(point.y + point.reach)), MUTED)
        drawing.circle(right, place(point.y), 6, MUTED if point.is_full else "#fff", f' stroke="{MUTED}"')
        drawing.text(right + 10, place(point.y) - 6, point.name, "start", MUTED)
    drawing.text((start + end) / 2, bottom + 40, titles[0], "middle")
    drawing.text(start, top - 8, titles[1], "start")
    return drawing.render(bottom + 50, f"{titles[1]} by {titles[0]}")
