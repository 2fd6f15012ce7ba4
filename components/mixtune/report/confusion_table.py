"""A confusion table as a drawing, or as a list where there are many labels."""

from collections.abc import Sequence
from html import escape

from mixtune.report import charts
from mixtune.report.pages import table

MAX_HEAT = 20
"""Labels at most that a confusion table is drawn for; of more, the largest confusions are listed."""
MAX_LISTED = 15


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A confusion table as a drawing, or the largest confusions where there are many labels."""
    if len(labels) <= MAX_HEAT:
        note = "Shaded by the share of each row; answers that say no label are in no column."
        return f'<p class="note">{note}</p>{charts.heat(labels, counts)}'
    wrong = [
        (count, labels[row], labels[column])
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        if count and row != column
    ]
    listed = sorted(wrong, key=lambda one: (-one[0], one[1], one[2]))[:MAX_LISTED]
    rows = [[escape(true), escape(given), str(count)] for count, true, given in listed]
    if not rows:
        return "<p>No record was given a wrong label.</p>"
    return table(["true label", "given label", "records"], rows, texts=2)
