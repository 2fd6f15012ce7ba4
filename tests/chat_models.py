import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mixtune import storage
from mixtune.artifacts import pools
from mixtune.artifacts.typed_json import write_artifact
from mixtune.records import Record, content_id

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CORPUS = [
    "Where is my card? It should have arrived by now, I think.",
    "def answer(question):\n    return {'value': 42}\n",
    "The quick brown fox jumps over the lazy dog. user assistant system tool",
    "über Maße, naïve café, 日本語, emoji 🙂, <b>bold</b> and [brackets]",
]


def make_tokenizer(special: list[str], plain: list[str] = [], corpus: list[str] = []) -> Tokenizer:  # noqa: B006
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1500 if corpus else 400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 5 + corpus, trainer)
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)
    return tokenizer


def make_letters_tokenizer(special: list[str], *, space_before: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    base = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=base, show_progress=False)
    tokenizer.train_from_iterator(CORPUS[:3] * 5, trainer)
    spaces = normalizers.Replace(" ", "\u2581")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), spaces]) if space_before else spaces
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if space_before else steps)
    tokenizer.add_special_tokens(special)
    return tokenizer


def save_model(
    folder: Path, template: str, special: list[str], tokenizer: Tokenizer | None = None, **names: str
) -> Path:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer or make_tokenizer(special), **names)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": len(tokenizer)}))
    return folder


@pytest.fixture(scope="session")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    special = ["<|im_start|>", "<|im_end|>"]
    return save_model(tmp_path_factory.mktemp("chatml"), CHATML, special, eos_token="<|im_end|>")


def make_record(question: str, answer: str, line: int = 1) -> Record:
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"id": content_id(messages), "messages": messages, "origin": {"file": "made.jsonl", "line": line}}


def make_records(name: str, count: int, words: int = 3) -> list[Record]:
    return [make_record(f"{name} question {n}", " ".join([f"answer{n}"] * words), n + 1) for n in range(count)]


def write_pools(folder: Path, contents: dict[str, list[Record]]) -> str:
    entries, listed = [], []
    for name, records in contents.items():
        file = f"{name}/train-00000.jsonl.zst"
        entry = pools.write_records(storage.join(str(folder), "data", "pools", file), records)
        entries.append(storage.FileEntry(path=file, num_bytes=entry.num_bytes, sha256=entry.sha256))
        listed.append(pools.Pool(name=name, splits={"train": pools.Split(num_records=len(records), files=(file,))}))
    path = str(folder / "pools")
    data = storage.join(str(folder), "data", "pools")
    write_artifact(path, pools.PoolsManifest(pools=tuple(listed), data_uri=data, files=tuple(entries)))
    return path
