"""What a comparison comes to, in words and tables: HTML for a browser, Markdown for the pipeline's page."""

from mixtune.compare import comparison_page
from mixtune.compare.comparison import Comparison
from mixtune.compare.verdicts import AxisVerdict
from mixtune.report import pages

HEADER = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "detectable", "items", "verdict"]


def write_comparison(comparison: Comparison, *, html: str, markdown: str) -> None:
    """The report of a comparison."""
    rows = [axis_row(axis) for axis in comparison.axes]
    sentence = summary(comparison)
    pages.write_text(
        html, pages.page("Base against candidate", comparison_page.comparison_body(comparison, sentence, HEADER, rows))
    )
    lines = [f"# {comparison.verdict}", "", sentence, "", pages.markdown_table(HEADER, rows), ""]
    lines += [f"- {axis.advice}" for axis in comparison.axes if axis.advice]
    lines += [f"- turned down to {one.strength:g}: {one.verdict} {one.reason}".rstrip() for one in comparison.dial]
    pages.write_text(markdown, "\n".join(lines) + "\n")


def axis_row(axis: AxisVerdict) -> list[str]:
    """An axis as the cells of a table."""
    scale, unit, digits = (100.0, " %", 2) if axis.relative else (1.0, "", 4)
    difference, lower, upper = (f"{scale * v:+.{digits}f}{unit}" for v in (axis.difference, axis.lower, axis.upper))
    asked = {"non-inferiority": f"{scale * axis.limit:g}{unit}", "superiority": "any gain"}
    return [
        f"{axis.axis} ({axis.metric})",
        f"{axis.base:.4f}",
        f"{axis.candidate:.4f}",
        difference,
        f"{lower} to {upper}",
        asked.get(axis.question, "none"),
        f"{scale * axis.detectable:.2g}{unit}",
        f"{axis.num_items:,}",
        axis.verdict,
    ]


def summary(comparison: Comparison) -> str:
    """The whole comparison in one or two sentences."""
    if comparison.reason:
        return f"There is no candidate: {comparison.reason}"
    general = [axis for axis in comparison.axes if axis.question == "non-inferiority"]
    words = {
        "pass": f"Nothing was forgotten beyond what is allowed on {_names(general)}.",
        "fail": _failed(comparison.axes),
        "inconclusive": f"Not enough items to say: {_names([a for a in general if a.verdict == 'inconclusive'])}.",
    }
    told = [
        f"{axis.metric} on the customer's records went from {axis.base:.3f} to {axis.candidate:.3f}"
        f"{', a proved gain' if axis.verdict == 'pass' else ''}."
        for axis in comparison.axes
        if axis.question == "superiority"
    ]
    return " ".join([words[comparison.verdict], *told])


def _failed(axes: list[AxisVerdict]) -> str:
    failed = [axis for axis in axes if axis.verdict == "fail"]
    forgotten = [axis for axis in failed if axis.question == "non-inferiority"]
    told = [f"Forgotten: {_names(forgotten)}."] if forgotten else []
    return " ".join([*told, *(["Worse on the customer's own records."] if len(failed) > len(forgotten) else [])])


def _names(axes: list[AxisVerdict]) -> str:
    return ", ".join(axis.axis for axis in axes)
