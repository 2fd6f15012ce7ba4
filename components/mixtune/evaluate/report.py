"""The report of one evaluation: HTML for a browser, Markdown for the pipeline's page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mixtune.artifacts.samples import AxisSummary, Samples
from mixtune.evaluate.benchmarks.form import ClassScores
from mixtune.report import confusion_table, pages


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The results of one evaluation."""

    samples: Samples
    labels: Sequence[str] = ()
    """Classes of the confusion table; none: no table."""
    confusion: Sequence[Sequence[int]] = ()
    """Counts of given (column) by true label (row)."""
    per_class: Sequence[ClassScores] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """`<axis>_<metric>` and number of items, under names that KFP's page can show."""
        axes = self.samples.axes.items()
        scores = {f"{name}_{axis.metric}": axis.score for name, axis in axes}
        return {**scores, **{f"{name}_items": float(axis.num_items) for name, axis in axes}}


def write(evaluation: Evaluation, *, html: str, markdown: str) -> None:
    """Write the scores and what was evaluated, to two paths."""
    axes = evaluation.samples.axes.items()
    rows = [
        [name, key, f"{value:.4f}", str(axis.num_items)] for name, axis in axes for key, value in axis.scores.items()
    ]
    rows += [
        [name, text, str(count), str(axis.num_items)] for name, axis in axes for text, count in _counts(axis) if count
    ]
    header = ["axis", "score", "value", "items"]
    body = f"<h1>Evaluation</h1>{pages.table(header, rows, texts=2)}"
    if evaluation.labels:
        table = confusion_table.confusion(list(evaluation.labels), [list(row) for row in evaluation.confusion])
        body += f"<h2>Given label by true label</h2>{table}"
    if evaluation.per_class:
        body += f"<h2>By label</h2>{_by_label(evaluation.per_class)}"
    body += f"<h2>What was run</h2>{pages.key_value_table(asdict(evaluation.samples.identity))}"
    pages.write_text(html, pages.page("Evaluation", body))
    pages.write_text(markdown, f"# Evaluation\n\n{pages.markdown_table(header, rows)}\n")


def _by_label(rows: Sequence[ClassScores]) -> str:
    """Return the scores of every label; one that no test record has shows none, and is named below."""
    lines = []
    for row in rows:
        scores = [f"{score:.4f}" if row.records else "–" for score in (row.precision, row.recall, row.f1)]
        lines.append([row.label, *scores, str(row.records)])
    absent = [row.label for row in rows if not row.records]
    table = pages.table(["label", "precision", "recall", "F1", "test records"], lines)
    return table + (pages.note(f"Not measured, for want of test records: {', '.join(absent)}.") if absent else "")


def _counts(axis: AxisSummary) -> list[tuple[str, int]]:
    """Return what of an axis's items is odd, each with how many."""
    cut = f"answers cut at {axis.max_new_tokens} tokens or at the model's length"
    return [
        ("items that could not be scored, and count as wrong", axis.errors),
        ("items without a label, left out", axis.left_out),
        (cut if axis.max_new_tokens else "prompts cut to the model's length", axis.truncated),
        ("answers with a thought, which is not scored", axis.thoughts),
        ("thoughts that never ended, and count as wrong", axis.unfinished),
    ]
