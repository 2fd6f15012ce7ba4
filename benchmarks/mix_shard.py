"""Tokens per CPU-second: mixtune, the bare Hugging Face tokenizer, TRL's and `datasets`' preparation, the same records.

OMP_NUM_THREADS=1 RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false python benchmarks/mix_shard.py EVERY MODEL POOLS...

EVERY is 3 for every third record. MODEL is a model folder with a chat template that has generation marks (TRL needs
them); POOLS are manifests that `sanitize` wrote. Needs `datasets` and `trl` beside mixtune.

    python benchmarks/mix_shard.py --against REVISION DATA [ROUNDS]

measures this tree beside an older revision, in turns, on one and on four questions and answers a record, by the demo's
template and by published ones that TRL ships. DATA is a folder of public data (see corpus.py).
"""

import os
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from importlib.metadata import files
from pathlib import Path
from typing import Any

import orjson
from corpus import read_pairs
from side_by_side import measure, worktree
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from mixtune.artifacts.pools import read_pools
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.demo.demo_data import BASE_MODEL
from mixtune.mix_shard.store import Store
from mixtune.mix_shard.workers import TokenizeJob, tokenize_pools
from mixtune.records import Record, template_messages
from mixtune.settings.mix import TokenSettings

LETTERS_VOCABULARY = 4000
REPEATS = 3
PUBLISHED = ("qwen2_5", "llama3")
NUM_RECORDS = 6000
_TAG = re.compile(r"<\|[^|<>]{1,40}\|>")


def main(every: int, model: Path, paths: list[str]) -> None:
    opened = [(pools, pool.name) for pools in map(read_pools, paths) for pool in pools.pools]
    records = [record for pools, name in opened for record in pools.records(name, "train")][::every]
    print(f"\n## {model.name}'s byte-level tokenizer: {len(records):,} records\n")
    bare = table_head(model, records)
    for fast in (True, False):
        tokenizer = ChatTokenizer(model, fast=fast)
        seconds, tokens = best(lambda tokenizer=tokenizer: count(tokenizer, records))
        row(f"mixtune: template, tokens, mask, proof; {tokenizer.encoder.backend}", tokens, seconds, bare)
    seconds, tokens = best(lambda: through_store(model, opened))
    row("mixtune: the same, from the pools' files to the store on disk", tokens, seconds, bare)
    seconds, tokens = by_datasets(model, records)
    row("`datasets`: map over apply_chat_template with its mask", tokens, seconds, bare)
    seconds, tokens = by_trl(model, records)
    row("TRL: SFTTrainer's preparation, assistant_only_loss", tokens, seconds, bare)
    with tempfile.TemporaryDirectory() as folder:
        other = letters_model(Path(folder), model, records)
        print("\n## A tokenizer of letters (SentencePiece's form), trained on these records\n")
        bare = table_head(other, records)
        tokenizer = ChatTokenizer(other)
        seconds, tokens = best(lambda: count(tokenizer, records))
        row(f"mixtune: template, tokens, mask, proof; {tokenizer.encoder.backend}", tokens, seconds, bare)


def best(measure: Callable[[], int]) -> tuple[float, int]:
    """The least CPU seconds of some repeats, and the tokens."""
    found = []
    for _ in range(REPEATS):
        began = time.process_time()
        tokens = measure()
        found.append((time.process_time() - began, tokens))
    return min(found)


def row(what: str, tokens: int, seconds: float, bare: float) -> None:
    speed = tokens / seconds
    print(f"| {what} | {tokens:,} | {speed / 1e6:.2f} | {speed / bare:.2f} |", flush=True)


def table_head(model: Path, records: list[Record]) -> float:
    """The head of a table, and its first row: the bare tokenizer, whose tokens per CPU-second come back."""
    tokenizer = AutoTokenizer.from_pretrained(str(model))
    texts = [tokenizer.apply_chat_template(template_messages(r["messages"]), tokenize=False) for r in records]
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    seconds, tokens = best(lambda: sum(len(item.ids) for item in encode(texts, add_special_tokens=False)))
    print("| what | tokens | Mtok per CPU-second | ratio |\n|---|---|---|---|")
    row("bare Hugging Face tokenizer, text already rendered", tokens, seconds, tokens / seconds)
    return tokens / seconds


def count(tokenizer: ChatTokenizer, records: list[Record]) -> int:
    return sum(len(item.input_ids) for item in tokenizer.tokenize(records))


def through_store(model: Path, opened: list[Any]) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        job = TokenizeJob(folder=model, settings=TokenSettings(max_length=10**6), scratch=Path(scratch), num_workers=1)
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            drops = tokenize_pools(job, opened).drops
        return sum(int(Store(Path(scratch), str(number)).rows["length"].sum()) for number in range(len(drops)))


def by_datasets(model: Path, records: list[Record]) -> tuple[float, int]:
    from datasets import Dataset

    tokenizer = AutoTokenizer.from_pretrained(str(model))
    data = Dataset.from_list([{"messages": template_messages(record["messages"])} for record in records])

    def prepare(batch: dict[str, Any]) -> Any:
        found = tokenizer.apply_chat_template(batch["messages"], return_dict=True, return_assistant_tokens_mask=True)
        return {"input_ids": found["input_ids"], "assistant_masks": found["assistant_masks"]}

    began = time.process_time()
    done = data.map(prepare, batched=True, remove_columns=data.column_names, load_from_cache_file=False)
    seconds = time.process_time() - began
    return seconds, sum(map(len, done["input_ids"]))


def by_trl(model: Path, records: list[Record]) -> tuple[float, int]:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    data = Dataset.from_list([{"messages": template_messages(record["messages"])} for record in records])
    seconds = 0.0

    class Timed(SFTTrainer):  # type: ignore[misc]
        def _prepare_dataset(self, *arguments: Any, **named: Any) -> Any:
            nonlocal seconds
            began = time.process_time()
            done = super()._prepare_dataset(*arguments, **named)
            seconds += time.process_time() - began
            return done

    with tempfile.TemporaryDirectory() as folder:
        config = SFTConfig(
            folder, assistant_only_loss=True, max_length=None, use_cpu=True, bf16=False, report_to=[], packing=False
        )
        trainer = Timed(
            model=AutoModelForCausalLM.from_pretrained(str(model)),
            args=config,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(str(model)),
        )
        return seconds, sum(map(len, trainer.train_dataset["input_ids"]))


def letters_model(folder: Path, model: Path, records: list[Record]) -> Path:
    """A model folder with the same template and a tokenizer whose tokens are letters, or bytes where there are none."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    special = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=LETTERS_VOCABULARY, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator((m["content"] for record in records[::20] for m in record["messages"]), trainer)
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<|im_end|>")
    made.chat_template = AutoTokenizer.from_pretrained(str(model)).chat_template
    made.save_pretrained(str(folder))
    return folder


def against(revision: str, data: Path, rounds: int) -> None:
    """The table of this tree beside a revision."""
    print(f"| template, records | tokens | Mtok per CPU-second at {revision} | now | ratio | same tokens and masks |")
    print("|---|---|---|---|---|---|")
    with worktree(revision) as older, tempfile.TemporaryDirectory() as scratch:
        models = {"demo": BASE_MODEL} | {name: published(Path(scratch) / name, name) for name in PUBLISHED}
        for turns, title in ((1, "one turn"), (4, "four turns")):
            records = Path(scratch) / f"{turns}.jsonl"
            records.write_bytes(b"\n".join(map(orjson.dumps, conversations(data, turns))))
            for name, model in models.items():
                script = [str(Path(__file__).with_name("mix_shard_pass.py")), str(model), str(records)]
                found = measure(older, lambda _, script=script: script, rounds)
                tokens = found.made[0] / 1e6
                speeds = f"{tokens / found.before:.2f} | {tokens / found.now:.2f} | {found.ratio:.2f}"
                same = "yes" if found.is_same else "no"
                print(f"| {name}, {title} | {found.made[0]:,} | {speeds} | {same} |", flush=True)


def conversations(data: Path, turns: int) -> list[Record]:
    """Records of so many questions and answers, alike in all their texts."""
    pairs = [(question, answer) for question, answer in read_pairs(data) if len(question) > 200]
    pairs = random.Random(1).sample(pairs, NUM_RECORDS)
    messages = [
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer.strip()}]
        for question, answer in pairs
    ]
    return [
        {
            "id": f"{start:032}",
            "messages": [message for pair in messages[start : start + turns] for message in pair],
            "origin": {"file": "f", "line": 1},
        }
        for start in range(0, NUM_RECORDS, turns)
    ]


def published(folder: Path, name: str) -> Path:
    """A model folder with a template of TRL's and the demo's tokenizer, to which its control tokens are added."""
    template = next(Path(file.locate()) for file in files("trl") or () if file.name == f"{name}.jinja").read_text()
    tokenizer = AutoTokenizer.from_pretrained(BASE_MODEL)
    tokenizer.add_special_tokens({"additional_special_tokens": sorted(set(_TAG.findall(template)))})
    tokenizer.chat_template = template
    tokenizer.bos_token = tokenizer.bos_token or tokenizer.eos_token
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__" and sys.argv[1] == "--against":
    against(sys.argv[2], Path(sys.argv[3]), int([*sys.argv, "7"][4]))
elif __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
