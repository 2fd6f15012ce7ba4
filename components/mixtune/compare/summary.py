"""What a comparison comes to, in words and tables: HTML for a browser, Markdown for the pipeline's page."""

from collections.abc import Sequence

from mixtune.artifacts.comparison import (
    FAIL,
    INCONCLUSIVE,
    NON_INFERIORITY,
    PASS,
    SUPERIORITY,
    AxisVerdict,
    Comparison,
)
from mixtune.compare import comparison_page
from mixtune.report import pages

HEADER = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "detectable", "items", "verdict"]


def write_comparison(comparison: Comparison, *, html: str, markdown: str) -> None:
    """Write the report of a comparison."""
    rows = [axis_row(axis) for axis in comparison.axes]
    sentence = summarize(comparison)
    body = comparison_page.comparison_body(comparison, sentence, HEADER, rows)
    pages.write_text(html, pages.page("Base against candidate", body))
    lines = [f"# {comparison.verdict}", "", sentence, "", pages.markdown_table(HEADER, rows), ""]
    lines += [f"- {axis.advice}" for axis in comparison.axes if axis.advice]
    lines += [
        f"- turned down to {point.strength:g}: {point.verdict} {point.reason}".rstrip() for point in comparison.dial
    ]
    pages.write_text(markdown, "\n".join(lines) + "\n")


def axis_row(axis: AxisVerdict) -> list[str]:
    """Return an axis as the cells of a table."""
    measure, change = axis.measure, axis.measure.change
    scale, unit, digits = (100.0, " %", 2) if measure.relative else (1.0, "", 4)
    difference, lower, upper = (
        f"{scale * value:+.{digits}f}{unit}" for value in (change.difference, change.lower, change.upper)
    )
    allowed = {NON_INFERIORITY: f"{scale * axis.limit:g}{unit}", SUPERIORITY: "any gain"}
    return [
        f"{axis.axis} ({measure.metric})",
        f"{measure.base:.4f}",
        f"{measure.candidate:.4f}",
        difference,
        f"{lower} to {upper}",
        allowed.get(axis.question, "none"),
        f"{scale * axis.detectable:.2g}{unit}",
        f"{axis.items.total:,}",
        axis.verdict,
    ]


def summarize(comparison: Comparison) -> str:
    """Return the whole comparison in one or two sentences."""
    if comparison.reason:
        return f"There is no candidate: {comparison.reason}"
    general = [axis for axis in comparison.axes if axis.question == NON_INFERIORITY]
    sentences = {
        PASS: f"Nothing was forgotten beyond what is allowed on {_names(general)}.",
        FAIL: _describe_failure(comparison.axes),
        INCONCLUSIVE: f"Not enough items to say: {_names([a for a in general if a.verdict == INCONCLUSIVE])}.",
    }
    gains = [
        f"{axis.measure.metric} on the customer's records went from {axis.measure.base:.3f} to "
        f"{axis.measure.candidate:.3f}{', a proved gain' if axis.verdict == PASS else ''}."
        for axis in comparison.axes
        if axis.question == SUPERIORITY
    ]
    return " ".join([sentences[comparison.verdict], *gains])


def _describe_failure(axes: Sequence[AxisVerdict]) -> str:
    failed = [axis for axis in axes if axis.verdict == FAIL]
    forgotten = [axis for axis in failed if axis.question == NON_INFERIORITY]
    sentences = [f"Forgotten: {_names(forgotten)}."] if forgotten else []
    return " ".join([*sentences, *(["Worse on the customer's own records."] if len(failed) > len(forgotten) else [])])


def _names(axes: Sequence[AxisVerdict]) -> str:
    return ", ".join(axis.axis for axis in axes)
