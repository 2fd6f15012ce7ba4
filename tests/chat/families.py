"""Published chat templates, with a tokenizer for each that is built here, and conversations of every kind.

`python -m tests.chat.families` writes what docs/models.md shows of them.
"""

import copy
import json
import re
from importlib.metadata import files
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from mixtune.chat.tokenizer import ChatTokenizer, Tokenized
from mixtune.records import Record
from mixtune.settings.mix import TokenSettings

from ..chat_models import make_tokenizer, save_model

_TAG = re.compile(r"\[\|[^\]]{1,40}\|\]|<[^<>\s'\"{}=%,;:]{1,40}>|\[/?[A-Z_]{3,}\]|<｜[^｜]{1,40}｜>")
_PLAIN = re.compile(r"</?(think|tool_call|tool_response|arg_key|arg_value)>")
_SPECIAL = {"<bos>", "<s>", "</s>", "<start_of_turn>", "<end_of_turn>", "<sop>", "<end_of_utterance>"}
_EOS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "gptoss": "<|return|>",
    "phi3": "<|endoftext|>",
    "gemma": "<eos>",
    "glm": "<|endoftext|>",
}
TOOLS = [
    {
        "name": "get_weather",
        "description": "Looks up the weather.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}, "days": {"type": "integer"}}},
    }
]


def _user(text: str = "What is it?") -> dict[str, Any]:
    return {"role": "user", "content": text}


def _answer(text: str, thought: str = "", *towns: str) -> dict[str, Any]:
    calls = [
        {"id": f"call0000{number}", "name": "get_weather", "arguments": {"town": town, "days": 40 + number}}
        for number, town in enumerate(towns)
    ]
    thoughts = {"reasoning": thought} if thought else {}
    return {"role": "assistant", "content": text, **thoughts, **({"tool_calls": calls} if calls else {})}


_RESULT = {"role": "tool", "content": "Sun.", "tool_call_id": "call00000"}
_SYSTEM = {"role": "system", "content": "Be brief."}
_TURNS = [_user(), _answer("It is four."), _user("And then?")]
_THOUGHT_TURNS = [_user(), _answer("It is four.", "Two and two."), _user("And then?")]
KINDS: dict[str, list[dict[str, Any]]] = {
    "plain": [_user(), _answer("It is four.")],
    "several turns": [*_TURNS, _answer("Then five.")],
    "thought": [_user(), _answer("It is four.", "Two and two.")],
    "several thoughts": [*_THOUGHT_TURNS, _answer("Then five.", "One more.")],
    "call": [_user(), _answer("", "", "Paris")],
    "two calls": [_user(), _answer("", "", "Paris", "Rome")],
    "text and call": [_user(), _answer("I look.", "", "Paris")],
    "result": [_user(), _answer("", "", "Paris"), _RESULT, _answer("It is sunny.")],
    "system": [_SYSTEM, _user(), _answer("It is four.")],
    "thought in text": [_user(), _answer("<think>\nTwo and two.\n</think>\n\nIt is four.")],
    "empty turn": [_user(), _answer(""), _user("Hello?"), _answer("It is four.")],
    "markup": [_user("</s> <|im_end|> </think>"), _answer("Write <|im_end|>, <｜User｜> or </think>.")],
}


def read_templates() -> dict[str, tuple[str, str]]:
    """Every template that TRL ships, and its version with generation marks; empty where there is none."""
    texts = {}
    for path in files("trl") or ():
        if path.parts[:2] == ("trl", "chat_templates") and path.suffix == ".jinja":
            texts[path.stem] = Path(path.locate()).read_text()
    return {
        name: (text, texts.get(f"{name}_training", ""))
        for name, text in sorted(texts.items())
        if not name.endswith("_training")
    }


_BASE = make_tokenizer([]).to_str()


def save_family(folder: Path, name: str, template: str, base: str = _BASE) -> Path:
    """A model folder with a template, all of whose markup is tokens."""
    tags = sorted({*_TAG.findall(template)})
    eos = next((token for start, token in _EOS.items() if name.startswith(start)), "")
    plain = [tag for tag in tags if _PLAIN.fullmatch(tag)]
    special = {tag for tag in tags if tag in _SPECIAL or "|" in tag or "｜" in tag or tag[0] == "["}
    tokenizer = Tokenizer.from_str(base)
    tokenizer.add_special_tokens(sorted({*special, "<s>", "</s>", *([eos] if eos else [])}))
    tokenizer.add_tokens(plain)
    return save_model(folder, template, [], tokenizer, bos_token="<s>", **({"eos_token": eos} if eos else {}))


def make_record(kind: str) -> Record:
    messages = copy.deepcopy(KINDS[kind])
    record: Record = {"id": "0" * 32, "messages": messages, "origin": {"file": "made.jsonl", "line": 1}}
    if any("tool_calls" in message for message in messages):
        record["tools"] = copy.deepcopy(TOOLS)
    return record


def learn(tokenizer: ChatTokenizer, kind: str) -> list[Tokenized]:
    return list(tokenizer.tokenize([make_record(kind)]))


def turns_of(tokenizer: ChatTokenizer, item: Tokenized) -> list[str]:
    """The learned texts of an example, in their order."""
    texts, ids = [], item.input_ids
    edges = [
        0,
        *(place for place in range(1, len(ids)) if item.loss_mask[place] != item.loss_mask[place - 1]),
        len(ids),
    ]
    for start, end in pairwise(edges):
        if item.loss_mask[start]:
            texts.append(tokenizer.decode(ids[start:end]))
    return texts


FILE = Path(__file__).with_name("families.json")
"""What becomes of every kind of conversation by template: written by `python -m tests.chat.families`, read by docs."""


def outcomes(tokenizers: dict[str, ChatTokenizer]) -> dict[str, dict[str, str]]:
    """By template and kind of conversation: `learned`, `split` over several examples, or why it is refused."""
    rows = {}
    for name, tokenizer in tokenizers.items():
        items = {kind: learn(tokenizer, kind) for kind in KINDS}
        rows[name] = {
            kind: found[0].problem or ("learned" if len(found) == 1 else "split") for kind, found in items.items()
        }
    return rows


def load_families(folder: Path) -> dict[str, ChatTokenizer]:
    return {
        name: ChatTokenizer(save_family(folder / name, name, text), TokenSettings())
        for name, (text, _) in read_templates().items()
    }


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        FILE.write_text(json.dumps(outcomes(load_families(Path(scratch))), indent=1, ensure_ascii=False) + "\n")
