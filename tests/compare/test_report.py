"""The report: self-contained, complete, and safe against what models say."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mixtune.artifacts.comparison import (
    AxisDetails,
    AxisVerdict,
    Comparison,
    Confusion,
    DialVerdict,
    Estimate,
    ItemCounts,
    LostItem,
    Measure,
    Overlap,
    Subgroup,
    TrainedMix,
)
from mixtune.artifacts.samples import Identity
from mixtune.artifacts.shards import MixReceipt, PoolReceipt
from mixtune.compare import comparison_page
from mixtune.compare.advice import advise
from mixtune.compare.paired_stats import superiority
from mixtune.compare.verdicts import overall_verdict
from mixtune.report import charts, confusion_table

from ..comparisons import make_axis, make_comparison

EVIL = "<script>alert('x')</script>"


def axis(name: str, verdict: str, **changes: Any) -> AxisVerdict:
    change = Estimate(difference=-0.05, standard_error=0.01, lower=-0.07, upper=-0.03)
    groups = [Subgroup(name=f"s{n}", num_items=9, base=0.5, candidate=0.4, p_value=0.1) for n in range(57)]
    lost = LostItem(item_id="1", subject="anatomy", text=EVIL, gold="A", base="A", candidate=EVIL)
    return AxisVerdict(
        axis=name,
        verdict=verdict,
        limit=0.02,
        detectable=0.006,
        items=ItemCounts(total=14042, lost=9, gained=3),
        measures=(Measure(metric="accuracy", base=0.75, candidate=0.7, change=change),),
        details=AxisDetails(subgroups=tuple(groups), lost_items=(lost,), confusion=changes.pop("confusion", None)),
        **{"form": "mmlu", "question": "non-inferiority", "advice": "raise the general share", **changes},
    )


def comparison(*axes: AxisVerdict, verdict: str = "fail") -> Comparison:
    identity = Identity(base_model="b1", dtype="float32", versions={"torch": "2"})
    pool = PoolReceipt(name="chat", planned_share=0.5, share_of_records=0.5, num_records=10)
    overlap = Overlap(axis="mmlu", num_items=9, searched=8, exact=0, short_exact=1, partial=2, mean_coverage=0.01)
    return Comparison(
        verdict=verdict,
        axes=axes,
        identity={"base": identity, "candidate": replace(identity, model="a9", model_kind="adapter")},
        limit=0,
        contamination=(overlap,),
        mix=TrainedMix(
            digest="d7", seed=42, mix_ratio=0.5, num_steps=9, global_batch_size=32, receipt=MixReceipt(pools=(pool,))
        ),
    )


class Tags(HTMLParser):
    """Collects tags, and that every one is closed in its place."""

    VOID = ("meta", "line", "circle", "rect", "path", "br")

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.fixture
def written(tmp_path: Path) -> str:
    confusion = Confusion(labels=("a", "b"), base=((1, 2), (3, 4)), candidate=((3, 0), (1, 6)))
    customer = axis("customer", "pass", question="superiority", form="classification", confusion=confusion, advice="")
    comparison_page.write_comparison(
        comparison(axis("mmlu", "fail"), customer), html=str(tmp_path / "r.html"), markdown=str(tmp_path / "r.md")
    )
    return (tmp_path / "r.html").read_text()


def test_the_page_is_one_file_without_script_or_network(written: str) -> None:
    tags = Tags()
    tags.feed(written)
    assert not tags.open
    assert {"svg", "table", "style", "details"} <= tags.seen
    assert not {"script", "link", "img", "iframe"} & tags.seen
    assert not re.search(r"(src|href)=|url\(|@import", written)


def test_what_models_say_is_shown_as_text(written: str) -> None:
    assert EVIL not in written
    assert "&lt;script&gt;" in written


def test_the_page_says_verdict_numbers_identity_and_mix(written: str) -> None:
    for words in ("Forgotten: mmlu.", "raise the general share", "0.7500", "-0.0700 to -0.0300", "14,042", "a9 (adapter)",
                  "Mix receipt", "chat", "Overlap with the training data", "Given label by true label", "9 lost, 3 gained",
                  "torch version"):  # fmt: skip
        assert words in written, words


def test_a_loss_on_the_customers_records_is_not_called_forgotten() -> None:
    own = replace(axis("customer", "fail", question="superiority"), limit=0.0)
    worse = comparison(axis("mmlu", "pass"), own)
    assert comparison_page.summarize(worse).startswith("Worse on the customer's records, by customer (accuracy).")


@pytest.mark.parametrize(("verdict", "overall"), [("pass", "pass"), ("fail", "fail"), ("inconclusive", "inconclusive")])
def test_a_gain_that_is_asked_for_is_part_of_the_verdict_and_said_where_it_is_missed(
    verdict: str, overall: str
) -> None:
    asked = [make_axis("mmlu", "pass", 0.5), make_axis("customer", verdict, 0.53, limit=0.1)]
    any_gain = [make_axis("mmlu", "pass", 0.5), make_axis("customer", "inconclusive", 0.53)]
    assert overall_verdict(asked) == overall and overall_verdict(any_gain) == "pass"
    assert ("a gain of 0.1 is asked for" in advise(asked[1])) == (verdict != "pass")
    failed = "Less than the gain of 0.1 that is asked for on the customer's records, by customer (accuracy)."
    assert (failed in comparison_page.summarize(comparison(*asked))) == (verdict == "fail")


@pytest.mark.parametrize(
    ("lower", "upper", "verdict"), [(0.06, 0.2, "pass"), (-0.1, 0.04, "fail"), (0.01, 0.2, "inconclusive")]
)
def test_a_gain_is_held_against_what_is_asked_for_by_its_bounds(lower: float, upper: float, verdict: str) -> None:
    gain = Estimate(difference=(lower + upper) / 2, standard_error=0.03, lower=lower, upper=upper)
    assert superiority(gain, 0.05) == verdict


def test_an_inconclusive_axis_is_named() -> None:
    found = comparison_page.summarize(
        comparison(axis("ifeval", "inconclusive"), axis("mmlu", "pass"), verdict="inconclusive")
    )
    assert found == "Not enough items to say: ifeval."


def test_an_interval_that_leaves_the_plot_ends_in_an_arrow() -> None:
    inside = charts.Bar(name="a", value=-0.5, lower=-1.0, upper=0.0, label="", verdict="pass")
    outside = charts.Bar(name="b", value=-40.0, lower=-50.0, upper=-30.0, label="", verdict="fail")
    assert charts.forest([inside]).count("<path") == 0
    assert charts.forest([outside]).count("<path") == 2
    places = [float(x) for x in re.findall(r'x[12]="([\d.]+)"', charts.forest([outside]))]
    assert all(0 <= x <= charts.WIDTH for x in places)


def test_many_labels_are_listed_by_their_largest_confusions() -> None:
    labels = [f"l{number}" for number in range(30)]
    counts = [[0] * 30 for _ in labels]
    counts[3][4], counts[5][6] = 7, 9
    listed = confusion_table.confusion(labels, counts)
    assert listed.index("l5") < listed.index("l3")
    assert "svg" not in listed and "svg" in confusion_table.confusion(labels[:3], [line[:3] for line in counts[:3]])


def test_markdown_has_the_table_and_the_advice(written: str, tmp_path: Path) -> None:
    text = (tmp_path / "r.md").read_text()
    assert text.startswith("# fail\n")
    assert "| mmlu (accuracy) | 0.7500 | 0.7000 |" in text
    assert "- raise the general share" in text


def test_a_restored_model_stands_beside_what_it_was_made_of_and_that_turned_down(tmp_path: Path) -> None:
    trained, half = (make_axis("mmlu", verdict, score) for verdict, score in (("fail", 0.31), ("pass", 0.47)))
    earlier = (
        DialVerdict(strength=0.5, verdict="pass", axes=(half,)),
        DialVerdict(strength=1.0, verdict="fail", axes=(trained,)),
    )
    restored = replace(comparison(make_axis("mmlu", "pass", 0.49), verdict="pass"), earlier=earlier)
    comparison_page.write_comparison(restored, html=str(tmp_path / "r.html"), markdown=str(tmp_path / "r.md"))
    section = (tmp_path / "r.html").read_text().partition("<h2>Restored</h2>")[2].partition("</table>")[0]
    cells = [re.sub("<[^>]*>", " ", row).split() for row in section.split("<tr>")[2:]]
    assert [row[-1] for row in cells] == ["0.5000", "pass", "fail", "pass"]
    assert ["0.4700" in cells[1], "0.3100" in cells[2], "0.4900" in cells[3]] == [True] * 3
    assert "- before, at strength 1: fail" in (tmp_path / "r.md").read_text()


def test_the_page_calls_the_deciding_gain_proved_where_the_verdict_does(tmp_path: Path) -> None:
    axis = make_axis("customer", "pass", 0.56)
    second = replace(axis.measure, metric="auc", significant=False)
    comparison = make_comparison("pass", replace(axis, measures=(axis.measure, second)), make_axis("mmlu", "pass", 0.5))
    comparison_page.write_comparison(comparison, html=str(tmp_path / "r.html"), markdown=str(tmp_path / "r.md"))
    page = (tmp_path / "r.html").read_text()
    assert "a proved gain" in page and not axis.measure.significant, "as Holm has it among all scores"
    assert re.findall(r">(accuracy|auc)</td>(?:<td[^>]*>[^<]*</td>)*?<td[^>]*>((?:not )?proved)</td>", page) == [
        ("accuracy", "proved"),
        ("auc", "not proved"),
    ]
    assert "The first score decides, by its own bounds" in page
