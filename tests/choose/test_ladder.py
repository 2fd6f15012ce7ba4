"""The ladder from one adapter to full fine-tuning: what comes next, and which candidate is taken."""

import json
from pathlib import Path
from typing import Any

import pytest

from mixtune.choose.grid import Outputs
from mixtune.choose.ladder import LORA, SFT, STOP, Rung, climb, next_step, report_ladder
from mixtune.choose.points import Point
from mixtune.errors import TrainingError


def axis(name: str, verdict: str, candidate: float) -> dict[str, Any]:
    return {
        "axis": name, "metric": "accuracy", "base": 0.5, "candidate": candidate, "difference": candidate - 0.5,
        "lower": candidate - 0.52, "upper": candidate - 0.48, "limit": 0.02, "relative": False,
        "higher_is_better": True, "verdict": verdict, "advice": "",
    }  # fmt: skip


def rung(
    verdict: str, score: float = 0.7, *, kept: bool = True, method: str = LORA, percent: float = 75.0, steps: int = 100
) -> Rung:
    axes = {"customer": axis("customer", "pass", score), "mmlu": axis("mmlu", "pass" if kept else "fail", 0.5)}
    point = Point(
        percent=percent,
        verdict=verdict,
        reason="",
        num_steps=steps,
        num_tokens=9,
        axes={} if verdict == "failed" else axes,
    )
    return Rung(method=method, lora_rank=16, lora_alpha=32, model_uri=f"m-{score}", point=point)


@pytest.mark.parametrize(
    ("rungs", "budget", "action", "reason"),
    [
        ([rung("pass", 0.9)], 0, STOP, "the target is reached"),
        ([rung("pass", 0.7)], 0, LORA, "rank 64 in place of 16"),
        ([rung("fail", 0.9, kept=False)], 0, LORA, "50 % customer records in place of more"),
        ([rung("fail", percent=30.0, kept=False)], 0, LORA, "15 % customer records"),
        ([rung("failed")], 500, STOP, "the training failed"),
        ([rung("pass"), rung("pass")], 0, STOP, "none is allowed"),
        ([rung("pass"), rung("pass")], 99, STOP, "would take 100 steps, only 99 are allowed"),
        ([rung("pass"), rung("pass")], 100, SFT, "misses the target"),
        ([rung("pass"), rung("fail", kept=False)], 100, STOP, "would forget more"),
        ([rung("pass"), rung("pass"), rung("pass", method=SFT)], 100, STOP, "last rung"),
    ],
)
def test_the_ladder_goes_on_only_while_it_may_help(rungs: list[Rung], budget: int, action: str, reason: str) -> None:
    step = next_step(rungs, 0.8, budget)
    assert step.action == action
    assert reason in step.reason


def test_without_a_target_a_certain_gain_is_enough() -> None:
    assert next_step([rung("pass", 0.6)], 0.0, 0).action == STOP


def test_the_report_takes_the_passing_rung_with_the_largest_gain(tmp_path: Path) -> None:
    outputs = write(tmp_path, [rung("pass", 0.6), rung("pass", 0.7), rung("fail", 0.9, kept=False, method=SFT)])
    verdict, best = report_ladder(str(tmp_path / "ladder"), outputs, {})
    assert verdict == "pass" and best and best.model_uri == "m-0.7"
    assert (
        "misses the target of 0.8. The ladder ended since full fine-tuning is the last rung"
        in (tmp_path / "summary").read_text()
    )
    assert "full, 75 %" in (tmp_path / "report").read_text()
    assert json.loads((tmp_path / "chosen").read_text())["model_uri"] == "m-0.7"


@pytest.mark.parametrize(("verdicts", "verdict"), [(("fail", "inconclusive"), "inconclusive"), (("fail",), "fail")])
def test_nothing_is_taken_where_nothing_passed(verdicts: tuple[str, ...], verdict: str, tmp_path: Path) -> None:
    outputs = write(tmp_path, [rung(name, kept=False) for name in verdicts])
    assert report_ladder(str(tmp_path / "ladder"), outputs, {}) == (verdict, None)


def test_a_ladder_without_one_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="LoRA rank 16, 75 %"):
        report_ladder(str(tmp_path / "ladder"), write(tmp_path, [rung("failed")]), {})


def write(folder: Path, rungs: list[Rung]) -> Outputs:
    """A ladder as `climb` leaves it, rung by rung."""
    for number, item in enumerate(rungs):
        mix = {"mix_ratio": item.point.percent / 100, "num_steps": item.point.num_steps, "receipt": {"num_tokens": 9}}
        comparison = {
            "mix": mix, "verdict": item.point.verdict, "reason": "", "axes": list(item.point.axes.values()),
            "model_uri": item.model_uri, "identity": {}, "contamination": [], "dial": [],
        }  # fmt: skip
        (folder / "comparison").write_text(json.dumps(comparison))
        candidate = {"method": item.method, "lora_rank": 16, "lora_alpha": 32, "model_uri": item.model_uri}
        earlier = str(folder / "ladder") if number else ""
        budget = {"target": 0.8, "sft_max_steps": 500}
        climb(str(folder / "comparison"), candidate, earlier, str(folder / "ladder"), budget)
    return Outputs(
        grid_path=str(folder / "chosen"), report_path=str(folder / "report"), summary_path=str(folder / "summary")
    )
