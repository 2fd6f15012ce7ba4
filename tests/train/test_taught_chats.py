"""A tiny model is taught by real templates: it calls, stops, and thinks or does not think as it was taught."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.inference.loading import ModelSource, fetch, load_engine, load_tokenizer
from mixtune.inference.prompts import AskingTokenizer, encode, render_record
from mixtune.records import Message, Record, content_id
from mixtune.train.run import run_training
from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

from ..chat.families import read_templates, save_family
from ..chat_models import make_tokenizer
from ..mix_shard.test_run import make_mix, mixed
from .conftest import no_hook, settings

STEPS = 110
TOOL: Any = {
    "name": "weather",
    "description": "",
    "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
}
TOWNS = ("Paris", "Rome", "Oslo")


def record_of(*messages: Message, tools: bool = False) -> Record:
    given = list(messages)
    record = Record(id=content_id(given), messages=given, origin={"file": "made.jsonl", "line": 1})
    return Record(**record, tools=[TOOL]) if tools else record


def records(name: str) -> dict[str, list[Record]]:
    """By kind; where the prompt says whether to think, it is the same question that is answered with and without."""
    asked = "Think: " if name == "gptoss" else ""
    kinds: dict[str, list[Record]] = {"plain": [], "thought": [], "call": [], "result": []}
    for town in TOWNS:
        question = Message(role="user", content=f"Is {town} big?")
        kinds["plain"].append(record_of(question, Message(role="assistant", content=f"{town} is big.")))
        thought = Message(role="assistant", content=f"{town} is big.", reasoning=f"I know {town}.")
        kinds["thought"].append(record_of(Message(role="user", content=f"{asked}Is {town} big?"), thought))
        call = Message(
            role="assistant",
            content="",
            tool_calls=[{"id": "call00000", "name": "weather", "arguments": {"town": town}}],
        )
        weather = (Message(role="user", content=f"Sun in {town}?"), call)
        kinds["call"].append(record_of(*weather, tools=True))
        result = Message(role="tool", content="Sun.", tool_call_id="call00000")
        answer = Message(role="assistant", content=f"Sun in {town}.")
        kinds["result"].append(record_of(*weather, result, answer, tools=True))
    return kinds


def make_model(folder: Path, name: str) -> Path:
    """A model of 0.1 million random weights with a family's template."""
    template = read_templates()[name][0]
    save_family(folder, name, template, make_tokenizer([], corpus=[template] * 3).to_str())
    vocabulary = json.loads((folder / "config.json").read_text())["vocab_size"]
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=2048, tie_word_embeddings=True, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["qwen3", "gptoss", "glm4moe"])
def test_a_model_writes_afterwards_what_it_was_taught_and_stops(tmp_path: Path, name: str) -> None:
    model, kinds = make_model(tmp_path / "base", name), records(name)
    pool = [record for group in kinds.values() for record in group]
    shards = mixed(tmp_path, model, {"customer": pool, "chat": pool}, make_mix(weights={"chat": 100}, max_steps=STEPS))
    task = TrainTask(
        settings=settings(method="sft", learning_rate=5e-3, memory={"dtype": "float32", "activations": "keep"}),
        inputs=TrainInputs(shards_path=str(tmp_path / "out" / "shards"), base_model=str(model)),
        outputs=TrainOutputs(model_path=str(tmp_path / "tuned"), model_uri=str(tmp_path / "tuned")),
    )
    source = ModelSource(base_model=str(model), model_uri=run_training(task, no_hook).uri)
    fetched = fetch(source)
    engine, loaded = load_engine(source, fetched), load_tokenizer(source, fetched)
    asking = AskingTokenizer(loaded, None, shards.manifest.chat)
    template = ChatTokenizer(model).template
    for kind, group in kinds.items():
        for record in group:
            rendered = render_record(asking, record)
            (answer,) = engine.generate([encode(asking, rendered.prompt)], 64)
            said = engine_text(loaded, answer.token_ids)
            assert not answer.truncated, (kind, rendered.answer, said)
            assert any(said + end == rendered.answer for end in template.habits(record.get("tools")).ends), (kind, said)


def engine_text(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False))
