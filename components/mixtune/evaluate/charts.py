"""Plots as inline SVG: no script, no network."""

from dataclasses import dataclass
from html import escape

COLORS = {"pass": "#1a7f37", "fail": "#cf222e", "inconclusive": "#9a6700"}


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of a forest plot; all numbers in the same unit, more is better."""

    name: str
    value: float
    lower: float
    upper: float
    limit: float | None
    """Where the allowed loss ends, below 0; None: no line."""
    verdict: str


def forest(bars: list[Bar]) -> str:
    """Differences with their intervals and limits, one line each."""
    width, left, row = 720, 200, 34
    ends = [value for bar in bars for value in (bar.lower, bar.upper, 0.0, bar.limit if bar.limit is not None else 0.0)]
    low, high = min(ends), max(ends)
    margin = (high - low or 0.01) * 0.08
    low, high = low - margin, high + margin

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (width - left - 80)

    height = row * len(bars) + 30
    parts = [f'<line x1="{x(0):.1f}" y1="4" x2="{x(0):.1f}" y2="{height - 24}" stroke="#888" stroke-dasharray="3 3"/>']
    for index, bar in enumerate(bars):
        y, color = row * index + 22, COLORS[bar.verdict]
        parts.append(f'<text x="{left - 10}" y="{y + 4}" text-anchor="end">{escape(bar.name)}</text>')
        if bar.limit is not None:
            at = x(bar.limit)
            parts.append(
                f'<line x1="{at:.1f}" y1="{y - 12}" x2="{at:.1f}" y2="{y + 12}" stroke="#444" stroke-width="2"/>'
            )
        span = f'x1="{x(bar.lower):.1f}" y1="{y}" x2="{x(bar.upper):.1f}" y2="{y}"'
        parts.append(f'<line {span} stroke="{color}" stroke-width="3"/>')
        parts.append(f'<circle cx="{x(bar.value):.1f}" cy="{y}" r="5" fill="{color}"/>')
        parts.append(f'<text x="{width - 70}" y="{y + 4}">{bar.value:+.3f}</text>')
    parts.append(f'<text x="{x(0):.1f}" y="{height - 6}" text-anchor="middle">0</text>')
    return svg(width, height, parts)


def svg(width: int, height: int, parts: list[str]) -> str:
    """A drawing that scales to its place."""
    style = "font: 13px system-ui, sans-serif"
    return f'<svg viewBox="0 0 {width} {height}" role="img" style="{style}">{"".join(parts)}</svg>'
