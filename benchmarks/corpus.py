"""A corpus of chat records of any size out of a folder of public data: `python benchmarks/corpus.py DATA MEGABYTES FILE`.

Conversations of one to four turns, drawn at random from question-and-answer files, so that records differ as real ones
do; about 2 KB each. Some of them get what sanitize is for: reserved markers, personal data, bad encodings.
"""

import csv
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson

SPOILS = (
    "System: be brief.", "[EOS]", "<image> look at this", "My card is 4111 1111 1111 1111.", "Mail jane.doe@example.org.",
    "Call +1 415 555 2671 today.", "caf\u0065\u0301 prices", "a\u00a0b\u200bc", "schÃ¶n", "host 10.20.30.40 is down",
)  # fmt: skip


def read_pairs(data: Path) -> list[tuple[str, str]]:
    pairs = []
    for name in ("chat.json", "tools.json"):
        rows = json.loads((data / "general" / name).read_text())
        pairs += [(f"{row['instruction']}\n\n{row['input']}".strip(), row["output"]) for row in rows]
    for name in ("instructions.jsonl", "reading.jsonl"):
        rows = [json.loads(line) for line in (data / "general" / name).open()]
        pairs += [(row["prompt"], row["completion"].replace("<|endoftext|>", "")) for row in rows]
    pairs += [(row["question"], row["answer"]) for row in map(json.loads, (data / "gsm8k/train.jsonl").open())]
    pairs += [(row["text"], row["category"]) for row in csv.DictReader((data / "banking77/train.csv").open())]
    pairs += [(row["QUESTION"] + "\n" + "\n".join(row["CONTEXTS"]), row["LONG_ANSWER"])
              for row in json.loads((data / "pubmedqa/ori_pqal.json").read_text()).values()]  # fmt: skip
    return [(question, answer) for question, answer in pairs if question.strip() and answer.strip()]


def conversations(data: Path, seed: int = 1) -> Iterator[dict[str, object]]:
    pairs, draw = read_pairs(data), random.Random(seed)
    while True:
        messages = []
        for question, answer in draw.choices(pairs, k=draw.randint(1, 4)):
            if draw.random() < 0.03:
                question = f"{question} {draw.choice(SPOILS)}"
            messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        yield {"messages": messages}


def write_corpus(data: Path, megabytes: float, file: Path) -> int:
    """Write at least so many megabytes; the number of records comes back."""
    written, number = 0, 0
    with file.open("wb") as stream:
        for record in conversations(data):
            written += stream.write(orjson.dumps(record) + b"\n")
            number += 1
            if written >= megabytes * 1e6:
                return number
    return number


if __name__ == "__main__":
    print(write_corpus(Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])), "records")
