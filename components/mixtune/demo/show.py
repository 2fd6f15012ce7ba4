"""The table of `mixtune demo`: the base model and every mix that was tried, side by side."""

from mixtune.artifacts.comparison import AxisVerdict
from mixtune.artifacts.grid import GridReport
from mixtune.report.pages import text_table

AXES = {
    "mmlu": "knowledge (accuracy)",
    "ifeval": "instructions (strict)",
    "general_nll": "general NLL",
    "customer": "customer F1",
}


def format_grid(grid: GridReport) -> str:
    """Return scores and verdicts as lines of text; a difference stands with its one-sided 95 % bounds."""
    shown = sorted(next(item.comparison.axes for item in grid.candidates if item.comparison.axes), key=_place)
    rows = [["", *(AXES.get(axis.axis, axis.axis) for axis in shown), "verdict"]]
    rows.append(["base model", *(f"{axis.measure.base:.3f}" for axis in shown), ""])
    for candidate in grid.candidates:
        comparison, percent = candidate.comparison, candidate.mix.percent
        name = "customer only" if percent == 100 else f"{percent:g} % customer"
        if not comparison.axes:
            rows.append([name, *[""] * len(shown), f"{comparison.verdict}: {comparison.reason}"])
            continue
        axes = sorted(comparison.axes, key=_place)
        rows.append([name, *(f"{axis.measure.candidate:.3f}" for axis in axes), comparison.verdict])
        rows.append(["  difference", *map(_format_change, axes), ""])
        rows.append(["  verdict", *(axis.verdict for axis in axes), ""])
    head, *lines = text_table(rows).split("\n")
    return "\n".join([head, "-" * len(head), *lines])


def _place(axis: AxisVerdict) -> int:
    return list(AXES).index(axis.axis) if axis.axis in AXES else len(AXES)


def _format_change(axis: AxisVerdict) -> str:
    pattern, change = "{:+.1%}" if axis.measure.relative else "{:+.3f}", axis.measure.change
    values = [pattern.format(value) for value in (change.difference, change.lower, change.upper)]
    return f"{values[0]} [{values[1]}, {values[2]}]"
