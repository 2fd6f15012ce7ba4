"""Whole public sets through `evaluate`: MMLU's 14,042 questions, and banking77 with its macro F1 held against scikit-learn's.

    python benchmarks/whole_sets.py --mmlu DIR --banking DIR --results benchmarks/results/whole_sets.md

`DIR`s hold `test.parquet` and `dev.parquet` (question, subject, choices, answer), and `train.csv` and `test.csv` (text,
category). One model is trained for a minute on banking77's training records, so that its answers are labels, most of
them right; the other has random weights.
"""

import argparse
import csv
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from sklearn.metrics import f1_score
from torch.nn.functional import cross_entropy
from transformers import AutoTokenizer, LlamaForCausalLM

from benchmarks import evaluate as models
from mixtune import storage
from mixtune.artifacts.pools import read_pools
from mixtune.artifacts.samples import Samples, read_samples
from mixtune.evaluate import choice_rows
from mixtune.evaluate.named_benchmarks import parse_benchmarks
from mixtune.evaluate.run import Inputs, Outputs, run
from mixtune.inference.prompts import encode, render_record
from mixtune.sanitize import run as sanitize
from mixtune.settings.from_dict import from_dict
from mixtune.settings.inference import EvaluateSettings

COLUMNS = {"prompt": "text", "completion": "category", "label": "category"}
STEPS, BATCH = 600, 32


def make_pools(folder: Path, name: str, sources: list[dict[str, Any]], **splits: Any) -> str:
    """A pools artifact of some CSV files; its manifest's path comes back."""
    path = folder / name
    path.mkdir()
    named = [{**source, "name": name, "columns": COLUMNS} for source in sources]
    settings, inputs = sanitize.read_parameters({"sources": named, "dedup": {"near_duplicates": 0}, "splits": splits})
    places = {"json_path": "pools", "data_uri": "data", "html_path": "report", "markdown_path": "summary"}
    sanitize.run(settings, inputs, sanitize.Outputs(**{key: str(path / place) for key, place in places.items()}))
    return str(path / "pools")


def train(folder: Path, pools: str) -> None:
    """Teach the model in `folder` the labels of the training records."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), LlamaForCausalLM.from_pretrained(folder)
    examples = []
    for record in read_pools(pools).records("customer", "train"):
        rendered = render_record(tokenizer, record)
        examples.append((encode(tokenizer, rendered.prompt), encode(tokenizer, rendered.answer)))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    draw = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        chosen = [examples[place] for place in torch.randint(len(examples), (BATCH,), generator=draw).tolist()]
        length = max(len(prompt) + len(answer) for prompt, answer in chosen)
        ids = torch.tensor([[*p, *a, *[0] * (length - len(p) - len(a))] for p, a in chosen])
        targets = torch.tensor([[-100] * len(p) + [*a] + [-100] * (length - len(p) - len(a)) for p, a in chosen])
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, step / 50) * (1 - step / STEPS)
        loss = cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)


def evaluate(folder: Path, model: Path, customer: str, general: str, **changes: Any) -> tuple[Samples, float, float]:
    """An evaluation, with its wall and its processor seconds."""
    folder.mkdir()
    benchmarks = parse_benchmarks(changes.pop("benchmarks", {}))
    inputs = Inputs(base_model=str(model), customer_path=customer, general_path=general, benchmarks=benchmarks)
    path = str(folder / "samples")
    data = storage.data_uri(path, "samples")
    outputs = Outputs(
        json_path=path, data_uri=data, html_path=f"{folder}/report.html", markdown_path=f"{folder}/summary.md"
    )
    _, wall, cpu = models.timed(run, from_dict(EvaluateSettings, changes, "options"), inputs, outputs)
    return read_samples(path), wall, cpu


def scikit_f1(samples: Samples, truth: dict[str, str]) -> float:
    """Macro F1 of the predictions by scikit-learn, with the labels that the CSV file itself gives."""
    rows = samples.table("customer").select(["text", "prediction"]).to_pylist()
    gold, said = [truth[row["text"].strip()] for row in rows], [row["prediction"] for row in rows]
    labels = sorted({*gold, *said} - {""})
    return float(f1_score(gold, said, labels=labels, average="macro", zero_division=0))


def banking(folder: Path, data: Path, questions: list[str]) -> list[str]:
    """Both ways to read labels, with a model that learned them; the tokenizer knows the words of some questions too."""
    both = [{"uri": str(data / "train.csv")}, {"uri": str(data / "test.csv"), "split": "test"}]
    customer = make_pools(folder, "customer", both)
    nothing = make_pools(folder, "general", both[:1], test_ratio=0.0)
    with open(data / "test.csv", newline="") as file:
        truth = {row["text"].strip(): row["category"] for row in csv.DictReader(file)}
    model = folder / "banking"
    texts = questions + [f"{text} {label}" for text, label in truth.items()] * 4
    count = models.make_model(model, texts, hidden=64, layers=4, heads=4, vocabulary=4096)
    train(model, customer)
    lines = []
    for method in ("logprobs", "generation"):
        given = {"method": method, "max_new_tokens": 24}
        found, wall, cpu = evaluate(folder / method, model, customer, nothing, customer_options=given)
        axis = found.axes["customer"]
        scores = f"macro F1 {axis.score:.6f} | {scikit_f1(found, truth):.6f}"
        lines.append(row("banking77", count, axis.num_items, method, scores, wall, cpu))
    return lines


def whole_mmlu(folder: Path, uri: str, questions: list[str]) -> list[str]:
    """Every question, five shots, with a model that knows nothing."""
    model, nothing = folder / "mmlu-model", folder / "nothing.csv"
    count = models.make_model(model, questions, hidden=32, layers=2, heads=4)
    nothing.write_text("text,category\n" + "".join(f"question {n},{'ab'[n % 2]}\n" for n in range(20)))
    pools = make_pools(folder, "nothing", [{"uri": str(nothing)}], test_ratio=0.0)
    options = {"mmlu": {"uri": uri, "num_fewshot": 5}}
    found, wall, cpu = evaluate(folder / "mmlu", model, pools, pools, benchmarks=options)
    axis = found.axes["mmlu"]
    subjects = len(set(found.table("mmlu")["subject"].to_pylist()))
    scores = f"accuracy {axis.score:.4f}, standard error {axis.scores['standard_error']:.4f} | "
    return [row(f"MMLU, {subjects} subjects, five shots", count, axis.num_items, "letters", scores, wall, cpu)]


def row(name: str, count: int, items: int, by: str, scores: str, wall: float, cpu: float) -> str:
    """A line of the results."""
    line = (
        f"| {name} | {count / 1e6:.1f} M | {items:,} | {by} | {scores} | {wall:.0f} ({cpu:.0f}) | {items / cpu:.0f} |"
    )
    print(line, flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mmlu", required=True)
    parser.add_argument("--banking", required=True)
    parser.add_argument("--only", choices=("mmlu", "banking"), default=None)
    parser.add_argument("--results", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        questions = [f"{q.question} {' '.join(q.choices)}" for q in choice_rows.read_questions(options.mmlu)["test"]]
        lines = whole_mmlu(Path(name), options.mmlu, questions) if options.only != "banking" else []
        lines += banking(Path(name), Path(options.banking), questions) if options.only != "mmlu" else []
    head = [
        "# Whole sets through evaluate",
        "",
        f"{time.strftime('%Y-%m-%d')}, 2 CPU cores, one thread, torch {torch.__version__}, float32; times are those of the "
        "whole step, reading and reports included.",
        "",
        "`python benchmarks/whole_sets.py --mmlu DIR --banking DIR --results benchmarks/results/whole_sets.md`",
        "",
        "| set | parameters | items | choices or labels by | score | scikit-learn's | s (CPU s) | items per CPU second |",
        "|---|---|---|---|---|---|---|---|",
    ]
    if options.results:
        Path(options.results).write_text("\n".join([*head, *lines]) + "\n")


if __name__ == "__main__":
    main()
