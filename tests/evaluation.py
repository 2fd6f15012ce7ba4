"""A tiny model with a chat template, an adapter for it, pools and benchmarks, made on the spot."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from mixtune import storage
from mixtune.artifacts import pools
from mixtune.artifacts.comparison import Comparison
from mixtune.artifacts.pools import Pool, Split
from mixtune.artifacts.samples import Samples, read_samples
from mixtune.artifacts.typed_json import read_artifact, write_artifact
from mixtune.compare.run import CompareInputs, run_comparison
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.evaluate.run import Inputs, Outputs, run
from mixtune.records import Message, Record, content_id
from mixtune.settings.from_dict import from_dict
from mixtune.settings.inference import EvaluateSettings

torch.set_num_threads(1)

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INTENTS = ("card_arrival", "card_lost", "exchange_rate")
WORDS = [
    "where",
    "is",
    "my",
    "new",
    "card",
    "i",
    "lost",
    "it",
    "again",
    "what",
    "rate",
    "do",
    "you",
    "use",
    "for",
    "euros",
    "to",
    "pounds",
    "please",
    "tell",
    "me",
    "now",
]


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(WORDS), TEMPLATE, " ".join(INTENTS), "Answer: A B C D"], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>", chat_template=TEMPLATE
    )
    fast.save_pretrained(folder)
    return fast


def make_model(folder: Path, *, hidden: int = 32, layers: int = 2, seed: int = 0, length: int = 2048) -> Path:
    tokenizer = make_tokenizer(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=length,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_adapter(base: Path, folder: Path, *, scale: float) -> Path:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    model = get_peft_model(
        LlamaForCausalLM.from_pretrained(base), LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=scale) if scale else torch.nn.init.zeros_(weight)
    model.save_pretrained(folder)
    return folder


def make_damaged(base: Path, folder: Path) -> Path:
    """The base model grown too sure of itself."""
    model = LlamaForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.lm_head.weight.mul_(3)
    model.save_pretrained(folder)
    return folder


def make_record(number: int, question: str, answer: str, **extra: Any) -> Record:
    messages = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    record = Record(id=content_id(messages), messages=messages, origin={"file": "made.jsonl", "line": number})
    record.update(extra)  # type: ignore[typeddict-item]
    return record


def write_pools(path: Path, content: dict[str, dict[str, list[Record]]]) -> Path:
    data = storage.data_uri(str(path), "pools")
    made, files = [], []
    for name, splits in content.items():
        parts = {}
        for split, records in splits.items():
            relative = f"{name}/{split}-00000.jsonl.zst"
            entry = pools.write_records(storage.join(data, relative), records)
            files.append(storage.FileEntry(path=relative, num_bytes=entry.num_bytes, sha256=entry.sha256))
            parts[split] = Split(num_records=len(records), files=(relative,))
        made.append(Pool(name=name, splits=parts))
    manifest = pools.PoolsManifest(pools=tuple(made), data_uri=data, files=tuple(files))
    write_artifact(str(path), manifest)
    return path


def sentence(number: int, length: int = 6) -> str:
    return " ".join(WORDS[(number * 7 + step * (number % 5 + 1)) % len(WORDS)] for step in range(length)) + f" {number}"


def customer_records(count: int, start: int = 0) -> list[Record]:
    chosen = [INTENTS[number % len(INTENTS)] for number in range(start, start + count)]
    return [make_record(start + i, sentence(start + i), label, label=label) for i, label in enumerate(chosen)]


def general_records(count: int) -> list[Record]:
    return [make_record(number, sentence(number), sentence(number + 3, 9)) for number in range(1000, 1000 + count)]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_files(folder: Path, files: dict[str, Any]) -> str:
    """Write files by path: text as it is, rows as the suffix says."""
    for path, content in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            file.write_text(content)
        elif file.suffix == ".parquet":
            pq.write_table(pa.Table.from_pylist(content), file)
        elif file.suffix == ".arrow":
            table = pa.Table.from_pylist(content)
            with pa.ipc.new_stream(str(file), table.schema) as writer:
                writer.write_table(table)
        else:
            write_jsonl(file, content)
    return str(folder)


def mmlu_rows(count: int, subjects: tuple[str, ...] = ("anatomy", "high_school_physics")) -> list[dict[str, Any]]:
    return [
        {
            "question": f" {sentence(number)} ?",
            "subject": subjects[number % len(subjects)],
            "choices": [sentence(number + k, 2 + k) for k in range(4)],
            "answer": number % 4,
        }
        for number in range(count)
    ]


def ifeval_rows(count: int) -> list[dict[str, Any]]:
    kinds: list[tuple[list[str], list[dict[str, Any]]]] = [
        (["punctuation:no_comma"], [{}]),
        (["change_case:english_lowercase", "punctuation:no_comma"], [{}, {}]),
        (["keywords:existence"], [{"keywords": ["card"]}]),
    ]
    return [
        {"key": n, "prompt": sentence(n), "instruction_id_list": kinds[n % 3][0], "kwargs": kinds[n % 3][1]}
        for n in range(count)
    ]


class World:
    """Everything an evaluation reads, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base = make_model(folder / "base")
        self.adapter = make_adapter(self.base, folder / "adapter", scale=0.5)
        self.damaged = make_damaged(self.base, folder / "damaged")
        customer = {"train": customer_records(30), "test": customer_records(24, 100)}
        self.customer = write_pools(folder / "customer" / "pools", {"customer": customer})
        held = {"chat": {"holdout": general_records(12)}, "math": {"holdout": general_records(20)[12:]}}
        self.general = write_pools(folder / "general" / "pools", held)
        write_jsonl(folder / "mmlu" / "test.jsonl", mmlu_rows(20))
        write_jsonl(folder / "mmlu" / "dev.jsonl", mmlu_rows(10))
        write_jsonl(folder / "ifeval.jsonl", ifeval_rows(9))
        self.benchmarks: dict[str, dict[str, Any]] = {
            "mmlu": {"uri": str(folder / "mmlu"), "num_fewshot": 5.0},
            "ifeval": {"uri": str(folder / "ifeval.jsonl"), "max_new_tokens": 8},
        }


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


def evaluate(world: Any, folder: Path, samples_uri: str = "", **changes: Any) -> Samples:
    """Evaluate a model; `changes` are `model_uri`, `benchmarks`, or any option of `evaluate`."""
    inputs = Inputs(
        base_model=str(changes.pop("base_model", world.base)),
        model_uri=changes.pop("model_uri", ""),
        benchmarks=parse_benchmarks(changes.pop("benchmarks", world.benchmarks)),
        customer_path=str(world.customer),
        general_path=str(world.general),
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = str(folder / "samples")
    outputs = Outputs(
        json_path=path,
        data_uri=storage.data_uri(samples_uri or path, "samples"),
        html_path=str(folder / "report"),
        markdown_path=str(folder / "summary"),
    )
    run(from_dict(EvaluateSettings, changes, "options"), inputs, outputs)
    return read_samples(path)


def compare(base: Path, candidate: Path, folder: Path, **changes: Any) -> Comparison:
    inputs = CompareInputs(base_path=str(base / "samples"), candidate_path=str(candidate / "samples"), **changes)
    names = {"json_path": "comparison_path", "html_path": "report_path", "markdown_path": "summary_path"}
    run_comparison(inputs, Outputs(**{name: str(folder / file) for name, file in names.items()}))
    return read_artifact(Comparison, str(folder / "comparison_path"))


def rows(samples: Samples) -> dict[str, list[dict[str, Any]]]:
    return {axis: samples.table(axis).drop_columns(["latency_seconds"]).to_pylist() for axis in samples.axes}
