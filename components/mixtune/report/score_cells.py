"""An axis as cells of a table: both scores with their difference, and what it may lose."""

from mixtune.artifacts.comparison import EQUIVALENCE, NON_INFERIORITY, SUPERIORITY, AxisVerdict, Measure


def score_cells(measure: Measure, percent_digits: int = 2) -> list[str]:
    """Return both scores, the difference and its bounds; a relative change in percent."""
    change = measure.change
    difference, lower, upper = (
        f"{100 * value:+.{percent_digits}f} %" if measure.relative else f"{value:+.4f}"
        for value in (change.difference, change.lower, change.upper)
    )
    return [f"{measure.base:.4f}", f"{measure.candidate:.4f}", difference, f"{lower} to {upper}"]


def allowed_cell(axis: AxisVerdict) -> str:
    """Return the loss that is allowed on an axis, or the gain that is asked for."""
    limit = f"{100 * axis.limit:g} %" if axis.measure.relative else f"{axis.limit:g}"
    gain = f"gain of {axis.min_gain:g}" if axis.min_gain else "any gain"
    return {NON_INFERIORITY: limit, SUPERIORITY: gain, EQUIVALENCE: f"±{limit}"}.get(axis.question, "none")
