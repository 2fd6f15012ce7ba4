"""Published chat templates, each with every kind of conversation: what is learned is what the model will be asked for."""

import json
import re
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.records import template_messages, template_tools
from mixtune.settings.chat import LOSABLE
from mixtune.settings.mix import TokenSettings

from .families import FILE, KINDS, learn, load_families, make_record, outcomes, read_templates, save_family, turns_of

TEMPLATES = read_templates()
ENDS = re.compile(
    r"(<\|call\|>|<\|return\|>|<\|user\|>|<\|observation\|>|<\|tool_response>|<[^<>]+>|\[\|endofturn\|\])$"
)
CUES = re.compile(r"^(<｜Assistant｜>(<think>)?|<\|start\|>assistant|<｜tool▁outputs▁end｜>|<think></think>|<think>)+")
"""What the marks of some of TRL's templates hold beside the turn: the prompt's end, and empty thoughts."""
OTHERWISE = {
    "phi3": "an end is a mark of its own",
    "diffusion_gemma": "a turn is several marks, and the end of a call is in none",
    "deepseek": "no place for thoughts",
    "glm4moe": "no thoughts in earlier turns",
    "nemotron": "no thoughts in earlier turns",
    "gptoss": "no thoughts in earlier turns",
}
"""Where marks are otherwise, and how."""


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTokenizer]:
    return load_families(tmp_path_factory.mktemp("families"))


def comparable(turn: str) -> str:
    text = CUES.sub("", "".join(turn.split()))
    return re.sub(r"(<\|end\|>)?(<\|endoftext\|>)?$", "", text.removesuffix("<|return|>").removesuffix("<|eot|>"))


def test_the_documents_show_what_becomes_of_every_kind_by_at_least_thirty_templates(
    tokenizers: dict[str, ChatTokenizer],
) -> None:
    assert json.loads(FILE.read_text()) == outcomes(tokenizers), "run python -m tests.chat.families, then make docs"
    assert len(TEMPLATES) >= 30


@pytest.mark.parametrize("kind", KINDS)
def test_every_turn_is_learned_whole_behind_its_prompt_or_the_reason_is_said(
    kind: str, tokenizers: dict[str, ChatTokenizer]
) -> None:
    record = make_record(kind)
    spoken = [m for m in record["messages"] if m["role"] == "assistant" and (m["content"] or "tool_calls" in m)]
    for name, tokenizer in tokenizers.items():
        items = learn(tokenizer, kind)
        if items[0].problem:
            assert len(items) == 1
            assert items[0].problem.startswith("the chat template "), (name, items[0].problem)
            continue
        turns = [turn for item in reversed(items) for turn in turns_of(tokenizer, item)]
        assert len(turns) == len(spoken), name
        for turn, message in zip(turns, spoken, strict=True):
            assert ENDS.search(turn), (name, turn)
            assert message["content"].removeprefix("<think>\nTwo and two.\n</think>\n\n") in turn, name
            assert message.get("reasoning", "") in turn, name
            for call in message.get("tool_calls", []):
                assert all(str(value) in turn for value in ("get_weather", *call["arguments"].values())), name
            assert "What is it?" not in turn
            assert "Sun." not in turn


@pytest.mark.parametrize("kind", ["plain", "several turns", "thought", "several thoughts", "call", "system"])
def test_the_turns_are_those_that_the_training_templates_mark(
    kind: str, tokenizers: dict[str, ChatTokenizer], tmp_path: Path
) -> None:
    record, compared = make_record(kind), 0
    for name, (_, marked) in TEMPLATES.items():
        tokenizer = tokenizers[name]
        items = learn(tokenizer, kind)
        if not marked or items[0].problem or tokenizer.template.habits().part_contents:
            continue
        theirs = ChatTokenizer(save_family(tmp_path / name, name, marked)).template
        conversation = theirs.conversation(record["messages"], record.get("tools"))
        text, marks = theirs.render(conversation.messages, conversation.tools)
        spans = [comparable(text[start:end]) for start, end in marks if text[start:end].strip("\n ")]
        mine = [comparable(turn) for item in reversed(items) for turn in turns_of(tokenizer, item)]
        if any(
            name.startswith(start) and ("thoughts" not in why or "thought" in kind) for start, why in OTHERWISE.items()
        ):
            continue
        assert mine == spans, name
        compared += 1
    assert compared > 5


def test_the_ids_are_those_of_transformers_where_nothing_is_split_or_lifted(
    tokenizers: dict[str, ChatTokenizer], tmp_path: Path
) -> None:
    for name in ("cohere2", "gemma3", "llama3", "lfm2_v2", "phi3", "qwen2_5", "qwen3", "qwen3_6", "nemotron_3_nano"):
        tokenizer, theirs = (
            tokenizers[name],
            AutoTokenizer.from_pretrained(save_family(tmp_path / name, name, TEMPLATES[name][0])),
        )
        for kind in ("plain", "system", "call"):
            items, record = learn(tokenizer, kind), make_record(kind)
            if not items[0].problem:
                ids = theirs.apply_chat_template(
                    template_messages(record["messages"]),
                    tools=template_tools(record.get("tools")),
                    enable_thinking=False,
                    return_dict=False,
                )
                assert items[0].input_ids.tolist() == list(ids), (name, kind)


def test_a_hybrid_model_thinks_as_it_is_chosen(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "qwen3", TEMPLATES["qwen3"][0])

    def texts(thinking: str, kind: str) -> tuple[str, str]:
        tokenizer = ChatTokenizer(folder, TokenSettings(thinking=thinking))
        (item,) = learn(tokenizer, kind)
        return tokenizer.decode(item.input_ids), turns_of(tokenizer, item)[0]

    empty, thought = "<think>\n\n</think>\n\n", "<think>\nTwo and two.\n</think>\n\n"
    assert texts("record", "plain") == texts("off", "plain")
    assert texts("record", "plain")[0].endswith(f"assistant\n{empty}It is four.<|im_end|>\n")
    assert texts("record", "plain")[1] == "It is four.<|im_end|>"
    assert texts("on", "plain")[1] == f"{empty}It is four.<|im_end|>"
    assert texts("record", "thought")[1] == texts("on", "thought in text")[1] == f"{thought}It is four.<|im_end|>"
    assert texts("off", "thought") == texts("off", "plain")


def test_what_is_lost_is_refused_taken_off_or_kept_and_counted(tmp_path: Path) -> None:
    folder = save_family(tmp_path, "gemma", TEMPLATES["gemma"][0])
    for policy in ("drop_field", "keep"):
        tokenizer = ChatTokenizer(folder, TokenSettings(on_lost=dict.fromkeys(LOSABLE, policy)))
        (item,) = learn(tokenizer, "thought")
        assert (turns_of(tokenizer, item), item.lost) == (["It is four.<end_of_turn>"], {"reasoning"})
    (item,) = learn(ChatTokenizer(folder, TokenSettings(on_lost={"system": "keep"})), "system")
    assert item.problem == "the chat template refuses it: System role not supported"
    (item,) = learn(ChatTokenizer(folder, TokenSettings(on_lost={"system": "drop_field"})), "system")
    assert (item.problem, item.lost) == ("", {"system"})
    (item,) = learn(ChatTokenizer(folder), "call")
    assert item.problem == "the chat template has no place for its tool calls"
