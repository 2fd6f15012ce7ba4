"""The mix receipt as a page: a table, and plots as inline SVG; no script, no network."""

from html import escape
from typing import Any

from mixtune.mix_shard.receipt import COLUMNS, UNITS, pool_cells, receipt_lines
from mixtune.report.pages import page, table

COLORS = ("#0969da", "#1a7f37", "#9a6700", "#cf222e", "#8250df", "#bf3989", "#57606a", "#1b7c83")


def receipt_html(receipt: dict[str, Any]) -> str:
    """The receipt as a page that stands alone."""
    pools = table([*COLUMNS.values()], [pool_cells(pool) for pool in receipt["pools"]])
    notes = "".join(f'<p class="summary warn">{escape(note)}</p>' for note in receipt["notes"])
    plots = "".join(
        f"<h2>Share of {escape(unit.replace('_', ' '))} over the run</h2>{_shares_plot(receipt, unit)}"
        for unit in UNITS
    )
    return page(
        "Mix receipt",
        f"<h1>Mix receipt</h1><p>{escape(receipt_lines(receipt)[0])}. Shares are planned in "
        f"{escape(receipt['unit'])}; within every stage "
        f"a pool is at most {receipt['bound']:.4g} from its target at any place.</p>{notes}"
        f"{pools}<h2>Planned and realized</h2>{_bars(receipt)}{plots}",
    )


def _bars(receipt: dict[str, Any]) -> str:
    """Per pool: the planned share as a line, the realized ones as bars."""
    row, left, width = 64, 190, 640
    parts = []
    for index, pool in enumerate(receipt["pools"]):
        top = index * row + 8
        parts.append(f'<text x="{left - 10}" y="{top + 26}" text-anchor="end">{escape(pool["name"])}</text>')
        at = left + pool["planned_share"] * width
        for number, unit in enumerate(UNITS):
            share, y = pool[f"share_of_{unit}"], top + number * 16
            end = left + share * width
            beside = at if end < at < end + 100 else end
            parts.append(
                f'<rect x="{left}" y="{y}" width="{share * width:.1f}" height="12" fill="{COLORS[number]}"/>'
                f'<text x="{beside + 6:.1f}" y="{y + 11}">{share:.2%} {unit.replace("_", " ")}</text>'
            )
        parts.append(f'<line x1="{at:.1f}" y1="{top - 4}" x2="{at:.1f}" y2="{top + 50}" stroke="#222"/>')
    return _svg(left + width + 150, row * len(receipt["pools"]) + 10, parts)


def _shares_plot(receipt: dict[str, Any], unit: str) -> str:
    """A line per pool over windows of steps."""
    width, height, left = 700, 180, 50
    steps, parts = max(1, receipt["num_steps"]), []
    for mark in (0.0, 0.5, 1.0):
        y = 10 + (1 - mark) * height
        parts.append(f'<line x1="{left}" y1="{y}" x2="{left + width}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4}" text-anchor="end">{mark:.0%}</text>')
    for index, pool in enumerate(receipt["pools"]):
        points = []
        for window in receipt["windows"]:
            y = 10 + (1 - window[unit][index]) * height
            for step in (window["first_step"], window["first_step"] + window["num_steps"]):
                points.append(f"{left + step / steps * width:.1f},{y:.1f}")
        color = COLORS[index % len(COLORS)]
        parts.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{left + width + 8}" y="{20 + 16 * index}" fill="{color}">{escape(pool["name"])}</text>')
    parts.append(f'<text x="{left + width}" y="{height + 26}" text-anchor="end">step {steps}</text>')
    return _svg(left + width + 180, max(height + 34, 16 * len(receipt["pools"]) + 20), parts)


def _svg(width: int, height: int, parts: list[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" role="img" style="font:12px sans-serif">{"".join(parts)}</svg>'
