"""Near-duplicates side by side, at equal bands, on a planted set: recall, false drops, records per CPU-second, memory.

    python benchmarks/near_duplicates.py DATA 100000 > near.md

Of the records, a twentieth are copies of others with a share of their words changed, so that the truth is known: the
exact Jaccard similarity of five-word shingles. Every tool gets 126 hashes in 21 bands of 6 rows, its own way of making
shingles, and one core. A candidate that is not verified and is less than 0.5 alike counts as a false drop.
"""

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from corpus import conversations

from mixtune.sanitize.near import BANDS, COMMON, ROWS, find_pairs, propose_in_memory
from mixtune.sanitize.near_daft import propose_on_daft
from mixtune.sanitize.parts import Features
from mixtune.sanitize.words import words

Pairs = set[tuple[int, int]]
THRESHOLD = 0.8


def shingles(text: str) -> set[str]:
    found = words(text)
    return {" ".join(found[at : at + 5]) for at in range(max(1, len(found) - 4))}


def plant(data: Path, total: int, file: Path) -> None:
    """Questions of at most 200 words; a copy has one of every 100, 40 or 15 words replaced."""
    draw, made, texts = random.Random(2), conversations(data), []
    seen = set()
    while len(texts) < total * 19 // 20:
        turns: list[dict[str, str]] = next(made)["messages"]  # type: ignore[assignment]
        text = " ".join(" ".join(turn["content"] for turn in turns).split()[:200])
        text = "".join(letter for letter in text if not letter.isdigit())
        if len(text.split()) > 40 and text[:60] not in seen:
            seen.add(text[:60])
            texts.append(text)
    originals = draw.sample(range(len(texts)), total - len(texts)) if total - len(texts) <= len(texts) else []
    truth = []
    for original in originals:
        parts = texts[original].split()
        for place in draw.sample(range(len(parts)), max(1, len(parts) // draw.choice([100, 40, 15]))):
            parts[place] = f"changed{chr(97 + draw.randrange(26))}"
        one, other = shingles(texts[original]), shingles(" ".join(parts))
        truth.append([original, len(texts), len(one & other) / len(one | other)])
        texts.append(" ".join(parts))
    file.write_text(json.dumps({"texts": texts, "truth": truth}))


def ours(texts: list[str], propose: object) -> Pairs:
    parts = []
    for at in range(0, len(texts), 20_000):
        features = Features(near=True)
        for text in texts[at : at + 20_000]:
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
            features.add({"id": "", "messages": turns, "origin": {"file": "", "line": 0}})  # type: ignore[typeddict-item]
        parts.append(features.arrays())
    pairs = find_pairs(lambda: iter(parts), len(texts), THRESHOLD, propose)  # type: ignore[arg-type]
    return {(pair.first, pair.second) for pair in pairs}


def run_mixtune_candidates(texts: list[str]) -> Pairs:
    found: list[np.ndarray] = []

    def propose(buckets: Iterable[np.ndarray]) -> np.ndarray:
        found.append(propose_in_memory(buckets))
        return found[0][:0]

    ours(texts, propose)
    return set(map(tuple, found[0].tolist()))


def run_mixtune(texts: list[str]) -> Pairs:
    return ours(texts, propose_in_memory)


def run_mixtune_daft(texts: list[str]) -> Pairs:
    return ours(texts, propose_on_daft)


def run_datasketch(texts: list[str]) -> Pairs:
    from datasketch import MinHash, MinHashLSH

    index, found = MinHashLSH(num_perm=BANDS * ROWS, params=(BANDS, ROWS)), set()
    for number, text in enumerate(texts):
        value = MinHash(num_perm=BANDS * ROWS)
        value.update_batch([item.encode() for item in shingles(text)])
        found |= {(other, number) for other in index.query(value)}
        index.insert(number, value)
    return found


def run_rensa(texts: list[str]) -> Pairs:
    from rensa import RMinHash, RMinHashLSH

    index, found = RMinHashLSH(threshold=THRESHOLD, num_perm=BANDS * ROWS, num_bands=BANDS), set()
    for number, text in enumerate(texts):
        value = RMinHash(num_perm=BANDS * ROWS, seed=42)
        value.update(list(shingles(text)))
        found |= {(other, number) for other in index.query(value)}
        index.insert(number, value)
    return found


def run_daft(texts: list[str]) -> Pairs:
    import daft
    from daft import col

    frame = daft.from_pydict({"text": [" ".join(words(text)) for text in texts]})
    hashes = (
        frame.select(col("text").minhash(num_hashes=BANDS * ROWS, ngram_size=5)).to_arrow()["text"].combine_chunks()
    )
    table = hashes.values.to_numpy().reshape(-1, BANDS, ROWS).astype(np.uint64)
    buckets = (table * np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, ROWS + 1, dtype=np.uint64)).sum(axis=2)
    return set(map(tuple, propose_in_memory([buckets]).tolist()))


CASES = {
    f"mixtune, verified, templates (in over {COMMON} records) left out": run_mixtune,
    "mixtune, its candidates unverified": run_mixtune_candidates,
    "mixtune on Daft's native runner, verified": run_mixtune_daft,
    "datasketch MinHashLSH": run_datasketch,
    "rensa RMinHashLSH": run_rensa,
    "Daft minhash, bands sorted in NumPy": run_daft,
}


def verify(texts: list[str], pairs: Iterable[tuple[int, int]]) -> list[float]:
    found = []
    for first, second in pairs:
        one, other = shingles(texts[first]), shingles(texts[second])
        found.append(len(one & other) / len(one | other))
    return found


def child(name: str, file: Path) -> None:
    made = json.loads(file.read_text())
    texts, truth = made["texts"], made["truth"]
    case = next(item for item in CASES.values() if item.__name__ == name)
    for module in ("rensa", "datasketch", "daft"):
        if module in name or (module == "rensa" and "mixtune" in name):
            __import__(module)
    base, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    found = case(texts)
    cpu, peak = time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    wanted = [{(one, two) for one, two, alike in truth if alike >= level} for level in (0.8, 0.9)]
    alike = verify(texts, found)
    print(json.dumps([len(texts) / cpu, (peak - base) / 1024, *(len(found & pairs) / len(pairs) for pairs in wanted),
                      len(found), sum(value < 0.5 for value in alike), *map(len, wanted)]))  # fmt: skip


def main(data: Path, total: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "planted.json"
        plant(data, total, file)
        print(f"\n## Near-duplicates: {total:,} records, {total // 20:,} of them planted copies\n")
        print(
            "| tool | records per CPU-second | memory added, MB | recall at J >= 0.8 | at J >= 0.9 | pairs | less than half alike |"
        )
        print("|---|---|---|---|---|---|---|")
        for title, case in CASES.items():
            answer = subprocess.run(
                [sys.executable, __file__, "child", case.__name__, str(file)], capture_output=True, text=True
            )
            if answer.returncode:
                print(f"| {title} | not run: {answer.stderr.splitlines()[-1]} | | | | | |", flush=True)
                continue
            speed, memory, low, high, pairs, false, *sizes = json.loads(answer.stdout.splitlines()[-1])
            print(
                f"| {title} | {speed:,.0f} | {memory:,.0f} | {low:.4f} | {high:.4f} | {pairs:,} | {false:,} |",
                flush=True,
            )
        print(f"\nPlanted pairs at J >= 0.8: {sizes[0]:,}; at J >= 0.9: {sizes[1]:,}.")


if __name__ == "__main__":
    os.environ["DO_NOT_TRACK"] = "true"
    if sys.argv[1] == "child":
        child(sys.argv[2], Path(sys.argv[3]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]))
