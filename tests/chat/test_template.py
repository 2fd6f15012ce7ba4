"""One chat template: the text that transformers renders, and the tokens that only the template may write."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mixtune.chat.sandbox import TEMPLATE_DATE
from mixtune.chat.template import ChatTemplate, TemplateRefusal
from mixtune.chat.template_files import read_templates, templates_digest
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.errors import ModelError
from mixtune.models import tokenizer_digest
from mixtune.records import Message, template_messages, template_tools

from ..chat_models import CHATML, make_tokenizer, save_model
from .test_turns import MARKED, SHAPES

TOOLS = [{"name": "look", "description": "Looks <b>it</b> up.", "parameters": {"type": "object", "properties": {}}}]
MESSAGES: list[Message] = [
    {"role": "user", "content": "Where is “it”?"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "look", "arguments": {"at": "Maße & 日本"}}]},
    {"role": "tool", "content": "Here."},
    {"role": "assistant", "content": "It is here."},
]
DATE = "%d %b %Y"
CORNERS = (
    "{%- set ns = namespace(first=true) -%}{% for m in messages %}{% if loop.index > 3 %}{% break %}{% endif %}"
    "{% if ns.first %}{{ bos_token }}{{ strftime_now('" + DATE + "') }}{% set ns.first = false %}{% endif %}\n"
    "    {% if tools %}{{ tools | tojson(indent=2) }}{% endif %}\n{{ m.content | trim }}{{ dict(a=m.role) | tojson }}\n"
    "{% if m.tool_calls is defined %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{% endfor %}{{ unk }}"
)
"""Loops that break, namespaces, trimmed blocks, JSON with letters beyond ASCII, today's date, undefined names."""


@pytest.mark.parametrize("name", [*SHAPES, "corners"])
@pytest.mark.parametrize("prompt", [False, True])
def test_the_text_is_that_of_transformers(tmp_path: Path, name: str, prompt: bool) -> None:
    template, special, _ = SHAPES.get(name, (CORNERS, ["<s>"], ""))
    folder = save_model(tmp_path, template, special, bos_token=special[0])
    messages, tools = template_messages(MESSAGES), template_tools(TOOLS)
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=prompt
    )
    theirs = theirs.replace(date.today().strftime(DATE), TEMPLATE_DATE.strftime(DATE))
    assert ChatTemplate.load(folder).render(messages, tools, prompt=prompt).text == theirs


def test_generation_marks_are_those_of_transformers(tmp_path: Path) -> None:
    folder = save_model(tmp_path, MARKED, SHAPES["marked"][1])
    messages = [*template_messages(MESSAGES[:1]), *template_messages(MESSAGES[3:])] * 2
    text, marks = ChatTemplate.load(folder).render(messages)
    theirs = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True
    )
    mine = "".join(text[start:end] for start, end in marks)
    mask, ids = theirs["assistant_masks"], theirs["input_ids"]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert mine == tokenizer.decode([token for token, learned in zip(ids, mask, strict=True) if learned])
    assert len(marks) == 2


def folder_with(tmp_path: Path, tokenizer: Tokenizer, template: str, **names: Any) -> Path:
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    fast.chat_template = template
    fast.save_pretrained(tmp_path)
    return tmp_path


def test_a_control_token_is_an_added_token_that_is_special_or_that_the_template_writes(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(["<|im_start|>", "<|im_end|>", "<|unused|>"], plain=["<think>", "<plain>", "\n\n"])
    template = CHATML + "{# <plain> #}{{ '<think>' }}\n\n{{ '<new' + '>' }}"
    folder = folder_with(tmp_path, tokenizer, template)
    chat_template = ChatTemplate.load(folder)
    assert set(chat_template.control_tokens) == {"<|im_start|>", "<|im_end|>", "<|unused|>", "<think>"}
    assert chat_template.control_tokens["<think>"] == tokenizer.token_to_id("<think>")
    special = {"<|im_start|>", "<|im_end|>", "<|unused|>"}
    assert chat_template.special_ids == {tokenizer.token_to_id(text) for text in special}


MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "named": {"eos_token": "<|im_end|>", "bos_token": "<|im_start|>"},
    "named and not flagged": {"eos_token": AddedToken("<|im_end|>", special=False)},
    "extra": {"extra_special_tokens": ["<|plain|>"]},
    "by name": {"extra_special_tokens": {"image_token": "<|plain|>"}, "eos_token": "<|im_end|>"},
}


@pytest.mark.parametrize("form", [*MODELS, "legacy", "demo"])
def test_a_model_folder_says_what_its_loaded_tokenizer_says(tmp_path: Path, form: str) -> None:
    folder = tmp_path
    if form == "demo":
        folder = BASE_MODEL
    else:
        tokenizer = make_tokenizer(["<|im_start|>"], plain=["<|im_end|>", "<|plain|>"])
        folder_with(folder, tokenizer, CHATML, **MODELS.get(form, {}))
    if form == "legacy":  # before transformers 4.34
        config = json.loads((folder / "tokenizer_config.json").read_text())
        config.pop("added_tokens_decoder", None)
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        named = {"eos_token": {"content": "<|im_end|>", "lstrip": False}, "additional_special_tokens": ["<|plain|>"]}
        (folder / "special_tokens_map.json").write_text(json.dumps(named))
    loaded = AutoTokenizer.from_pretrained(folder)
    mine, theirs = ChatTemplate.load(folder), ChatTemplate.of(loaded)
    assert mine.control_tokens == theirs.control_tokens
    assert mine.special_ids == theirs.special_ids
    assert mine.special_tokens == theirs.special_tokens == loaded.special_tokens_map
    assert mine.digest == theirs.digest == templates_digest(read_templates(folder)) != ""


def test_templates_are_found_wherever_transformers_finds_them(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, make_tokenizer(["<|im_start|>", "<|im_end|>"]), CHATML)
    assert read_templates(folder) == {"default": CHATML}
    (folder / "chat_template.jinja").unlink()
    assert read_templates(folder) == {}
    with pytest.raises(ModelError, match=r"no chat template; save one as .* or give chat_template_uri"):
        ChatTemplate.load(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    named = [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": "tools! " + CHATML}]
    for form in (named, {item["name"]: item["template"] for item in named}):
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": form}))
        assert read_templates(folder) == {item["name"]: item["template"] for item in named}
    (folder / "chat_template.jinja").write_text("from a file")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("tools, from a file")
    assert read_templates(folder) == {"default": "from a file", "tool_use": "tools, from a file"}
    assert AutoTokenizer.from_pretrained(folder).chat_template == read_templates(folder)


def test_a_conversation_with_tools_is_rendered_by_the_template_for_them(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, make_tokenizer(["<|im_start|>", "<|im_end|>"]), CHATML)
    (folder / "additional_chat_templates").mkdir()
    without = tokenizer_digest(folder)
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("{{ tools | length }}" + CHATML)
    assert tokenizer_digest(folder) != without
    template = ChatTemplate.load(folder)
    plain, with_tools = template.conversation(MESSAGES[:1]), template.conversation(MESSAGES[:1], TOOLS)
    assert template.render(plain.messages, plain.tools).text.startswith("<|im_start|>user")
    assert template.render(with_tools.messages, with_tools.tools).text.startswith("1<|im_start|>user")


def test_text_that_spells_control_tokens_is_set_aside_and_comes_back_where_it_was(chatml: Path) -> None:
    template = ChatTemplate.load(chatml)
    messages: list[Message] = [
        {"role": "user", "content": "a<|im_end|>\ufdd0b<|im_start|>"},
        {"role": "assistant", "content": "<|im_end|>!"},
    ]
    conversation = template.conversation(messages)
    assert conversation.aside == ["<|im_end|>", "<|im_start|>", "<|im_end|>"]
    text = template.render(conversation.messages).text
    assert template.control_pattern.findall(text) == ["<|im_start|>", "<|im_end|>"] * 2
    whole = "<|im_start|>user\na<|im_end|>b<|im_start|><|im_end|>\n<|im_start|>assistant\n<|im_end|>!<|im_end|>\n"
    answer = text.index("assistant\n") + 10
    restored, spans = template.restore(text, [(answer, len(text) - 1)], conversation.aside)
    assert restored.replace("\ufdd2", "").replace("\ufdd3", "") == whole
    ((start, end),) = spans
    assert restored[start:end] == "<|im_end|>!\ufdd2<|im_end|>\ufdd3"
    assert template.conversation(messages[1:] * 2).messages != template_messages(messages[1:] * 2)
    assert template.conversation(MESSAGES).aside == []


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('no system messages') }}", "no system messages"),
        ("{{ messages[0].content.nothing.more }}", "'str object' has no attribute 'nothing'"),
        ("{{ messages[0].content + 1 }}", "TypeError"),
        ("{{ raise_exception('it said ' + messages[0].content) }}", "TemplateError"),
        ("{{ messages[9].content.x }}", "has no element 9"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ messages[0].content.format.__globals__.x }}", "access to attribute '__globals__'"),
    ],
)
def test_whatever_a_template_raises_is_one_error_that_holds_nothing_of_the_record(
    tmp_path: Path, template: str, reason: str
) -> None:
    chat_template = ChatTemplate.load(save_model(tmp_path, template, ["<s>"]))
    with pytest.raises(TemplateRefusal) as caught:
        chat_template.render([{"role": "user", "content": "secret"}])
    assert reason in str(caught.value)
    assert "secret" not in str(caught.value)
    assert chat_template.habits() == ChatTemplate.load(tmp_path).habits()


def test_the_end_of_a_turn_is_the_control_token_after_an_answer(tmp_path: Path) -> None:
    habits = {
        name: ChatTemplate.load(save_model(tmp_path / name, template, special)).habits()
        for name, (template, special, _) in SHAPES.items()
    }
    assert [habits[name].end_of_turn for name in SHAPES] == [
        "<|im_end|>", "<|eot|>", "</turn>", "</s>", "<|im_end|>", "<|end|>"
    ]  # fmt: skip
    assert [name for name in SHAPES if habits[name].has_marks] == ["marked"]


@pytest.mark.parametrize(
    "template", ["{{ dict.mro() }}", "{{ namespace.__init__.x }}", "{% set n = namespace() %}{% set n._x = 1 %}"]
)
def test_a_template_cannot_reach_out_of_its_sandbox(tmp_path: Path, template: str) -> None:
    with pytest.raises(TemplateRefusal):
        ChatTemplate.load(save_model(tmp_path, template, ["<s>"])).render([])
