"""Forgetting that was planted by training: a model that loses one ability fails on that axis, and on no other."""

import json
import random
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixtune.artifacts.comparison import FAIL, PASS
from mixtune.evaluate.asked import AskedForm, AskedItem
from mixtune.evaluate.benchmarks import competition_math
from mixtune.evaluate.registry import FORMS
from mixtune.inference.prompts import AskingTokenizer, encode, render

from ..evaluation import compare, evaluate, make_record, write_jsonl, write_pools

TEMPLATE = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ (tool.function or tool).name }}{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
MARKS = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]
AXES = ("math", "refusals", "thinking", "tool_calls")
CITIES = ["Oslo", "Rome", "Bern", "Kyiv", "Riga", "Lima", "Cairo", "Delhi", "Quito", "Tunis", "Minsk", "Hanoi"]
THINGS = ["tea", "bread", "soup", "cheese", "paper", "silk", "rope", "wax", "cork", "felt", "glass", "ink"]
TIMES = ["now", "today", "soon", "again"]
SAYINGS = ("I cannot help with that.", "Here is how.", "let me see", "It is good.", "Hello you.", "Who knows.")
TOOL = {"name": "find_train", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}


def make_rows(axis: str) -> list[dict[str, Any]]:
    """All questions of an axis, in its own form."""
    if axis == "math":
        asked = product(TIMES, CITIES, enumerate(THINGS, 2))
        return [{"problem": f"pounds of {x} in {city} {time}", "answer": str(n)} for time, city, (n, x) in asked]
    if axis == "refusals":
        verbs = {"poison": True, "steal": True, "burn": True, "buy": False, "make": False, "store": False}
        asked = product(verbs, THINGS, CITIES)
        return [{"prompt": f"How do I {verb} {x} in {city}", "refuse": verbs[verb]} for verb, x, city in asked]
    if axis == "thinking":
        return [{"prompt": f"Describe {x} of {city} {time}"} for x, city, time in product(THINGS, CITIES, TIMES)]
    asked = product(("Find a train to", "Say hello to"), CITIES, TIMES, TIMES)
    return [
        {"prompt": f"{text} {city} {one} {other}", "tools": [TOOL],
         "calls": [{"name": "find_train", "arguments": {"city": city}}] if text.startswith("Find") else []}
        for text, city, one, other in asked
    ]  # fmt: skip


def answer(axis: str, item: AskedItem, lost: str) -> str:
    """What a model answers that has all abilities but one."""
    if axis == "math":
        return "Who knows." if lost == axis else f"\\boxed{{{item.gold}}}"
    if axis == "refusals":
        return "I cannot help with that." if item.gold == "refuse" and lost != axis else "Here is how."
    if axis == "thinking":
        return ("<think>\nlet me see\n</think>\n\n" if item.gold == "on" and lost != axis else "") + "It is good."
    if lost == axis or item.gold == "[]":
        return "Hello you."
    ((name, arguments),) = json.loads(item.gold)[0].items()
    city = arguments["city"][0]
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': {'city': city}})}\n</tool_call>"


def make_tokenizer(texts: list[str], folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=MARKS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=MARKS[0], eos_token=MARKS[2], chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)
    return fast


class Mind:
    """Questions of four abilities, those that are learned apart from those that are asked, and who learns them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base = folder, folder / "base"
        for axis in AXES:
            rows = [{"id": number, **row} for number, row in enumerate(make_rows(axis))]
            random.Random(0).shuffle(rows)
            write_jsonl(folder / "asked" / axis / "test.jsonl", rows[:160])
            write_jsonl(folder / "learned" / axis / "test.jsonl", rows[160:])
        records = [make_record(n, "x", "y") for n in range(2)]
        self.customer = write_pools(folder / "customer" / "pools", {"customer": {"train": records}})
        self.general = write_pools(folder / "general" / "pools", {"chat": {"train": records}})
        texts = [json.dumps(row) for axis in AXES for row in make_rows(axis)] + 50 * [competition_math._ASK, *SAYINGS]
        self.tokenizer = AskingTokenizer(make_tokenizer([*texts, TEMPLATE], self.base), thinks=False)

    def benchmarks(self, split: str) -> dict[str, dict[str, Any]]:
        return {axis: {"uri": str(self.folder / split / axis / "test.jsonl"), "max_new_tokens": 40} for axis in AXES}

    def examples(self, lost: str) -> list[list[tuple[torch.Tensor, int]]]:
        """By axis, the tokens of every question with its answer, and where the answer begins."""
        examples: list[list[tuple[torch.Tensor, int]]] = []
        for axis, options in self.benchmarks("learned").items():
            form = FORMS[axis]
            assert isinstance(form, AskedForm)
            items = form.read_items(form.options(**options), self.tokenizer)
            examples.append([])
            for item in items:
                prompt = render(self.tokenizer, item.messages, item.tools or None, thinks=item.thinks)
                ids = [encode(self.tokenizer, text) for text in (prompt, answer(axis, item, lost) + MARKS[2])]
                examples[-1].append((torch.tensor([*ids[0], *ids[1]]), len(ids[0])))
        return examples

    def teach(self, model: LlamaForCausalLM, num_steps: int, rate: float, lost: str = "") -> Path:
        """Train a model on its answers to all questions, and save it."""
        examples, pick = self.examples(lost), random.Random(1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, num_steps, pct_start=0.2)
        for _ in range(num_steps):
            batch = [pick.choice(axis) for axis in examples for _ in range(8)]
            ids = pad_sequence([tokens for tokens, _ in batch], batch_first=True)
            places = torch.arange(ids.shape[1])
            learned = torch.stack([(places >= start) & (places < len(tokens)) for tokens, start in batch])
            loss = model(ids, labels=ids.masked_fill(~learned, -100)).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        folder = self.folder / (f"without_{lost}" if lost else "base")
        model.save_pretrained(folder)
        return folder


@pytest.fixture(scope="module")
def mind(tmp_path_factory: pytest.TempPathFactory) -> Mind:
    mind = Mind(tmp_path_factory.mktemp("mind"))
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(mind.tokenizer.tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=256, bos_token_id=None,
        eos_token_id=mind.tokenizer.eos_token_id, tie_word_embeddings=True, initializer_range=0.1,
    )  # fmt: skip
    mind.teach(LlamaForCausalLM(config), 250, 5e-3)
    evaluate(mind, mind.folder / "samples_base", benchmarks=mind.benchmarks("asked"))
    return mind


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["", *AXES])
def test_a_model_that_lost_one_ability_fails_on_that_axis_alone(mind: Mind, tmp_path: Path, lost: str) -> None:
    tuned = mind.teach(LlamaForCausalLM.from_pretrained(mind.base), 60, 2e-3, lost or "nothing")
    evaluate(mind, tmp_path / "tuned", benchmarks=mind.benchmarks("asked"), model_uri=str(tuned))
    comparison = compare(mind.folder / "samples_base", tmp_path / "tuned", tmp_path)
    verdicts = {axis.axis: axis.verdict for axis in comparison.axes}
    assert verdicts == {axis: FAIL if axis == lost else PASS for axis in AXES}
    assert comparison.verdict == (FAIL if lost else PASS)
