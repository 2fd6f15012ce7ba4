"""A confusion table as a drawing, or as a list where there are many labels."""

from collections.abc import Sequence

from mixtune.report import charts
from mixtune.report.pages import note, table

MAX_HEAT = 20
"""Labels at most that a confusion table is drawn for; of more, the largest confusions are listed."""
MAX_LISTED = 15


def confusion(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """Return a confusion table as a drawing, or the largest confusions where there are many labels.

    `counts`, (labels, labels), are records by true (row) and given label (column).
    """
    if len(labels) <= MAX_HEAT:
        lead = note("Shaded by the share of each row; answers that say no label are in no column.")
        return lead + charts.heat(labels, counts)
    wrong = [
        (-count, labels[row], labels[column])
        for row, line in enumerate(counts)
        for column, count in enumerate(line)
        if count and row != column
    ]
    if not wrong:
        return "<p>No record was given a wrong label.</p>"
    rows = [[truth, answer, str(-count)] for count, truth, answer in sorted(wrong)[:MAX_LISTED]]
    return table(["true label", "given label", "records"], rows, texts=2)
