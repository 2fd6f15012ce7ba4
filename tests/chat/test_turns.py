"""Six shapes of chat template, as the common model families write them; each written here."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from mixtune.chat import planner
from mixtune.chat.refused_share import ALWAYS_THINKS, way_out
from mixtune.chat.template import ChatTemplate, Conversation
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.chat.turns import Examples, find_examples
from mixtune.errors import ConfigError
from mixtune.inference.prompts import AskingTokenizer, render_prompt
from mixtune.records import Message, Record, content_id
from mixtune.settings.mix import TokenSettings

from ..chat_models import CHATML, save_model

LLAMA = (
    "{{ '<|begin|>' }}{% for m in messages %}{{ '<|head|>' + m.role + '<|/head|>\n\n' + m.content | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
GEMMA = (
    "{{ '<bos>' }}{% for m in messages %}{{ '<turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' "
    "+ m.content | trim + '</turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}"
)
MISTRAL = (
    "{{ '<s>' }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}{% endfor %}"
)
QWEN = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endif %}{% for m in messages %}{% if m.role == 'tool' %}{{ '<|im_start|>user\n<tool_response>\n' + m.content "
    "+ '\n</tool_response><|im_end|>\n' }}{% else %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.reasoning_content %}"
    "{{ '<think>\n' + m.reasoning_content + '\n</think>\n\n' }}{% endif %}{{ m.content }}{% for c in m.tool_calls %}"
    "{{ '\n<tool_call>\n' + (c.function | tojson) + '\n</tool_call>' }}{% endfor %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
MARKED = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content "
    "+ '<|end|>' }}{% endgeneration %}{% else %}{{ m.content + '<|end|>' }}{% endif %}{% endfor %}"
)
SHAPES = {
    "chatml": (CHATML, ["<|im_start|>", "<|im_end|>"], "One.<|im_end|>Two?\nYes.<|im_end|>"),
    "llama": (LLAMA, ["<|begin|>", "<|head|>", "<|/head|>", "<|eot|>"], "One.<|eot|>Two?\nYes.<|eot|>"),
    "gemma": (GEMMA, ["<bos>", "<turn>", "</turn>"], "One.</turn>Two?\nYes.</turn>"),
    "mistral": (MISTRAL, ["<s>", "</s>", "[INST]", "[/INST]"], " One.</s> Two?\nYes.</s>"),
    "qwen": (QWEN, ["<|im_start|>", "<|im_end|>"], "One.<|im_end|>Two?\nYes.<|im_end|>"),
    "marked": (MARKED, ["<|user|>", "<|assistant|>", "<|end|>"], "One.<|end|>Two?\nYes.<|end|>"),
}


def conversation() -> Record:
    said = ["What is first?", "One.", "And then?", "Two?\nYes."]
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    return {"id": content_id(messages), "messages": messages, "origin": {"file": "made.jsonl", "line": 1}}


def learned_texts(tokenizer: ChatTokenizer, record: Record) -> list[str]:
    items = list(tokenizer.tokenize([record]))
    assert [item.problem for item in items] == [""] * len(items)
    return [tokenizer.decode(item.input_ids[item.loss_mask == 1]) for item in items]


def learned(tokenizer: ChatTokenizer, record: Record) -> str:
    (text,) = learned_texts(tokenizer, record)
    return text


@pytest.mark.parametrize("shape", SHAPES)
def test_every_answer_and_its_end_of_turn_are_learned_and_nothing_else(tmp_path: Path, shape: str) -> None:
    template, special, wanted = SHAPES[shape]
    tokenizer = ChatTokenizer(save_model(tmp_path, template, special))
    assert learned(tokenizer, conversation()) == wanted


@pytest.mark.parametrize("shape", SHAPES)
def test_a_turn_that_is_context_alone_is_in_the_text_and_not_learned(tmp_path: Path, shape: str) -> None:
    template, tokens, expected = SHAPES[shape]
    tokenizer = ChatTokenizer(save_model(tmp_path, template, tokens))
    for number in (1, 3):
        record = conversation()
        record["messages"][number]["learn"] = False
        for _ in range(3):  # alone, planned, by the plan
            (item,) = tokenizer.tokenize([record])
            assert (item.problem, tokenizer.decode(item.input_ids[item.loss_mask == 1]) in expected) == ("", True)
            assert ("Two?" in tokenizer.decode(item.input_ids[item.loss_mask == 1])) == (number == 1)
            assert "One." in tokenizer.decode(item.input_ids)
        assert learned(tokenizer, conversation()) == expected


def test_reasoning_and_tool_calls_are_learned_and_what_the_tool_says_is_not(tmp_path: Path) -> None:
    tokenizer = ChatTokenizer(save_model(tmp_path, *SHAPES["qwen"][:2]))
    record = conversation()
    record["tools"] = [{"name": "look", "description": "", "parameters": {"type": "object", "properties": {}}}]
    record["messages"][1:3] = [
        {"role": "assistant", "content": "", "reasoning": "I look.", "tool_calls": [{"name": "look", "arguments": {}}]},
        {"role": "tool", "content": "It is two."},
    ]
    text = learned(tokenizer, record)
    assert text.startswith("<think>\nI look.\n</think>")
    assert '"name": "look"' in text
    assert "It is two." not in text
    assert text.endswith("Two?\nYes.<|im_end|>")


@pytest.mark.parametrize("shape", SHAPES)
def test_turns_of_other_roles_are_learned_where_they_are_asked_for(tmp_path: Path, shape: str) -> None:
    template, special, answers = SHAPES[shape]
    folder = save_model(tmp_path, template, special)
    end = answers[answers.rindex("Yes.") + 4 :]
    asked = "What is first?And then?" if shape == "mistral" else f"What is first?{end}And then?{end}"
    assert learned(ChatTokenizer(folder, TokenSettings(train_on=("user",))), conversation()) == asked
    both = learned(ChatTokenizer(folder, TokenSettings(train_on=("user", "assistant"))), conversation())
    assert sorted(both.replace(" ", "")) == sorted((asked + answers).replace(" ", ""))
    assert both.index("What is first?") < both.index("One.") < both.index("And then?") < both.index("Yes.")


def test_a_turn_that_later_prompts_show_without_its_thought_is_an_example_of_its_own(tmp_path: Path) -> None:
    template = QWEN.replace("{% if m.reasoning_content %}", "{% if m.reasoning_content and loop.last %}")
    tokenizer = ChatTokenizer(save_model(tmp_path, template, SHAPES["qwen"][1]))
    record = conversation()
    record["messages"][1]["reasoning"], record["messages"][3]["reasoning"] = "Early.", "Late."
    assert learned_texts(tokenizer, record) == [
        "<think>\nLate.\n</think>\n\nTwo?\nYes.<|im_end|>",
        "<think>\nEarly.\n</think>\n\nOne.<|im_end|>",
    ]


HEADS = "{% for m in messages %}{{ '<|' + m.role + '|>' + (SHOWN if m.role == 'assistant' else '') + m.content + '<|end|>' }}"
HEADS += "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' + ASKED }}{% endif %}"
FORMS = {
    "opened by a switch": ("'</think>'", "('<think>' if thinking else '</think>')", "</think>", "Hm.</think>"),
    "empty in the prompt": ("''", "('' if enable_thinking else '<think>\n</think>')", "<think>\n</think>", "<think>\nHm.</think>"),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_a_thought_that_a_template_leaves_out_is_learned_as_the_model_writes_it(tmp_path: Path, form: str) -> None:
    shown, asked, shut, thought = FORMS[form]
    template = HEADS.replace("SHOWN", shown).replace("ASKED", asked)
    special = ["<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"]
    tokenizer = ChatTokenizer(save_model(tmp_path, template, special))
    plain, thoughtful = conversation(), conversation()
    thoughtful["messages"][3]["reasoning"] = "Hm."
    assert learned_texts(tokenizer, plain)[0].endswith("Two?\nYes.<|end|>")
    assert f"<|assistant|>{shut}Two?" in tokenizer.decode(next(tokenizer.tokenize([plain])).input_ids)
    texts = learned_texts(tokenizer, thoughtful)
    assert any(text.endswith(f"{thought}Two?\nYes.<|end|>") for text in texts)
    assert sum(text.count("One.<|end|>") for text in texts) == 1


ALWAYS = {
    "opened in every prompt": ("''", "'<think>'", "Hm.\n</think>\n\n", "\n</think>\n\n", ""),
    "opened, and shown empty": ("'<think>\n</think>'", "'<think>\n'", "Hm.</think>", "</think>", "<think>\n</think>"),
    "shown empty": ("'<think></think>'", "''", "<think>Hm.</think>", "<think></think>", "<think></think>"),
}
"""Of templates that ask for every answer with a thought: what they show and ask, and what is learned and asked."""


@pytest.mark.parametrize("form", ALWAYS)
def test_an_answer_without_the_thought_that_every_prompt_asks_for_is_refused_until_it_is_said_how(
    tmp_path: Path, form: str
) -> None:
    shown, asked, thought, empty, shut = ALWAYS[form]
    template = HEADS.replace("SHOWN", shown).replace("ASKED", asked)
    special = ["<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"]
    folder = save_model(tmp_path, template, special)
    plain, thoughtful = conversation(), conversation()
    for message in thoughtful["messages"][1::2]:
        message["reasoning"] = "Hm."
    tokenizer = ChatTokenizer(folder)
    (item,) = tokenizer.tokenize([plain])
    assert item.problem == ALWAYS_THINKS and "thinking='off'" in way_out(item.problem)
    texts = learned_texts(tokenizer, thoughtful)
    assert sorted(texts) == [f"{thought}One.<|end|>", f"{thought}Two?\nYes.<|end|>"]
    for thinking, turn, prompt in (
        ("on", f"{empty}Two?\nYes.<|end|>", asked.strip("'")),
        ("off", "Two?\nYes.<|end|>", shut),
    ):
        tokenizer = ChatTokenizer(folder, TokenSettings(thinking=thinking))
        whole = tokenizer.decode(next(tokenizer.tokenize([plain])).input_ids)
        assert learned_texts(tokenizer, plain)[0].endswith(turn)
        assert whole.endswith(f"And then?<|end|><|assistant|>{prompt}{turn}")
        loaded = AutoTokenizer.from_pretrained(folder)
        assert whole == render_prompt(AskingTokenizer(loaded, None, tokenizer.settings), plain) + turn


def test_a_thought_that_a_prompt_begins_and_no_answer_ends_is_refused_or_empty(tmp_path: Path) -> None:
    template = HEADS.replace("SHOWN", "'<think>'").replace("ASKED", "'<think>'")
    special = ["<|user|>", "<|assistant|>", "<|end|>", "<think>", "</think>"]
    (item,) = ChatTokenizer(save_model(tmp_path, template, special)).tokenize([conversation()])
    assert item.problem == ALWAYS_THINKS
    items = ChatTokenizer(tmp_path, TokenSettings(thinking="on")).tokenize([conversation()])
    assert all(item.problem == "" for item in items), "an empty thought is asked for"


def test_a_thought_is_a_part_of_the_content_where_a_template_takes_it_so(tmp_path: Path) -> None:
    parts = "{% for p in m.content %}{{ '[THINK]' + p.thinking + '[/THINK]' if p.type == 'thinking' else p.text }}{% endfor %}"
    template = MISTRAL.replace(
        "{{ ' ' + m.content + '</s>' }}",
        "{% if m.content is string %}{{ m.content }}{% else %}" + parts + "{% endif %}</s>",
    )
    tokenizer = ChatTokenizer(save_model(tmp_path, template, [*SHAPES["mistral"][1], "[THINK]", "[/THINK]"]))
    record = conversation()
    record["messages"][1]["reasoning"] = "Hm."
    for _ in range(2):
        assert learned(tokenizer, record) == "[THINK]Hm.[/THINK]One.</s>Two?\nYes.</s>"


def test_tools_are_learned_where_a_template_writes_their_parameters_one_by_one(tmp_path: Path) -> None:
    whole = "{% for t in tools %}{{ t | tojson }}{% endfor %}"
    each = "{% for t in tools %}{{ t.function.name }}{% for k, v in t.function.parameters.properties.items() %}{{ k + v.type }}{% endfor %}{% endfor %}"
    assert whole in QWEN
    tokenizer = ChatTokenizer(save_model(tmp_path, QWEN.replace(whole, each), SHAPES["qwen"][1]))
    record = conversation()
    record["tools"] = [{"name": "look", "description": "", "parameters": {"properties": {"at": {"type": "string"}}}}]
    assert learned(tokenizer, record) == "One.<|im_end|>Two?\nYes.<|im_end|>"


EFFORT = "{% if effort not in ['none', 'high'] %}{{ raise_exception('effort') }}{% endif %}".replace(
    "effort", "reasoning_effort"
)
SWITCHED = {
    "reasoning_effort": ("{% if not reasoning_effort %}{% set reasoning_effort = 'none' %}{% endif %}" + EFFORT, "high", "none"),
    "thinking_mode": ("{% if thinking_mode == 'disabled' %}{% elif thinking_mode == 'enabled' %}{% endif %}", "enabled", "disabled"),
    "skip_reasoning": ("", "False", "True"),
}  # fmt: skip


@pytest.mark.parametrize("name", SWITCHED)
def test_the_switch_that_a_template_reads_is_set_for_every_answer(tmp_path: Path, name: str) -> None:
    head, on, off = SWITCHED[name]
    tokenizer = ChatTokenizer(save_model(tmp_path, head + "{{ name }}".replace("name", name) + QWEN, SHAPES["qwen"][1]))
    plain, thoughtful = conversation(), conversation()
    for message in thoughtful["messages"][1::2]:
        message["reasoning"] = "Hm."
    for record, value in ((plain, off), (thoughtful, on)):
        (item,) = tokenizer.tokenize([record])
        assert tokenizer.decode(item.input_ids).startswith(f"{value}<|im_start|>")


def test_a_turn_is_learned_from_its_prompt_on_and_whole_where_marks_leave_out_a_part_of_it(tmp_path: Path) -> None:
    answer = "{% if m.reasoning_content %}{{ '<think>' + m.reasoning_content + '</think>' }}{% endif %}"
    template = MARKED.replace("{% generation %}", answer + "{{ '\n\n' }}{% generation %}")
    template += "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    tokenizer = ChatTokenizer(save_model(tmp_path, template, SHAPES["marked"][1]))
    record = conversation()
    assert learned(tokenizer, record) == "\n\nOne.<|end|>\n\nTwo?\nYes.<|end|>"
    for message in record["messages"][1::2]:
        message["reasoning"] = "Hm."
    assert learned(tokenizer, record) == "<think>Hm.</think>\n\nOne.<|end|><think>Hm.</think>\n\nTwo?\nYes.<|end|>"


def test_a_greeting_is_context_and_an_answer_that_repeats_the_question_is_learned(tmp_path: Path) -> None:
    template = "{% set first = messages[0].role %}" + CHATML.replace("<|im_end|>", "<|im_end|>{{ ' ' if loop.last }}")
    record = conversation()
    record["messages"] = [
        {"role": ("assistant", "user")[n % 2], "content": text} for n, text in enumerate(["Hello.", *["Yes."] * 4])
    ]
    tokenizer = ChatTokenizer(save_model(tmp_path, template, ["<|im_start|>", "<|im_end|>"]))
    assert learned_texts(tokenizer, record) == ["Yes.<|im_end|>", "Yes.<|im_end|>"]


def test_a_role_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="there is no role 'bot'; there are system, user, assistant, tool"):
        TokenSettings(train_on=("assistant", "bot"))
    with pytest.raises(ConfigError, match="train_on names no role"):
        TokenSettings(train_on=())


ASKED = (
    "{%% for m in messages %%}{%% if m.role == 'assistant' %%}{{ (%s) + m.content }}{%% for c in m.tool_calls %%}{{ '<call>' "
    "+ c.function | tojson + '</call>' }}{%% endfor %%}{{ '<|end|>' }}{%% elif m.role == 'user' %%}{{ '<|user|>' + m.content }}"
    "{%% else %%}{{ (%s) }}{%% endif %%}{%% endfor %%}{%% if add_generation_prompt %%}{{ %s }}{%% endif %%}"
    "{%% if tools %%}{{ tools | tojson }}{%% endif %%}"
)
"""What begins an answer, a tool's result, and a prompt's end."""
CUED = "' /on Bot:<think>\n' if enable_thinking else ' /off Bot:<think>\n\n</think>\n'"
OPENED = "'<|bot|><think>\n' if loop.last else '<|bot|>'"
RESULT = [
    {"role": "user", "content": "Sun?"},
    {"role": "assistant", "content": "", "tool_calls": [{"name": "look", "arguments": {"town": "Rome"}}]},
    {"role": "tool", "content": "Sun."},
    {"role": "assistant", "content": "Yes."},
]
PLAIN = [RESULT[0], RESULT[3]]


@pytest.mark.parametrize(
    ("begins", "result", "prompt", "messages", "learned"),
    [
        ("' Bot:'", "''", CUED, PLAIN, "<|user|>Sun? /off Bot:<think>\n\n</think>\n|Yes.<|end|>"),
        ("' Bot:'", "''", CUED, [PLAIN[0], {**PLAIN[1], "reasoning": "So."}],
         "<|user|>Sun? /on Bot:<think>\n|So.\n</think>\n\nYes.<|end|>"),
        ("'<|bot|>'", "''", "'<|bot|></think>'", PLAIN, "<|user|>Sun?<|bot|></think>|Yes.<|end|>"),
        ("'' if loop.previtem.role == 'tool' else '<|bot|>'", "'[' + m.content + ']'", "'<|bot|>'",
         RESULT, "</call><|end|>[Sun.]<|bot|>|Yes.<|end|>"),
        ("'<|turn|><|bot|>'", "''", "'<|bot|><think>\n'", PLAIN, ALWAYS_THINKS),
        (OPENED, "'</think>'", "'<|bot|><think>\n'", [PLAIN[0], {**PLAIN[1], "reasoning": "So."}],
         "<|bot|><think>\n|So.\n</think>\n\nYes.<|end|>"),
        (OPENED, "'</think>'", "'<|bot|><think>\n'", PLAIN, ALWAYS_THINKS),
    ],
    ids=["a cue", "a cue and a thought", "a thought's end alone", "behind a result", "only with a thought",
         "a thought in an opened text", "none there"],
)  # fmt: skip
def test_prompts_that_no_conversation_shows_are_learned_behind_or_the_reason_is_named(
    begins: str, result: str, prompt: str, messages: list[Message], learned: str, tmp_path: Path
) -> None:
    special = ["<|user|>", "<|bot|>", "<|turn|>", "<|end|>"]
    tokenizer = ChatTokenizer(save_model(tmp_path, ASKED % (begins, result, prompt), special, eos_token="<|end|>"))
    record: Record = {"id": content_id(messages), "messages": messages, "origin": {"file": "made.jsonl", "line": 1}}
    item = next(iter(tokenizer.tokenize([record])))
    start = max((place + 1 for place, is_learned in enumerate(item.loss_mask) if not is_learned), default=0)
    text = "|".join(tokenizer.decode(ids) for ids in (item.input_ids[:start], item.input_ids[start:]))
    assert item.problem == learned if item.problem else text.endswith(learned), (item.problem, text)
    assert item.problem or item.loss_mask[start:].all()


TRIMMING = CHATML.replace("message.content }}", "(message.content | trim if loop.last else message.content) }}")
"""A template that trims the last answer alone, so that an earlier answer with a space behind it is shown otherwise."""


@pytest.mark.parametrize("end", ["", " ", "\n"])
@pytest.mark.parametrize("begin", ["", " "])
def test_what_a_record_becomes_does_not_depend_on_those_before_it(tmp_path: Path, begin: str, end: str) -> None:
    folder = save_model(tmp_path, TRIMMING, ["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>")
    records = [conversation(), conversation()]
    records[0]["messages"][1]["content"] = f"{begin}One.{end}"
    alone = [list(ChatTokenizer(folder).tokenize([record])) for record in records]
    for order in ([0, 1], [1, 0], [0, 0, 1]):
        together = list(ChatTokenizer(folder).tokenize([records[number] for number in order]))
        expected = [item for number in order for item in alone[number]]
        assert [item.input_ids.tolist() for item in together] == [item.input_ids.tolist() for item in expected]
        assert [item.loss_mask.tolist() for item in together] == [item.loss_mask.tolist() for item in expected]


LISTED = "{{ tools | tojson }}"
BESIDE_SYSTEM = (
    "{% if messages[0].role == 'system' %}WITH{{ '<|system|>' + messages[0].content }}{% else %}WITHOUT{% endif %}"
    "{% for m in messages if m.role != 'system' %}{{ '<|' + m.role + '|>' + m.content }}{% for c in m.tool_calls %}"
    "{{ '<call>' + c.function | tojson + '</call>' }}{% endfor %}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A template that lists tools in one of two places, or in both."""
TOWN = {"type": "object", "properties": {"town": {"type": "string"}}}


@pytest.mark.parametrize(("beside", "alone"), [(LISTED, ""), ("", LISTED), (LISTED, LISTED)])
def test_tools_that_some_prompts_do_not_list_are_lost_there_alone_though_a_call_spells_their_names(
    beside: str, alone: str, tmp_path: Path
) -> None:
    template = BESIDE_SYSTEM.replace("WITHOUT", alone).replace("WITH", beside)
    special = ["<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|end|>"]
    tokenizer = ChatTokenizer(save_model(tmp_path, template, special, eos_token="<|end|>"))
    for listed, system in ((beside, [Message(role="system", content="Be brief.")]), (alone, [])):
        messages = [*system, *RESULT]
        record: Record = {"id": content_id(messages), "messages": messages, "origin": {"file": "a.jsonl", "line": 1}}
        record["tools"] = [{"name": "look", "description": "Looks.", "parameters": TOWN}]
        for _ in range(2):
            (item,) = tokenizer.tokenize([record])
            assert item.problem == ("" if listed else "the chat template has no place for its list of tools")
            assert ("Looks." in tokenizer.decode(item.input_ids)) == bool(listed)


def test_a_system_prompt_is_a_part_where_a_template_takes_it_so_alone(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% if m.role == 'system' %}{{ m.content[0].text }}"
        "{% elif m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}{{ '<|end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    special = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    tokenizer = ChatTokenizer(save_model(tmp_path, template, special))
    record = conversation()
    assert learned(tokenizer, record) == "One.<|end|>Two?\nYes.<|end|>"
    record["messages"].insert(0, {"role": "system", "content": "Be brief."})
    assert learned(tokenizer, record) == "One.<|end|>Two?\nYes.<|end|>"
    assert tokenizer.decode(next(tokenizer.tokenize([record])).input_ids).startswith("<|system|>Be brief.<|end|>")


def test_an_answer_behind_one_whose_end_no_prompt_writes_is_refused_and_no_token_counts_twice(tmp_path: Path) -> None:
    template = (
        "{% for m in messages %}{% if not loop.first %}{{ '<|end|>' }}{% endif %}{{ '<|' + m.role + '|>' + m.content }}"
        "{% endfor %}{% if add_generation_prompt and messages[-1].role != 'assistant' %}<|end|><|assistant|>{% endif %}"
    )
    tokenizer = ChatTokenizer(save_model(tmp_path, template, ["<|user|>", "<|assistant|>", "<|end|>"]))
    assert learned(tokenizer, conversation()) == "One.<|end|>Two?\nYes.<|end|>"
    record = conversation()
    record["messages"].insert(2, {"role": "assistant", "content": "Or none."})
    (item,) = tokenizer.tokenize([record])
    assert item.problem == "the chat template asks for no answer behind an answer"
    assert way_out(item.problem).startswith("mend the records")


def test_a_template_that_writes_control_tokens_by_what_is_said_takes_every_record_of_a_shape(tmp_path: Path) -> None:
    template = CHATML.replace(
        "{{ message.content }}",
        "{% if message.content == messages[0].content %}<|note|>{% endif %}{{ message.content }}",
    )
    tokenizer = ChatTokenizer(save_model(tmp_path, template, ["<|im_start|>", "<|im_end|>", "<|note|>"]))
    same = conversation()
    for message in same["messages"]:
        message["content"] = "Yes."
    (alone,) = ChatTokenizer(tmp_path).tokenize([same])
    _, item = tokenizer.tokenize([conversation(), same])
    assert (alone.problem, item.problem, item.num_control) == ("", "", 12)
    assert (item.input_ids.tolist(), item.loss_mask.tolist()) == (alone.input_ids.tolist(), alone.loss_mask.tolist())


def test_conversations_that_repeat_a_text_are_of_one_shape_where_the_template_compares_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = []

    def find(template: ChatTemplate, conversation: Conversation, *options: Any) -> Examples:
        alone.append(conversation)
        return find_examples(template, conversation, *options)

    monkeypatch.setattr(planner, "find_examples", find)
    tokenizer = ChatTokenizer(save_model(tmp_path, CHATML, ["<|im_start|>", "<|im_end|>"]))
    records = [conversation() for _ in range(4)]
    for record, pairs in zip(records, ([], [(2, 0)], [(3, 1)], [(1, 0), (3, 2)]), strict=True):
        for later, earlier in pairs:
            record["messages"][later]["content"] = record["messages"][earlier]["content"]
    items = list(tokenizer.tokenize(records))
    assert len(alone) == 1
    for record, item in zip(records, items, strict=True):
        assert tokenizer.decode(item.input_ids[item.loss_mask == 1]) == "".join(
            f"{message['content']}<|im_end|>" for message in record["messages"][1::2]
        )


def test_a_template_that_writes_an_answer_as_a_question_does_not_teach_to_ask(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endfor %}"  # for embeddings
    tokenizer = ChatTokenizer(save_model(tmp_path, template, ["[INST]", "[/INST]"]))
    (item,) = tokenizer.tokenize([conversation()])
    assert item.problem == "the chat template does not show where the assistant speaks"


def test_a_template_of_bare_texts_shows_answers_by_their_place(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    tokenizer = ChatTokenizer(save_model(tmp_path, template, ["</s>"], eos_token="</s>"))
    assert learned(tokenizer, conversation()) == "One.</s>Two?\nYes.</s>"


def test_tags_that_a_template_does_not_know_around_a_thought_are_plain_text(tmp_path: Path) -> None:
    note = "{# thoughts are ended by <|END_THINKING|> #}"
    tokenizer = ChatTokenizer(save_model(tmp_path, note + CHATML, ["<|im_start|>", "<|im_end|>"]))
    record = conversation()
    record["messages"][-1]["content"] = "<think>\nHm.\n</think>\n\nYes."
    assert learned(tokenizer, record) == "One.<|im_end|><think>\nHm.\n</think>\n\nYes.<|im_end|>"
    record["messages"][-1]["content"] = "<|START_THINKING|>Hm.<|END_THINKING|>Yes."
    (item,) = tokenizer.tokenize([record])
    assert item.problem == "the chat template has no place for its reasoning"


def test_a_thought_in_other_tags_takes_the_form_that_prompts_hold_empty(tmp_path: Path) -> None:
    template = CHATML.replace("assistant\n{% endif", "assistant\n<|channel>thought\n<channel|>{% endif")
    special = ["<|im_start|>", "<|im_end|>", "<|channel>", "<channel|>"]
    tokenizer = ChatTokenizer(save_model(tmp_path, template, special))
    record = conversation()
    record["messages"] = record["messages"][:2]
    record["messages"][1]["content"] = "<think>\nHm.\n</think>\n\nOne."
    assert "thought\nHm." in learned(tokenizer, record) and "<think>" not in learned(tokenizer, record)
