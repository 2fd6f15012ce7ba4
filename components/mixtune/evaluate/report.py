"""The report of one evaluation: HTML for a browser, Markdown for the pipeline's page."""

from typing import Any

from mixtune.report import confusion_table, pages


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
    body = f"<h1>Evaluation</h1>{pages.table(header, rows, texts=2)}"
    if labels:
        body += f"<h2>Given label by true label</h2>{confusion_table.confusion(labels, confusion)}"
    if per_class:
        lines = [
            [one["label"], *(f"{one[key]:.4f}" for key in ("precision", "recall", "f1")), str(one["records"])]
            for one in per_class
        ]
        body += f"<h2>By label</h2>{pages.table(['label', 'precision', 'recall', 'F1', 'records'], lines)}"
    body += f"<h2>What was run</h2>{pages.key_value_table(manifest['identity'])}"
    pages.write_text(html, pages.page("Evaluation", body))
    pages.write_text(markdown, f"# Evaluation\n\n{pages.markdown_table(header, rows)}\n")
