"""MMLU and whatever has its form: a question, lettered choices, one right answer, scored by log-probability.

Prompts are byte for byte those of lm-eval's `mmlu` tasks; the choices are scored as ` A`, ` B` ... after `Answer:`.
With `scoring: text` the question stands without its choices, and their texts are scored: for a model too small to
learn what a letter stands for.
"""

import json
import math
import string
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.artifacts.samples import Part, Sample, chunks, prompt_hash
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate import benchmark_files
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Contrast, Floats, Labels, ResampledContrast, mean_scores
from mixtune.inference.engine import Request
from mixtune.inference.prompts import encode_pair

SCORINGS = ("letter", "text")
ITEMS_PER_PART = 1024
"""An MMLU subject is one part (the largest has 1,534 items and is two), so that its prefix is computed once."""


@dataclass(frozen=True, kw_only=True)
class MmluOptions:
    """Options of an MMLU-form benchmark."""

    uri: str
    num_fewshot: int = 5
    """Solved items of the `dev` split before each question; 0: none."""
    scoring: str = "letter"
    """What is scored: the choices' `letter` (MMLU's own way) or their `text`."""

    def __post_init__(self) -> None:
        if self.scoring not in SCORINGS:
            raise ConfigError(f"benchmark {self.uri}: scoring is one of {', '.join(SCORINGS)}, got {self.scoring!r}")
        if self.num_fewshot < 0:
            raise ConfigError(f"benchmark {self.uri}: num_fewshot is 0 or more, got {self.num_fewshot}")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One item."""

    item_id: str
    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index into `choices`."""

    @property
    def letters(self) -> str:
        """One letter per choice."""
        return string.ascii_uppercase[: len(self.choices)]

    def answers(self, scoring: str) -> tuple[str, ...]:
        """What is scored behind the prompt, by choice."""
        return tuple(self.letters) if scoring == "letter" else self.choices


def read_questions(uri: str) -> dict[str, list[Question]]:
    """The questions of a benchmark by split."""
    splits = benchmark_files.read_splits(uri)
    return {split: _questions(rows, uri) for split, rows in splits.items()}


def prompts(questions: list[Question], shots: list[Question], num_fewshot: int, scoring: str = "letter") -> list[str]:
    """Prompts up to `Answer:`.

    Raises:
        DataError: A subject has fewer solved items than `num_fewshot` asks for.
    """
    solved: dict[str, list[Question]] = defaultdict(list)
    for shot in shots:
        solved[shot.subject].append(shot)
    heads = {}
    for subject in {question.subject for question in questions}:
        if len(solved[subject]) < num_fewshot:
            raise DataError(
                f"MMLU subject {subject!r}: {len(solved[subject])} items in the dev split, num_fewshot is "
                f"{num_fewshot}; "
                "give a folder with a dev file, or set num_fewshot"
            )
        name = subject.replace("_", " ")
        head = f"The following are multiple choice questions (with answers) about {name}.\n\n"
        head = head if scoring == "letter" else ""
        for shot in solved[subject][:num_fewshot]:
            head += f"{ask(shot, scoring)} {shot.answers(scoring)[shot.answer]}\n\n"
        heads[subject] = head
    return [heads[question.subject] + ask(question, scoring) for question in questions]


def ask(question: Question, scoring: str = "letter") -> str:
    """A question up to `Answer:`; with its choices, where their letters are scored."""
    if scoring == "text":
        return f"{question.question.strip()}\nAnswer:"
    lines = [f"{letter}. {text}" for letter, text in zip(question.letters, question.choices, strict=True)]
    return "\n".join([question.question.strip(), *lines, "Answer:"])


@dataclass(frozen=True)
class Scorer:
    """Scores the questions of one part."""

    axis: str
    items: tuple[tuple[Question, str], ...]
    tokenizer: Any
    scoring: str = "letter"

    def __call__(self, engine: Any) -> list[Sample]:
        """The samples of the part."""
        requests = []
        for question, text in self.items:
            pairs = [encode_pair(self.tokenizer, text, f" {answer}") for answer in question.answers(self.scoring)]
            requests.append(Request(context=pairs[0][0], continuations=tuple(pair[1] for pair in pairs)))
        samples = []
        for (question, text), scores in zip(self.items, engine.score(requests), strict=True):
            logprobs = scores.logprobs
            best = int(np.argmax(logprobs))
            samples.append(
                Sample(
                    axis=self.axis,
                    subject=question.subject,
                    item_id=question.item_id,
                    prompt_hash=prompt_hash(text),
                    text=question.question,
                    prediction=question.letters[best],
                    gold=question.letters[question.answer],
                    correct=float(best == question.answer),
                    choice_logprobs=logprobs,
                    nll=normalised_nll(logprobs, question.answer),
                    num_tokens=1,
                    latency_seconds=scores.latency_seconds,
                    truncated=scores.truncated,
                )
            )
        return samples


def normalised_nll(logprobs: tuple[float, ...], gold: int) -> float:
    """Negative log of the gold choice's share among the choices."""
    return float(np.logaddexp.reduce(logprobs) - logprobs[gold])


class Mmlu(BenchmarkForm[MmluOptions]):
    """Questions with lettered choices, one part per subject."""

    name, options, metric, default_limit = "mmlu", MmluOptions, "accuracy", 0.02

    def plan(self, axis: str, options: MmluOptions, tokenizer: Any, limit: int) -> list[Part]:
        """Return the questions of the `test` split, taken evenly from the subjects, in parts of one subject each."""
        splits = read_questions(options.uri)
        if "test" not in splits:
            raise DataError(f"{options.uri}: no test split in it; name a file test.parquet, test.jsonl or test.csv")
        questions = benchmark_files.take(splits["test"], [item.subject for item in splits["test"]], limit)
        texts = prompts(questions, splits.get("dev", []), options.num_fewshot, options.scoring)
        by_subject: dict[str, list[tuple[Question, str]]] = defaultdict(list)
        for question, text in zip(questions, texts, strict=True):
            by_subject[question.subject].append((question, text))
        parts = []
        for subject in sorted(by_subject):
            for number, items in enumerate(chunks(by_subject[subject], ITEMS_PER_PART)):
                score = Scorer(axis, tuple(items), tokenizer, options.scoring)
                parts.append(Part(axis=axis, name=f"{subject}-{number:03}", num_items=len(items), score=score))
        return parts

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return accuracy over items, its mean over subjects, and the gold choice's mean probability."""
        correct = np.array(table["correct"].to_pylist(), dtype=float)
        subjects = np.array(table["subject"].to_pylist())
        by_subject = [correct[subjects == name].mean() for name in np.unique(subjects)]
        return {
            "accuracy": float(correct.mean()),
            "subject_mean_accuracy": float(np.mean(by_subject)),
            "gold_probability": float(_gold_probability(table).mean()),
            "standard_error": float(correct.std(ddof=1) / math.sqrt(len(correct))) if len(correct) > 1 else 0.0,
        }

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> list[Contrast | ResampledContrast]:
        """Return accuracy, and the gold choice's probability, which moves before accuracy does."""
        base_shares, candidate_shares = (mean_scores(_gold_probability(table)) for table in (base, candidate))
        probability = Contrast(metric="gold_probability", base=base_shares, candidate=candidate_shares)
        return [*super().contrasts(base, candidate, labels), probability]


FORM = Mmlu()


def _gold_probability(table: pa.Table) -> Floats:
    return np.asarray(np.exp(-table["nll"].to_numpy()))


def _questions(rows: list[dict[str, Any]], uri: str) -> list[Question]:
    counts: dict[str, int] = defaultdict(int)
    questions = []
    for number, row in enumerate(rows, 1):
        subject = str(row.get("subject") or "all")
        choices = _choices(row, uri, number)
        questions.append(
            Question(
                item_id=f"{subject}/{counts[subject]}",
                subject=subject,
                question=str(benchmark_files.need(row, "question", uri, number)),
                choices=choices,
                answer=_answer(benchmark_files.need(row, "answer", uri, number), len(choices), uri, number),
            )
        )
        counts[subject] += 1
    return questions


def _choices(row: dict[str, Any], uri: str, number: int) -> tuple[str, ...]:
    value = row.get("choices")
    if value is None and "A" in row:
        value = [row[letter] for letter in string.ascii_uppercase if row.get(letter) not in (None, "")]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise DataError(f"{uri} row {number}: choices is not a JSON list ({error})") from error
    if not isinstance(value, list) or not 2 <= len(value) <= len(string.ascii_uppercase):
        raise DataError(f"{uri} row {number}: choices is a list of 2 to 26 texts, or columns A, B ...; got {value!r}")
    return tuple(str(item) for item in value)


def _answer(value: Any, count: int, uri: str, number: int) -> int:
    text = str(value).strip()
    letters = string.ascii_uppercase[:count]
    index = letters.find(text) if len(text) == 1 and text.isalpha() else int(text) if text.isdigit() else -1
    if not 0 <= index < count:
        raise DataError(f"{uri} row {number}: answer is an index 0 to {count - 1} or a letter {letters}; got {value!r}")
    return index
