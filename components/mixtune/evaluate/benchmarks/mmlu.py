"""MMLU and benchmarks of its form: a question, lettered choices, one right answer, scored by log-probability.

Prompts are byte for byte those of lm-eval's `mmlu` tasks; the choices are scored as ` A`, ` B` ... after `Answer:`.
With `scoring: text` the question stands without its choices, and their texts are scored: for a model too small to
learn what a letter stands for.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from mixtune import benchmark_files
from mixtune.artifacts.samples import Sample
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import choose
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Labels, correct, gold_probability
from mixtune.evaluate.choice_rows import NO_SUBJECT, ChoiceOptions, Question, read_questions, scored_as_texts
from mixtune.inference.engine import Engine, Request, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import encode_pairs

SCORINGS = ("letter", "text")
ITEMS_PER_PART = 1024
"""An MMLU subject is one part (the largest has 1,534 items and is two), so that its prefix is computed once."""
MANY_ALIKE = 20
"""So many right answers of one letter are no chance."""


@dataclass(frozen=True, kw_only=True)
class MmluOptions(ChoiceOptions):
    """Options of an MMLU-form benchmark."""

    num_fewshot: int = 5
    """Solved items of the `dev` split, or else of `validation`, before each question; 0: none."""
    scoring: str = "letter"
    """What is scored: the choices' `letter` (MMLU's own way) or their `text`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scoring not in SCORINGS:
            raise ConfigError(f"scoring is one of {', '.join(SCORINGS)}, got {self.scoring!r}")
        if self.num_fewshot < 0:
            raise ConfigError(f"num_fewshot is 0 or more, got {self.num_fewshot}")


class Mmlu(BenchmarkForm[MmluOptions]):
    """Questions with lettered choices."""

    name, options, metric, default_limit = "mmlu", MmluOptions, "accuracy", 0.02
    other_metrics = ("gold_probability",)
    means = (("accuracy", correct), ("gold_probability", gold_probability))
    """The probability moves before accuracy does."""

    def plan(self, axis: str, options: MmluOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the questions of the `test` split, taken evenly from the subjects, in parts of one subject each."""
        splits = read_questions(options)
        items = benchmark_files.choose_split(splits, options.uri)
        if options.scoring == "letter" and len(items) >= MANY_ALIKE and len({item.answer for item in items}) == 1:
            raise DataError(
                f"{options.uri}: the right answer of all {len(items)} items is {items[0].letters[items[0].answer]}: a "
                "liking for this letter would be measured; set scoring to text, or order the choices at random"
            )
        if any(item.also_right for item in items):
            raise DataError(f"{options.uri}: several choices are right; form multiple_choice has their probability")
        if any(item.bias for item in items):
            raise DataError(f"{options.uri}: BBQ's accuracy alone hides bias; form multiple_choice scores both")
        questions = benchmark_files.stratified_subset(items, lambda item: item.subject, limit)
        shots = next((splits[name] for name in ("dev", "validation") if splits.get(name, items) is not items), [])
        if options.scoring == "text":
            questions = scored_as_texts(questions, options.uri)
        texts = prompts(questions, shots, options.num_fewshot, options.scoring)
        by_subject: dict[str, list[tuple[Question, str]]] = defaultdict(list)
        for question, text in zip(questions, texts, strict=True):
            by_subject[question.subject].append((question, text))
        score = partial(score_questions, axis, tokenizer, options.scoring)
        return [
            part
            for subject, items in sorted(by_subject.items())
            for part in make_parts(axis, items, ITEMS_PER_PART, score, f"{subject}-")
        ]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return accuracy over items, its mean over subjects, and the gold choice's mean probability."""
        right, subjects = correct(table), np.array(table["subject"].to_pylist())
        by_subject = [right[subjects == name].mean() for name in np.unique(subjects)]
        return {
            **super().summarize(table, labels),
            "subject_mean_accuracy": float(np.mean(by_subject)),
            "standard_error": float(right.std(ddof=1) / math.sqrt(len(right))) if len(right) > 1 else 0.0,
        }


FORM = Mmlu()


def prompts(questions: list[Question], shots: list[Question], num_fewshot: int, scoring: str = "letter") -> list[str]:
    """Return prompts up to `Answer:`; a DataError where a subject has fewer solved items than `num_fewshot`."""
    solved: dict[str, list[Question]] = defaultdict(list)
    for shot in shots:
        solved[shot.subject].append(shot)
    heads = {}
    for subject in {question.subject for question in questions}:
        if len(solved[subject]) < num_fewshot:
            count = f"{len(solved[subject])} items in the dev split, num_fewshot is {num_fewshot}"
            raise DataError(f"MMLU subject {subject!r}: {count}; give a folder with a dev file, or set num_fewshot")
        topic = "" if subject == NO_SUBJECT else f" about {subject.replace('_', ' ')}"
        head = f"The following are multiple choice questions (with answers){topic}.\n\n"
        heads[subject] = (head if scoring == "letter" else "") + "".join(
            f"{ask(shot, scoring)} {answers(shot, scoring)[shot.answer]}\n\n" for shot in solved[subject][:num_fewshot]
        )
    return [heads[question.subject] + ask(question, scoring) for question in questions]


def answers(question: Question, scoring: str) -> tuple[str, ...]:
    """Return what is scored behind the prompt, by choice."""
    return tuple(question.letters) if scoring == "letter" else question.choices


def ask(question: Question, scoring: str = "letter") -> str:
    """Return a question up to `Answer:`; with its choices, where their letters are scored."""
    choices = zip(question.letters, question.choices, strict=True) if scoring == "letter" else ()
    lines = [question.question.strip(), *(f"{letter}. {text}" for letter, text in choices), "Answer:"]
    return question.after_context("\n".join(lines))


def score_questions(
    axis: str, tokenizer: Tokenizer, scoring: str, items: Sequence[tuple[Question, str]], engine: Engine
) -> list[Sample]:
    """Return the samples of questions and their prompts."""
    requests = []
    for question, text in items:
        pairs = encode_pairs(tokenizer, text, [f" {answer}" for answer in answers(question, scoring)])
        requests.append(Request(context=pairs[0][0], continuations=tuple(pair[1] for pair in pairs)))
    return [
        Sample(
            axis=axis,
            subject=question.subject,
            item_id=question.item_id,
            cluster=question.cluster,
            text=question.question,
            **choose(text, scores, question.letters, question.answer, question.others_right),
        )
        for (question, text), scores in zip(items, engine.score(requests), strict=True)
    ]
