"""The ladder from one adapter to full fine-tuning: what comes next, and which candidate is taken."""

from pathlib import Path

import pytest

from mixtune.artifacts.ladder import LORA, SFT, LadderReport, Rung
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.choose.ladder_climb import STOP, climb, decide, next_options, report_ladder
from mixtune.choose.mix_choice import Outputs
from mixtune.errors import ConfigError, TrainingError

from ..comparisons import make_axis, make_comparison, make_mix


def rung(
    verdict: str, score: float = 0.7, *, kept: bool = True, method: str = LORA, percent: float = 75.0, steps: int = 100
) -> Rung:
    axes = [make_axis("customer", "pass", score), make_axis("mmlu", "pass" if kept else "fail", 0.5)]
    comparison = make_comparison(
        verdict,
        *([] if verdict == "failed" else axes),
        mix=make_mix(percent, num_steps=steps),
        model_uri=f"m-{score}",
    )
    return Rung(name=f"rung {score}", comparison=comparison, method=method, lora_rank=16, lora_alpha=32)


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
    decision = decide(rungs, 0.8, budget)
    assert decision.action == action
    assert reason in decision.reason


def test_the_next_candidate_keeps_the_options_and_full_fine_tuning_none_of_an_adapters() -> None:
    options = {"lora_rank": 16, "lora_options": {"use_rslora": True}, "memory": {"shard_base": True}}
    another = decide([rung("pass", 0.7)], 0.8, 0)
    assert next_options(another, options) == {**options, "lora_rank": 64, "lora_alpha": 128}
    full = decide([rung("pass"), rung("pass")], 0.8, 100)
    assert next_options(full, options) == {"memory": {"shard_base": True}}


def test_without_a_target_a_certain_gain_is_enough() -> None:
    assert decide([rung("pass", 0.6)], 0.0, 0).action == STOP


def test_the_report_takes_the_passing_rung_with_the_largest_gain(tmp_path: Path) -> None:
    outputs = write(tmp_path, [rung("pass", 0.6), rung("pass", 0.7), rung("fail", 0.9, kept=False, method=SFT)])
    report = report_ladder(str(tmp_path / "ladder"), outputs, {})
    assert report.verdict == "pass" and report.recommended and report.recommended.model_uri == "m-0.7"
    assert (
        "misses the target of 0.8. The ladder ended since full fine-tuning is the last rung"
        in (tmp_path / "summary").read_text()
    )
    assert "full, 75 %" in (tmp_path / "report").read_text()
    assert read_artifact(LadderReport, str(tmp_path / "chosen")) == report


@pytest.mark.parametrize(("verdicts", "verdict"), [(("fail", "inconclusive"), "inconclusive"), (("fail",), "fail")])
def test_nothing_is_taken_where_nothing_passed(verdicts: tuple[str, ...], verdict: str, tmp_path: Path) -> None:
    outputs = write(tmp_path, [rung(name, kept=False) for name in verdicts])
    report = report_ladder(str(tmp_path / "ladder"), outputs, {})
    assert (report.verdict, report.recommended) == (verdict, None)


def test_a_ladder_without_one_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="LoRA rank 16, 75 %"):
        report_ladder(str(tmp_path / "ladder"), write(tmp_path, [rung("failed")]), {})


def test_a_method_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="method is lora or sft; got 'rlhf'"):
        rung("pass", method="rlhf")


def write(folder: Path, rungs: list[Rung]) -> Outputs:
    """A ladder as `climb` leaves it, rung by rung."""
    for number, item in enumerate(rungs):
        write_artifact(str(folder / "comparison"), item.comparison)
        candidate = {"method": item.method, "lora_rank": 16, "lora_alpha": 32}
        earlier = str(folder / "ladder") if number else ""
        budget = {"target": 0.8, "sft_max_steps": 500}
        climb(str(folder / "comparison"), candidate, earlier, str(folder / "ladder"), budget)
    return Outputs(
        json_path=str(folder / "chosen"), html_path=str(folder / "report"), markdown_path=str(folder / "summary")
    )
