"""Every kind of page in a real browser: nothing over the edge, legible on dark and narrow screens. Skipped without one."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mixtune.artifacts.comparison import AxisDetails, LostItem, Subgroup
from mixtune.artifacts.grid import Candidate, GridReport, Recommendation
from mixtune.artifacts.model import LossCurve, ModelManifest
from mixtune.artifacts.shards import MixReceipt, PoolReceipt, StageReceipt, WindowReceipt
from mixtune.choose.report_page import write_report
from mixtune.compare.comparison_page import write_comparison
from mixtune.mix_shard.receipt_page import receipt_html
from mixtune.preflight.findings import conclude, look
from mixtune.settings.train import TrainSettings
from mixtune.train.entry import TrainPage
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

from ..comparisons import make_axis, make_comparison

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
WIDTHS = (400, 1000)
LOOK = """
<script>
addEventListener("load", () => {
  const luminance = (color) => {
    const [r, g, b] = color.match(/[\\d.]+/g).map((value) => {
      const share = value / 255; return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const background = (node, view) => {
    for (; node; node = node.parentElement) {
      const color = view.getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$|transparent/.test(color)) return color; }
    return "rgb(255, 255, 255)"; };
  const seen = [...document.querySelectorAll("iframe")].map((frame) => {
    const view = frame.contentWindow, root = frame.contentDocument.documentElement, faint = [];
    for (const node of frame.contentDocument.querySelectorAll("h1,h2,h3,p,td,th,li,span,b,a,summary,pre")) {
      if (!node.textContent.trim()) continue;
      const [a, b] = [luminance(view.getComputedStyle(node).color), luminance(background(node, view))];
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
      if (contrast < 4) faint.push(node.textContent.slice(0, 40)); }
    return { page: frame.title, over: root.scrollWidth - view.innerWidth, faint,
             dark: luminance(background(frame.contentDocument.body, view)) < 0.2 }; });
  document.body.innerHTML = "<pre id=seen></pre>";
  document.getElementById("seen").textContent = JSON.stringify(seen); });
</script>
"""


def comparison(folder: Path) -> str:
    slices = tuple(
        Subgroup(
            name=f"a_slice_with_a_long_name_{n}", num_items=9, base=0.5, candidate=0.1 * n, p_value=0.01, flagged=n < 3
        )
        for n in range(8)
    )
    text = "a question whose words go on and on " * 5
    lost = (LostItem(item_id="1", subject="law", text=text, gold="A", base="A", candidate="b" * 200),)
    axes = (
        make_axis("customer", "pass", 0.7),
        make_axis("mmlu", "fail", 0.3, details=AxisDetails(subgroups=slices, lost_items=lost), advice="mmlu fell."),
        make_axis("general_nll", "pass", 0.4),
    )
    write_comparison(make_comparison("fail", *axes), html=str(folder / "page"), markdown=str(folder / "summary"))
    return (folder / "page").read_text()


def grid(folder: Path) -> str:
    done = make_comparison("pass", make_axis("customer", "pass", 0.7), make_axis("mmlu", "pass", 0.49))
    taken = Recommendation(name="75 %", percent=75, strength=1.0, model_uri=done.model_uri)
    report = GridReport(
        verdict="pass", reason="Take 75 %.", recommended=taken, candidates=(Candidate(name="75 %", comparison=done),)
    )
    write_report("Which mix?", report, html=str(folder / "page"), markdown=str(folder / "summary"))
    return (folder / "page").read_text()


def receipt(_folder: Path) -> str:
    names = ("customer", "instruction-following-and-much-more", "chat")
    pools = tuple(
        PoolReceipt(name=name, planned_share=1 / 3, share_of_records=1 / 3, dropped={"too long": 2}) for name in names
    )
    window = WindowReceipt(
        first_step=0, num_steps=9, records=(1 / 3,) * 3, tokens=(1 / 3,) * 3, loss_tokens=(1 / 3,) * 3
    )
    stages = (StageReceipt(first_step=0, shares=(1 / 3,) * 3),)
    return receipt_html(
        MixReceipt(num_steps=9, global_batch_size=3, pools=pools, windows=(window,), stages=stages, notes=("Look.",))
    )


def preflight(folder: Path) -> str:
    def check() -> list[tuple[str, str]]:
        return [("warn", "an.unbroken.name." * 20)]

    conclude([look("data", check), look("region", list)], "Preflight", [("seed", "42", True)], str(folder / "page"))
    return (folder / "page").read_text()


def training(folder: Path) -> str:
    names = ("customer", "instruction-following-and-much-more")
    pools = tuple(LossCurve(name=name, steps=(1, 50, 99), losses=(3.0, 2.0, 0.5)) for name in names)
    held_out = LossCurve(name="general, held out", steps=(0, 99), losses=(2.0, 2.5), held_out=True)
    where = TrainPage(path=str(folder / "page"), train_options={}, tracking={}, storage={})
    inputs = TrainInputs(shards_path="s", base_model="b")
    task = TrainTask(
        settings=TrainSettings(method="lora"), inputs=inputs, outputs=TrainOutputs(model_path="m", model_uri="m")
    )
    where.write_figures(task, ModelManifest(curves=(*pools, held_out)), checked=False)
    return (folder / "page").read_text()


def seen_by_a_browser(folder: Path, *flags: str) -> list[dict]:
    frames = []
    for make in (comparison, grid, receipt, preflight, training):
        text = html.escape(make(folder))
        frames += [
            f'<iframe title="{make.__name__} {width}" width="{width}" height="900" srcdoc="{text}"></iframe>'
            for width in WIDTHS
        ]
    (folder / "all.html").write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{''.join(frames)}{LOOK}</body>")
    assert BROWSER
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'profile'}", *flags]
    words = [*command, "--virtual-time-budget=5000", "--dump-dom", (folder / "all.html").as_uri()]
    dom = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    (found,) = re.findall(r'<pre id="seen">(.*?)</pre>', dom, re.S)
    return list(json.loads(html.unescape(found)))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_pages_fit_their_window_and_can_be_read(dark: bool, tmp_path: Path) -> None:
    looks = seen_by_a_browser(tmp_path, *(["--blink-settings=preferredColorScheme=0"] if dark else []))
    assert len(looks) == 5 * len(WIDTHS)
    assert {look["page"]: look["over"] for look in looks if look["over"] > 0} == {}
    assert {look["page"]: look["faint"] for look in looks if look["faint"]} == {}
    assert {look["dark"] for look in looks} == {dark}


def test_a_word_in_italics_is_no_bar_and_no_title_is_cut_within_a_word(tmp_path: Path) -> None:
    text = comparison(tmp_path)
    assert "<i>Detectable</i>" in text and not re.search(r"[},]i\{", text)
    (title,) = re.findall(r"<summary>law: (.*?)</summary>", text)
    assert title.endswith(" …") and title.removesuffix(" …").split()[-1] in [
        "a",
        "question",
        "whose",
        "words",
        "go",
        "on",
        "and",
        "on",
    ]
    assert "3 of 8 slices got worse beyond chance" in text
    assert "mixtune run finetune --like RUN_ID customer_data_percent=" in text
