"""The page of one evaluation says what was measured, and what was not."""

from pathlib import Path

from mixtune.artifacts.samples import Samples
from mixtune.evaluate import report
from mixtune.evaluate.benchmarks.form import ClassScores


def test_a_label_without_test_records_is_not_shown_as_if_it_were_measured(tmp_path: Path) -> None:
    scores = [
        ClassScores(label="billing", precision=0.5, recall=0.25, f1=0.3333, records=4),
        ClassScores(label="refund <b>", precision=0.0, recall=0.0, f1=0.0, records=0),
    ]
    page, summary = tmp_path / "page", tmp_path / "summary"
    report.write(report.Evaluation(samples=Samples(), per_class=scores), html=str(page), markdown=str(summary))
    text = page.read_text()
    assert "<td>0.5000</td><td>0.2500</td><td>0.3333</td><td>4</td>" in text
    assert "refund &lt;b&gt;</td><td>–</td><td>–</td><td>–</td><td>0</td>" in text
    assert "Not measured, for want of test records: refund &lt;b&gt;." in text and "0.0000" not in text
