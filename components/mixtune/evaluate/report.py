"""What a report says, in words and tables: HTML for a browser, Markdown for the pipeline's page."""

from html import escape
from typing import Any

from mixtune import pages
from mixtune.evaluate import comparison_page
from mixtune.evaluate.compare import Comparison
from mixtune.evaluate.verdicts import AxisVerdict

HEADER = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "detectable", "items", "verdict"]


def write_evaluation(
    manifest: dict[str, Any],
    labels: list[str],
    confusion: list[list[int]],
    per_class: list[dict[str, Any]],
    *,
    html: str,
    markdown: str,
) -> None:
    """The report of one evaluation: its scores and what was evaluated.

    Args:
        manifest: The samples' manifest.
        labels: Classes of the confusion table; none: no table.
        confusion: Given label (column) by true label (row).
        per_class: Precision, recall, F1 and records of each class.
        html: Where the page goes.
        markdown: Where the Markdown goes.
    """
    rows = [
        [name, key, f"{value:.4f}", str(axis["num_items"])]
        for name, axis in manifest["axes"].items()
        for key, value in axis["scores"].items()
    ]
    rows += [
        [name, "items that could not be scored, and count as wrong", str(axis["errors"]), str(axis["num_items"])]
        for name, axis in manifest["axes"].items()
        if axis["errors"]
    ]
    header = ["axis", "score", "value", "items"]
    cells = [[escape(cell) for cell in row] for row in rows]
    body = f"<h1>Evaluation</h1>{pages.table(header, cells, texts=2)}"
    if labels:
        body += f"<h2>Given label by true label</h2>{comparison_page.confusion(labels, confusion)}"
    if per_class:
        lines = [
            [escape(one["label"]), *(f"{one[key]:.4f}" for key in ("precision", "recall", "f1")), str(one["records"])]
            for one in per_class
        ]
        body += f"<h2>By label</h2>{pages.table(['label', 'precision', 'recall', 'F1', 'records'], lines)}"
    body += f"<h2>What was run</h2>{pages.words(manifest['identity'])}"
    pages.write_text(html, pages.page("Evaluation", body))
    pages.write_text(markdown, f"# Evaluation\n\n{pages.markdown_table(header, rows)}\n")


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
