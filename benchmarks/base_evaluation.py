"""What the base evaluation of a small real model costs on a CPU: CPU seconds by axis, of a sample, and of the whole.

    python benchmarks/base_evaluation.py --mmlu DIR --ifeval FILE --model FOLDER --share 8

The whole: 456 MMLU questions with two shots, 96 IFEval prompts of 256 tokens at most, 219 held-out records, and 400
customer items whose 20 labels are ranked. Records are made of MMLU's texts: a customer's label is a question's subject.
Of every axis one part in `--share` is scored, by the code of `evaluate`; its CPU seconds are multiplied by the items.
"""

import argparse
import os
from dataclasses import dataclass
from functools import partial

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch

from mixtune.evaluate import choice_rows
from mixtune.evaluate.benchmarks import classification, ifeval, mmlu, nll
from mixtune.evaluate.benchmarks.ifeval import IfevalOptions
from mixtune.evaluate.benchmarks.mmlu import MmluOptions
from mixtune.evaluate.scoring.labels import LabelOptions, find_labels
from mixtune.inference import loading
from mixtune.inference.engine import Engine
from mixtune.inference.loading import ModelSource
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import AskingTokenizer
from mixtune.records import Message, Record, content_id

COUNTS = {"mmlu": 456, "ifeval": 96, "general_nll": 219, "customer": 400}
NUM_LABELS = 20


@dataclass(frozen=True)
class Cost:
    """What an axis's sample took."""

    num_items: int
    cpu_seconds: float


def make_record(number: int, question: str, answer: str, label: str = "") -> Record:
    messages = [Message(role="user", content=question), Message(role="assistant", content=answer)]
    record = Record(id=content_id(messages), messages=messages, origin={"file": "made", "line": number})
    return Record(**record, label=label) if label else record


def plan(options: argparse.Namespace, tokenizer: AskingTokenizer) -> dict[str, list[Part]]:
    """Return the parts of every axis, as `evaluate` cuts them for a CPU."""
    questions = choice_rows.read_questions(choice_rows.ChoiceOptions(uri=options.mmlu))["test"]
    listed = ["\n".join([item.question, *item.choices]) for item in questions[:: len(questions) // 600]]
    held_out = [make_record(n, text, listed[n + 300]) for n, text in enumerate(listed[: COUNTS["general_nll"]])]
    subjects = sorted({item.subject for item in questions})[:NUM_LABELS]
    asked = [item for item in questions if item.subject in subjects][::5][: COUNTS["customer"]]
    customer = [
        make_record(n, item.question, item.subject.replace("_", " "), item.subject) for n, item in enumerate(asked)
    ]
    labels = LabelOptions(records=customer, labels=find_labels(customer, "", {}), max_new_tokens=0)
    parts = {
        "mmlu": mmlu.FORM.plan("mmlu", MmluOptions(uri=options.mmlu, num_fewshot=2), tokenizer, COUNTS["mmlu"]),
        "ifeval": ifeval.FORM.plan(
            "ifeval", IfevalOptions(uri=options.ifeval, max_new_tokens=256), tokenizer, COUNTS["ifeval"]
        ),
        "general_nll": make_parts(
            "nll", held_out, COUNTS["general_nll"], partial(nll.score_records, "nll", tokenizer, "p")
        ),
        "customer": classification.FORM.plan("customer", labels, tokenizer, 0),
    }
    return {axis: [piece for part in axis_parts for piece in part.cut()] for axis, axis_parts in parts.items()}


def measure(parts: list[Part], engine: Engine, share: int) -> Cost:
    """Score some parts, and return what they took."""
    sample = parts[:: max(1, min(share, len(parts)))]
    before = os.times()
    for part in sample:
        part.score(engine)
    after = os.times()
    return Cost(sum(part.num_items for part in sample), after.user + after.system - before.user - before.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmlu", required=True, help="folder with test.parquet and dev.parquet")
    parser.add_argument("--ifeval", required=True, help="IFEval's JSONL")
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--share", type=int, default=1, help="one part in so many is scored; 1: all")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    source = ModelSource(base_model=options.model, device="cpu", dtype="float32")
    fetched = loading.fetch(source)
    engine = loading.load_engine(source, fetched)
    tokenizer = AskingTokenizer(loading.load_tokenizer(source, fetched), None)
    print("| axis | items | of them measured | CPU s, measured | CPU s, all |", "|---|---|---|---|---|", sep="\n")
    total = 0.0
    for axis, parts in plan(options, tokenizer).items():
        cost = measure(parts, engine, options.share)
        whole = cost.cpu_seconds / cost.num_items * COUNTS[axis]
        total += whole
        print(f"| {axis} | {COUNTS[axis]} | {cost.num_items} | {cost.cpu_seconds:.0f} | {whole:.0f} |", flush=True)
    print(f"| all | {sum(COUNTS.values())} | | | {total:.0f} |", f"\n{total / 120:.1f} minutes on two cores.", sep="\n")


if __name__ == "__main__":
    main()
