"""Reports: one self-contained HTML page for a browser, and Markdown for the pipeline's page."""

import json
from html import escape
from typing import Any

from mixtune import storage
from mixtune.evaluate import charts
from mixtune.evaluate.compare import Comparison
from mixtune.evaluate.verdicts import AxisVerdict

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1f2328;max-width:960px;margin:24px auto;padding:0 16px}
h1{font-size:22px}h2{font-size:17px;margin-top:28px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;border-bottom:1px solid #d0d7de;text-align:right}
th:first-child,td:first-child{text-align:left}
.pass{color:#1a7f37}.fail{color:#cf222e}.inconclusive{color:#9a6700}
.verdict{font-weight:600}.summary{font-size:17px;padding:12px 16px;background:#f6f8fa;border-left:4px solid #8c959f}
pre{font-size:12px;background:#f6f8fa;padding:12px;overflow:auto;white-space:pre-wrap;overflow-wrap:anywhere}
"""


def page(title: str, body: str) -> str:
    """A whole HTML page."""
    return (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def table(header: list[str], rows: list[list[str]]) -> str:
    """An HTML table; cells are HTML."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """The same in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_text(path: str, text: str) -> None:
    """Write a report's text."""
    with storage.open_write(path) as stream:
        stream.write(text.encode())


def write_evaluation(
    manifest: dict[str, Any], labels: list[str], confusion: list[list[int]], *, html: str, markdown: str
) -> None:
    """The report of one evaluation: its scores and what was evaluated."""
    rows = [
        [name, key, f"{value:.4f}", str(axis["num_items"])]
        for name, axis in manifest["axes"].items()
        for key, value in axis["scores"].items()
    ]
    header = ["axis", "score", "value", "items"]
    body = f"<h1>Evaluation</h1>{table(header, [[escape(cell) for cell in row] for row in rows])}"
    if labels and len(labels) <= 30:
        cells = [[escape(label), *map(str, row)] for label, row in zip(labels, confusion, strict=True)]
        body += f"<h2>Given label by true label</h2>{table(['', *map(escape, labels)], cells)}"
    body += f"<h2>Identity</h2><pre>{escape(json.dumps(manifest['identity'], indent=1))}</pre>"
    write_text(html, page("Evaluation", body))
    write_text(markdown, f"# Evaluation\n\n{markdown_table(header, rows)}\n")


def write_comparison(comparison: Comparison, *, html: str, markdown: str) -> None:
    """The report of a comparison."""
    header = ["axis", "base", "candidate", "difference", "95 % bounds", "allowed loss", "items", "verdict"]
    rows = [axis_row(axis) for axis in comparison.axes]
    cells = [[*map(escape, row[:-1]), f'<span class="verdict {row[-1]}">{row[-1]}</span>'] for row in rows]
    advice = "".join(f"<li>{escape(axis.advice)}</li>" for axis in comparison.axes if axis.advice)
    sentence = summary(comparison)
    body = (
        f'<h1>Base against candidate</h1><p class="summary {comparison.verdict}">{escape(sentence)}</p>'
        f"{table(header, cells)}{f'<h2>What to do</h2><ul>{advice}</ul>' if advice else ''}"
        f"<h2>Differences</h2><p>Right of 0 is better; the black mark is the allowed loss.</p>"
        f"{charts.forest([bar(axis) for axis in comparison.axes])}"
        f"<h2>Identity</h2><pre>{escape(json.dumps(comparison.identity, indent=1))}</pre>"
    )
    write_text(html, page("Base against candidate", body))
    lines = [f"# {comparison.verdict}", "", sentence, "", markdown_table(header, rows), ""]
    lines += [f"- {axis.advice}" for axis in comparison.axes if axis.advice]
    write_text(markdown, "\n".join(lines) + "\n")


def axis_row(axis: AxisVerdict) -> list[str]:
    """An axis as the cells of a table."""
    scale, unit, digits = (100.0, " %", 2) if axis.relative else (1.0, "", 4)
    difference, lower, upper = (f"{scale * v:+.{digits}f}{unit}" for v in (axis.difference, axis.lower, axis.upper))
    limit = f"{scale * axis.limit:g}{unit}" if axis.question == "non-inferiority" else "any gain"
    name = f"{axis.axis} ({axis.metric})"
    ends = f"{lower} to {upper}"
    return [
        name,
        f"{axis.base:.4f}",
        f"{axis.candidate:.4f}",
        difference,
        ends,
        limit,
        str(axis.num_items),
        axis.verdict,
    ]


def bar(axis: AxisVerdict) -> charts.Bar:
    """An axis in the forest plot, turned so that right is better."""
    sign = 1.0 if axis.higher_is_better else -1.0
    ends = sorted([sign * axis.lower, sign * axis.upper])
    limit = -axis.limit if axis.question == "non-inferiority" else None
    return charts.Bar(
        name=axis.axis, value=sign * axis.difference, lower=ends[0], upper=ends[1], limit=limit, verdict=axis.verdict
    )


def summary(comparison: Comparison) -> str:
    """The whole comparison in one or two sentences."""
    general = [axis for axis in comparison.axes if axis.question == "non-inferiority"]
    customer = [axis for axis in comparison.axes if axis.question == "superiority"]
    words = {
        "pass": f"Nothing was forgotten beyond what is allowed on {', '.join(axis.axis for axis in general)}.",
        "fail": f"Forgotten: {', '.join(axis.axis for axis in comparison.axes if axis.verdict == 'fail')}.",
        "inconclusive": "Not enough items to say: "
        + ", ".join(axis.axis for axis in general if axis.verdict == "inconclusive")
        + ".",
    }
    told = [
        f"{axis.metric} on the customer's records went from {axis.base:.3f} to {axis.candidate:.3f}."
        for axis in customer
    ]
    return " ".join([words[comparison.verdict], *told])
