"""What to do after a verdict: a command that can be pasted, and never to serve what gained nothing."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from mixtune.artifacts.grid import Candidate, GridReport
from mixtune.artifacts.run_report import is_gain_proved
from mixtune.artifacts.shards import MixReceipt, PoolReceipt
from mixtune.commands.arguments import find_pipeline, package_files, read_arguments
from mixtune.commands.local.work_dir import WorkDir
from mixtune.report.next_steps import known_arguments, next_steps, with_words
from mixtune.settings.from_dict import Options

from ..comparisons import make_axis, make_comparison, make_mix

RUN = "finetune-20260101-000000-abcd"


def shown(verdict: str, arguments: Options | None = None, *, gained: bool = True) -> str:
    steps = next_steps(verdict, RUN, arguments, gained=gained)
    return "\n".join(f"{step.text}: {step.command}" for step in steps)


def test_a_model_that_passed_is_used() -> None:
    text = shown("pass")
    assert all(f"mixtune {word} {RUN}" in text for word in ("chat", "merge", "register", "serve"))


@pytest.mark.parametrize("verdict", ["pass", "inconclusive"])
def test_a_model_that_gained_nothing_for_sure_is_trained_longer_and_never_served(verdict: str) -> None:
    text = shown(verdict, {"max_steps": 16}, gained=False)
    assert "No gain on your records is proved" in text and "max_steps=32" in text
    assert "customer_epochs=6" in shown(verdict, {"customer_epochs": 3.0}, gained=False)
    assert not any(word in text for word in ("serve", "register", "would not tell more"))


def test_a_gain_that_few_items_could_not_prove_is_looked_for_in_all_of_them_first() -> None:
    first, second, *_ = shown("inconclusive", {"max_steps": 16, "evaluate_options": {"limit": 60}}, gained=False).split(
        "\n"
    )
    assert first.endswith("evaluate_options.limit=0") and "max_steps=32" in second


def test_a_page_that_knows_a_run_by_its_comparison_alone_proposes_what_its_mix_leads_to() -> None:
    known = known_arguments([make_comparison("fail", mix=make_mix(75, num_steps=30))])
    assert "customer_data_percent=50" in shown("fail", known) and "max_steps=60" in shown("pass", known, gained=False)
    customer = PoolReceipt(name="customer", planned_share=0.5, epochs=2.006)
    mixes = [make_mix(50, num_steps=steps, receipt=MixReceipt(pools=(customer,))) for steps in (20, 30)]
    grid = known_arguments([make_comparison("pass", mix=mix) for mix in mixes])
    assert "customer_epochs=4" in shown("pass", grid, gained=False), "mixes of as many epochs have other steps"


def test_too_few_items_are_all_taken_before_larger_files_are_asked_for() -> None:
    assert "evaluate_options.limit=0" in shown("inconclusive", {"evaluate_options": {"limit": 30}})
    assert "larger benchmark files" in shown("inconclusive")


def test_a_gain_is_proved_where_the_customers_axis_passes_or_was_not_measured() -> None:
    kept = make_axis("mmlu", "pass", 0.5)
    assert not is_gain_proved(make_comparison("pass", kept, make_axis("customer", "inconclusive", 0.1)))
    assert is_gain_proved(make_comparison("pass", kept, make_axis("customer", "pass", 0.6)))
    assert is_gain_proved(make_comparison("pass", kept))


def test_the_commands_after_a_run_in_another_folder_find_it_there(tmp_path: Path) -> None:
    work = WorkDir.at(str(tmp_path / "my work"))
    steps = with_words(next_steps("pass", RUN), work.words)
    assert all(step.command.endswith(f" --work-dir '{tmp_path}/my work'") for step in steps)
    assert with_words(next_steps("inconclusive", RUN), work.words) == next_steps("inconclusive", RUN)
    assert WorkDir.at("mixtune-work").words == []


@pytest.mark.parametrize("gained", [True, False])
@pytest.mark.parametrize("verdict", ["", "pass", "fail", "inconclusive"])
@pytest.mark.parametrize("pipeline", package_files("compiled"), ids=lambda path: path.stem)
def test_a_run_that_is_proposed_takes_the_arguments_that_are_proposed(
    pipeline: Path, verdict: str, gained: bool
) -> None:
    for step in next_steps(verdict, f"{pipeline.stem}-20260101-000000-abcd", {}, gained=gained):
        words = shlex.split(step.command)
        if words[1:2] == ["run"]:
            assert words[3] == "--like"
            read_arguments(find_pipeline(words[2]), words[5:], complete=False)


def test_what_forgot_is_drawn_back_or_given_less_of_the_customers_records() -> None:
    def after(pipeline: str, arguments: Options | None = None) -> str:
        return next_steps("fail", f"{pipeline}-20260101-000000-abcd", arguments)[0].command

    assert after("mix_grid").endswith(" 'customer_data_percents=[25]'"), "of its default's smallest"
    assert after("restore").endswith(" customer_data_percent=12.5"), "of its default"
    assert "mixtune run restore --like evaluate_only-" in after("evaluate_only")


def test_after_a_search_the_next_step_is_what_its_report_says() -> None:
    run, axes = "find_mix-20260101-000000-abcd", (make_axis("mmlu", "inconclusive", 0.5),)
    last = replace(make_comparison("inconclusive", *axes), limit=60, model_uri="work/model#1#" + 32 * "0")
    report = GridReport(
        verdict="inconclusive", reason="", recommended=None, candidates=(Candidate(name="25 %", comparison=last),)
    )

    def after(report: GridReport, *, gained: bool = True) -> list[str]:
        return [step.command or step.text for step in next_steps(report.verdict, run, gained=gained, report=report)]

    evaluate = f"run evaluate_only --like {run} 'model_uri=work/model#1' evaluate_options.limit=0"
    assert [text.endswith(evaluate) for text in after(report)] == [True]
    both = after(replace(report, likelier_percent=20.0), gained=False)
    assert both[0].endswith(evaluate) and both[1].endswith(f"run finetune --like {run} customer_data_percent=20")
    whole = replace(report, verdict="fail", candidates=(Candidate(name="25 %", comparison=replace(last, limit=0)),))
    assert after(whole)[0].startswith("More general records make no pass likely: give more benchmark items")
    for command in both:
        words = shlex.split(command)
        read_arguments(find_pipeline(words[2]), words[5:], complete=False)


@pytest.mark.parametrize("pipeline", ["mix_grid", "find_mix", "lora_then_sft"])
def test_no_model_is_talked_to_where_none_of_several_is_recommended(pipeline: str) -> None:
    run = f"{pipeline}-20260101-000000-abcd"
    assert not any("chat" in step.command for step in next_steps("fail", run))
    assert any("chat" in step.command for step in next_steps("fail", RUN))
