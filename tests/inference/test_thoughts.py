"""Thoughts are no part of an answer, whatever a family writes around them."""

import pytest

from mixtune.chat.thinking import TAGS
from mixtune.inference.thoughts import split_thought, visible_text

ANALYSIS = "<|channel|>analysis<|message|>two and two<|end|><|start|>assistant"


@pytest.mark.parametrize(
    "text",
    [
        "<think>\ntwo and two\n</think>\n\n4",
        "[THINK]two and two[/THINK]4",
        "<seed:think>two and two</seed:think>4",
        "<longcat_think>two and two</longcat_think>4",
        "◁think▷two and two◁/think▷4",
        "<|channel>thought\ntwo and two<channel|>4",
        "<unused94>thought\ntwo and two<unused95>4",
        "<|START_THINKING|>two and two<|END_THINKING|><|START_RESPONSE|>4<|END_RESPONSE|>",
        "<|inner_prefix|>two and two<|inner_suffix|>4",
        "<|begin_of_thought|>two and two<|end_of_thought|>\n<|begin_of_solution|>4<|end_of_solution|>",
        f"{ANALYSIS}<|channel|>final<|message|>4<|return|>",
        "analysistwo and twoassistantfinal4",
        "<thinking>two and two</thinking>4",
        "<thought>two and two</thought>\n4",
        "<reasoning>\ntwo and two\n</reasoning>\n<answer>\n4\n</answer>",
        "Here is my thought process: two and two Here is my response: 4",
        "<think>two and two</think><response>4</response>",
        "<think>two</think>\n<think>and two</think>\n4",
        "two and two</think>4",
        "<Thought>two and two</Thought>\n<Output>4</Output>",
        "<analysis>two and two</analysis>4",
        "<|think|>two and two<|content|>4",
        "<|im_start|>think\ntwo and two\n<|im_start|>answer\n4",
    ],
)
def test_the_thought_of_every_family_is_cut(text: str) -> None:
    answer = split_thought(text)
    assert (answer.text, answer.unfinished) == ("4", False)
    assert answer.thought.split() == ["two", "and", "two"]


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_a_thought_in_marks_that_chat_templates_write_is_cut_from_what_is_answered(opening: str, closing: str) -> None:
    assert split_thought(f"{opening}\ntwo\n{closing}\n\n4") == ("4", "two", False)
    assert split_thought(f"two\n{closing}\n\n4", f"user: 2+2?\n{opening}\n") == ("4", "two", False)


@pytest.mark.parametrize("opening", ["<think>\n", "[THINK]", "<|START_THINKING|>", "<seed:think>"])
def test_a_thought_that_the_prompt_opens_is_cut_and_one_that_never_ends_is_no_answer(opening: str) -> None:
    closing = {"<think>\n": "</think>", "[THINK]": "[/THINK]", "<|START_THINKING|>": "<|END_THINKING|>"}
    end = closing.get(opening, "</seed:think>")
    assert split_thought(f"two{end}4", f"user: 2+2?\n{opening}")[:2] == ("4", "two")
    assert split_thought("two and", f"user: 2+2?\n{opening}") == ("", "two and", True)


@pytest.mark.parametrize("text", ["<think>two and", "<reasoning>two and", ANALYSIS[:-20], "<|channel>thought\ntwo and"])
def test_an_unfinished_thought_is_no_answer(text: str) -> None:
    answer = split_thought(text)
    assert answer.text == "" and answer.unfinished and "two and" in answer.thought


@pytest.mark.parametrize(
    "text",
    ["4", "", "analysis of the data", "Use the <reasoning> tag for </reasoning> it.", "The tag `<think>` opens a thought.",
     "Write `<think>` and `</think>`.", "Close it with </think>.", "```xml\n<think>\nx\n</think>\n```", "<output>4</output>", '{"a": 1}', " 4 \n"],
)  # fmt: skip
def test_an_answer_without_a_thought_stays_as_it_is(text: str) -> None:
    assert split_thought(text) == (text, "", False)


def test_a_call_of_gpt_oss_is_kept_and_its_analysis_is_not() -> None:
    call = '<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 2}'
    answer = split_thought(f"{ANALYSIS}{call}<|call|>")
    assert answer == (call, "two and two", False)


def test_a_reference_that_is_all_thought_is_kept() -> None:
    assert visible_text("<think>a</think>4") == "4"
    assert visible_text("<think>only this") == "<think>only this"
