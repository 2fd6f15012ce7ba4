"""Mixing rules side by side, tokenizing against the bare Hugging Face tokenizer, and a receipt of real pools.

python benchmarks/mix_shard.py MODEL CUSTOMER_POOLS GENERAL_POOLS > benchmarks/results/mix_shard.md

MODEL is a model folder with a chat template; the others are manifests that `sanitize` wrote.
"""

import sys
import tempfile
import time
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import numpy as np

from mixtune.mix_shard.assignment import chairman, whole_batches
from mixtune.mix_shard.exposure import Mix
from mixtune.mix_shard.mixing import Places, mix_shard
from mixtune.mix_shard.receipt import receipt_markdown
from mixtune.mix_shard.tokenizing import ChatTokenizer
from mixtune.pools import read_pools

NOVA = [1, 10, 0.5, 10, 0.1, 1, 1, 2, 1, 13, 0.5, 10, 0.5, 0.5, 0.5, 45, 0.5, 0.5, 0.4, 0.5, 0.4, 1, 0.1]
BATCH, STEPS = 32, 2000


def worst(slots: np.ndarray, shares: list[Fraction]) -> tuple[float, float, int]:
    """Largest distance of a pool from its target within one batch and cumulated; records of the rarest pool."""
    count = len(shares)
    cells = np.bincount(np.repeat(np.arange(STEPS), BATCH) * count + slots, minlength=STEPS * count)
    counts = cells.reshape(STEPS, count)
    target = np.array([float(share) for share in shares]) * BATCH
    steps = np.arange(1, STEPS + 1)[:, None]
    rarest = int(np.argmin(target))
    return (
        float(np.abs(counts - target).max()),
        float(np.abs(counts.cumsum(0) - steps * target).max()),
        int(counts[:, rarest].sum()),
    )


def rules(shares: list[Fraction]) -> dict[str, np.ndarray]:
    count, size = len(shares), BATCH * STEPS
    weights = np.array([float(share) for share in shares])
    rounded = np.floor(weights * BATCH).astype(int)
    for index in np.argsort(rounded - weights * BATCH)[: BATCH - rounded.sum()]:
        rounded[index] += 1
    return {
        "mixtune (chairman)": np.fromiter(islice(chairman(shares), size), np.int64, size),
        "independent draws (interleave_datasets' rule)": np.random.default_rng(1).choice(count, size, p=weights),
        "largest remainder per batch (stratified's rule)": np.tile(np.repeat(np.arange(count), rounded), STEPS),
        "whole batches by coin": np.fromiter(islice(whole_batches(shares, BATCH, 1), size), np.int64, size),
    }


def mixing_table() -> None:
    print(f"## Mixing rules: {STEPS} steps of {BATCH}\n")
    print("| mix | rule | worst in one batch | worst cumulated | rarest pool: records (planned) |")
    print("|---|---|---|---|---|")
    halves = {"75/25": [75, 25], "50/50": [50, 50], "90/10": [90, 10]}
    mixes = {name: [Fraction(part, 100) for part in parts] for name, parts in halves.items()}
    general = [Fraction(str(weight)) / Fraction(str(sum(map(Fraction, map(str, NOVA))))) / 4 for weight in NOVA]
    mixes["75/25 over Nova's 23 categories"] = [Fraction(3, 4), *general]
    for name, shares in mixes.items():
        for rule, slots in rules(shares).items():
            step, total, rare = worst(slots, shares)
            planned = float(min(shares)) * BATCH * STEPS
            print(f"| {name} | {rule} | {step:.2f} | {total:.2f} | {rare} ({planned:.0f}) |")


def tokenizing_table(model: str, pools: list[str]) -> None:
    opened = [read_pools(path) for path in pools]
    records = list(chain.from_iterable(p.records(pool.name, "train") for p in opened for pool in p.pools))[::3]
    tokenizer = ChatTokenizer(Path(model))
    texts = [tokenizer._render_record(record)[0] for record in records]
    began = time.process_time()
    tokens = sum(len(e.ids) for e in tokenizer._tokenizer.encode_batch_fast(texts, add_special_tokens=False))
    bare = tokens / (time.process_time() - began)
    print(
        f"\n## Tokenizing {len(records):,} records, {tokens:,} tokens\n\n| what | Mtok per CPU-second | ratio |\n|---|---|---|"
    )
    print(f"| bare Hugging Face tokenizer, text already rendered | {bare / 1e6:.2f} | 1.00 |")
    for encoder in ("tokenizers", "fastokens"):
        if encoder == "fastokens" and tokenizer.choose_encoder(records[:2000]) != encoder:
            print("| fastokens | disagrees with the tokenizer, not used | - |")
            return
        began = time.process_time()
        count = sum(len(item.input_ids) for item in tokenizer.tokenize(records))
        speed = count / (time.process_time() - began)
        print(f"| mixtune: template, tokens, mask, proof; {encoder} | {speed / 1e6:.2f} | {speed / bare:.2f} |")


def receipt(model: str, customer: str, general: str) -> None:
    names = [pool.name for pool in read_pools(general).pools]
    mix = Mix(customer_data_percent=75, weights=dict.fromkeys(names, 100 / len(names)), global_batch_size=32)
    with tempfile.TemporaryDirectory() as folder:
        places = Places(
            customer_path=customer,
            general_path=general,
            manifest_path=f"{folder}/shards",
            data_uri=f"{folder}/data/shards",
            html_path=f"{folder}/receipt.html",
            markdown_path=f"{folder}/receipt.md",
        )
        sys.stdout, out = sys.stderr, sys.stdout
        found = mix_shard(model, mix, places)
        sys.stdout = out
    print("\n#" + receipt_markdown(found))


if __name__ == "__main__":
    mixing_table()
    tokenizing_table(sys.argv[1], sys.argv[2:4])
    receipt(*sys.argv[1:4])
