"""Near-duplicates side by side, at equal bands, on a planted set: recall, false drops, records per CPU-second, memory.

    python benchmarks/near_duplicates.py plant DATA 100000 planted.json
    python benchmarks/near_duplicates.py compare planted.json > near.md     # one more argument: only titles that hold it
    python benchmarks/near_duplicates.py templates DATA >> near.md
    python benchmarks/near_duplicates.py short DATA >> near.md

Of the records, a twentieth are copies of others with a share of their words changed, so that the truth is known: the
exact Jaccard similarity of five-word shingles. Every tool gets 126 hashes in 21 bands of 6 rows, its own way of making
shingles, and one core. What it proposes is looked at afterwards by exact Jaccard; less than 0.5 would be a false drop.

`short` looks at the questions of banking77 that are alike by their sets of words, and at real questions with one word
changed: of how many it is seen that they are the same, and how many different ones are taken for the same.

`templates` puts real questions, all different, into one long instruction, and counts which of them would be dropped.
"""

import csv
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import xxhash
from corpus import conversations

from mixtune.ngrams import Sets, words
from mixtune.sanitize.dedup import minhash
from mixtune.sanitize.dedup.fingerprints import fingerprint_records
from mixtune.sanitize.dedup.minhash import BANDS, COMMON, ROWS, Propose, find_pairs, make_buckets, propose_in_memory
from mixtune.sanitize.dedup.minhash_daft import propose_on_daft
from mixtune.sanitize.parts import Features, write_arrays

Pairs = set[tuple[int, int]]
THRESHOLD = 0.8


def shingles(text: str) -> set[str]:
    found = words(text)
    return {" ".join(found[at : at + 5]) for at in range(max(1, len(found) - 4))}


def plant(data: Path, total: int, file: Path) -> None:
    """Conversations of at most 200 words; a copy has one of every 100, 40 or 15 words replaced."""
    draw, made, texts = random.Random(2), conversations(data), dict[str, None]()
    while len(texts) < total * 19 // 20:
        turns: list[dict[str, str]] = next(made)["messages"]  # type: ignore[assignment]
        text = " ".join(" ".join(turn["content"] for turn in turns).split()[:200])
        text = re.sub(r"\d", "", text)
        if len(text.split()) > 40:
            texts[text] = None
    originals, found = list(texts), list(texts)
    pairs = []
    for original in draw.sample(range(len(originals)), total - len(originals)):
        parts = originals[original].split()
        for place in draw.sample(range(len(parts)), max(1, len(parts) // draw.choice([100, 40, 15]))):
            parts[place] = f"changed{chr(97 + draw.randrange(26))}"
        pairs.append((original, len(found)))
        found.append(" ".join(parts))
    tables = [digest(shingles(text)) for text in found]
    digests, counts = np.unique(np.concatenate(tables), return_counts=True)
    templates, truth = set(digests[counts > COMMON].tolist()), []
    for first, second in pairs:
        one, other = set(tables[first].tolist()), set(tables[second].tolist())
        truth.append([first, second, jaccard(one, other), jaccard(one - templates, other - templates)])
    file.write_text(json.dumps({"texts": found, "truth": truth}))


def digest(items: set[str]) -> np.ndarray:
    return np.fromiter((xxhash.xxh3_64_intdigest(item.encode()) for item in items), np.uint64, len(items))


def jaccard(one: set[int], other: set[int]) -> float:
    return len(one & other) / max(1, len(one | other))


def ours(texts: list[str], propose: Propose, threshold: float = THRESHOLD) -> Pairs:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for at in range(0, len(texts), 20_000):
            features = Features(near=True)
            for text in texts[at : at + 20_000]:
                turns = [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
                features.add({"id": "", "messages": turns, "origin": {"file": "", "line": 0}})  # type: ignore[typeddict-item]
            files.append(f"{folder}/{at}.npz")
            write_arrays(files[-1], features.arrays())
            del features

        def blocks(names: Sequence[str]) -> Iterator[dict[str, np.ndarray]]:
            for file in files:
                with np.load(file) as arrays:
                    yield {name: arrays[name] for name in names}

        found = find_pairs(blocks, threshold, propose)
        return {(pair.first, pair.second) for pair in found if pair.same_template}


def run_mixtune_candidates(texts: list[str]) -> Pairs:
    found: list[np.ndarray] = []

    def propose(buckets: Iterable[np.ndarray]) -> np.ndarray:
        found.append(propose_in_memory(buckets))
        return found[0][:0]

    ours(texts, propose)
    return set(map(tuple, found[0].tolist()))


def run_mixtune(texts: list[str]) -> Pairs:
    return ours(texts, propose_in_memory)


def run_mixtune_all(texts: list[str]) -> Pairs:
    minhash._common = lambda blocks, known: known[:0]
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
    table = hashes.values.to_numpy().reshape(-1, BANDS * ROWS)
    buckets = make_buckets(table, np.zeros(len(table), np.uint64))
    return set(map(tuple, propose_in_memory([buckets]).tolist()))


CASES = {
    f"mixtune, verified, templates (in over {COMMON} records) left out": run_mixtune,
    "mixtune, verified, templates counted too": run_mixtune_all,
    "mixtune, its candidates unverified": run_mixtune_candidates,
    "mixtune on Daft's native runner, verified": run_mixtune_daft,
    "datasketch MinHashLSH": run_datasketch,
    "rensa RMinHashLSH": run_rensa,
    "Daft minhash, bands sorted in NumPy": run_daft,
}


def verify(texts: list[str], pairs: Iterable[tuple[int, int]]) -> np.ndarray:
    """Exact Jaccard similarity of pairs of texts."""
    table = np.array(sorted(pairs), np.int64).reshape(-1, 2)
    rows = np.unique(table)
    digests = [np.unique(digest(shingles(texts[row])).astype(np.uint32)) for row in rows]
    flat = np.concatenate([np.empty(0, np.uint32), *digests])
    sets = Sets(flat, np.cumsum([0, *map(len, digests)]))
    return minhash.jaccard(sets, np.searchsorted(rows, table))


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
    wanted = [{(one, two) for one, two, whole, rest in truth if whole >= level and rest >= level * beyond}
              for level, beyond in ((0.8, 0), (0.8, 1), (0.9, 0))]  # fmt: skip
    alike = verify(texts, found)
    print(json.dumps([len(texts) / cpu, (peak - base) / 1024, *(len(found & pairs) / len(pairs) for pairs in wanted),
                      len(found), int((alike >= THRESHOLD).sum()), int((alike < 0.5).sum()),
                      *map(len, wanted)]))  # fmt: skip


def compare(file: Path, only: str = "") -> None:
    print(
        "\n| tool | records per CPU-second | memory added, MB | recall at J >= 0.8 | the same beyond templates |",
        end="",
    )
    print(" at J >= 0.9 | pairs | J >= 0.8 | J < 0.5 |\n|---|---|---|---|---|---|---|---|---|")
    for title, case in CASES.items():
        if only not in title:
            continue
        answer = subprocess.run(
            [sys.executable, __file__, "child", case.__name__, str(file)], capture_output=True, text=True
        )
        if answer.returncode:
            print(f"| {title} | not run: {answer.stderr.splitlines()[-1]} | | | | | | | |", flush=True)
            continue
        speed, memory, *recall, pairs, alike, false, low, rest, high = json.loads(answer.stdout.splitlines()[-1])
        recalls = " | ".join(f"{value:.4f}" for value in recall)
        print(f"| {title} | {speed:,.0f} | {memory:,.0f} | {recalls} | {pairs:,} | {alike:,} | {false:,} |", flush=True)
    print(f"\nPlanted pairs at J >= 0.8: {low:,}, beyond templates {rest:,}; at J >= 0.9: {high:,}.")


def templates(data: Path) -> None:
    """What the rule for templates is for: a long instruction, a short question that differs, one of few answers."""
    with (data / "banking77/train.csv").open() as file:
        asked = [row["text"] for row in csv.DictReader(file)]
    names = sorted(json.loads((data / "banking77/categories.json").read_text()))
    instruction = f"Name the intent of a customer's question, one of: {', '.join(names)}. The question is:"
    texts = [f"{instruction} {text}" for text in dict.fromkeys(asked)]
    print(
        f"\n| {len(texts):,} questions after an instruction of {len(instruction.split())} words | pairs at J >= 0.9 |"
    )
    print(f"|---|---|\n| templates left out | {len(ours(texts, propose_in_memory, 0.9)):,} |")
    minhash._common = lambda blocks, known: known[:0]
    everything = [(first, second) for first in range(0, len(texts), 50) for second in range(first + 1, len(texts), 50)]
    share = (verify(texts, everything) >= 0.9).mean()
    print(f"| templates counted too | {share:.1%} of all pairs |")


def known_pairs(texts: Sequence[str], least: float = 0.8) -> list[tuple[int, int]]:
    """Pairs of texts whose sets of words have at least so high a Jaccard similarity, but not the same words in order."""
    ordered = [words(text) for text in texts]
    sets = [frozenset(items) for items in ordered]
    holders: dict[str, list[int]] = {}
    for number, items in enumerate(sets):
        for word in items:
            holders.setdefault(word, []).append(number)
    pairs = set()
    for number, items in enumerate(sets):
        rarest = sorted(items, key=lambda word: (len(holders[word]), word))
        for word in rarest[: len(items) - int(-(-least * len(items) // 1)) + 1]:  # one of these is in both
            for other in holders[word]:
                shared = len(items & sets[other])
                if other < number and shared >= least * (len(items) + len(sets[other]) - shared):
                    pairs.add((other, number))
    return sorted(pair for pair in pairs if ordered[pair[0]] != ordered[pair[1]])


def gists(texts: Sequence[str]) -> list[int]:
    """Digests of texts as short questions."""
    keys = []
    for start in range(0, len(texts), 256):
        turns = [
            [{"role": "user", "content": text}, {"role": "assistant", "content": ""}]
            for text in texts[start : start + 256]
        ]
        records = [{"id": "0", "messages": item, "origin": {"file": "", "line": 0}} for item in turns]
        keys += [item[5] for item in fingerprint_records(records).keys]  # type: ignore[arg-type]
    return keys


def short(data: Path) -> None:
    with (data / "banking77/train.csv").open() as file:
        rows = list(csv.DictReader(file))
    texts = [row["text"] for row in rows]
    pairs, keys = known_pairs(texts), gists(texts)
    alike = [(first, second) for first, second in pairs if rows[first]["category"] == rows[second]["category"]]
    by_shingles = ours(texts, propose_in_memory, 0.9)
    print(
        "\n| banking77, pairs of questions with word sets J >= 0.8, other words | pairs | five-word shingles at 0.9 | short questions |"
    )
    print("|---|---|---|---|")
    for title, some in (("with the same intent", alike), ("with two intents", sorted(set(pairs) - set(alike)))):
        same = sum(keys[first] == keys[second] for first, second in some)
        print(f"| {title} | {len(some):,} | {len(by_shingles & set(some)):,} | {same:,} |")
    draw, others = random.Random(4), [text for text in texts if 8 <= len(words(text)) <= 14]
    vocabulary = sorted({word for text in texts for word in words(text) if len(word) > 4})
    print(
        "\n| one change in a question of 8 to 14 words | questions | five-word shingles at 0.9 | short questions |\n|---|---|---|---|"
    )
    for title, extra in (
        ("a courtesy or an article put in", ["please", "just", "the", "actually", "still"]),
        ("a word replaced by another", vocabulary),
    ):
        changed = []
        for text in others[:2000]:
            parts = text.split()
            place = draw.randrange(1, len(parts))
            parts[place : place + (extra is vocabulary)] = [draw.choice(extra)]
            changed.append(" ".join(parts))
        both = gists([*others[:2000], *changed])
        same = sum(both[number] == both[number + 2000] for number in range(2000))
        found = ours([*others[:2000], *changed], propose_in_memory, 0.9)
        print(f"| {title} | 2,000 | {sum((n, n + 2000) in found for n in range(2000)):,} | {same:,} |")


if __name__ == "__main__":
    os.environ["DO_NOT_TRACK"] = "true"
    what, *rest = sys.argv[1:]
    if what == "child":
        child(rest[0], Path(rest[1]))
    elif what == "plant":
        plant(Path(rest[0]), int(rest[1]), Path(rest[2]))
    elif what == "compare":
        compare(Path(rest[0]), *rest[1:])
    elif what == "short":
        short(Path(rest[0]))
    else:
        templates(Path(rest[0]))
