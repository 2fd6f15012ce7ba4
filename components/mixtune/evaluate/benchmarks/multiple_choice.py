"""Multiple choice of any kind: the choices' texts behind the question, by log-probability over their length.

Prompts, choices and both scores are those of lm-eval's ARC tasks; HellaSwag, PIQA, OpenBookQA, CommonsenseQA and
MedMCQA have rows of the same form.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa

from mixtune import benchmark_files
from mixtune.artifacts.samples import Sample
from mixtune.errors import ConfigError
from mixtune.evaluate.answers import choose
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Contrasts, Labels, correct, measure_column, measure_contrast
from mixtune.evaluate.choice_rows import ChoiceOptions, Question, read_questions
from mixtune.inference.engine import Engine, Request, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import encode_pairs

ITEMS_PER_PART = 1024


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceOptions(ChoiceOptions):
    """Options of a multiple-choice benchmark, in one of the layouts of `choice_layouts`."""

    prompt: str = "Question: {question}\nAnswer:"
    """What stands before a choice and a space; `{question}` is the row's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{question}" not in self.prompt:
            raise ConfigError("prompt has {question} where a row's question goes")


class MultipleChoice(BenchmarkForm[MultipleChoiceOptions]):
    """Questions whose choices are texts."""

    name, options, metric, default_limit = "multiple_choice", MultipleChoiceOptions, "accuracy_norm", 0.02

    def plan(self, axis: str, options: MultipleChoiceOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the questions of the `test` split, or else of `validation`, taken evenly from the subjects."""
        questions = benchmark_files.choose_split(read_questions(options), options.uri)
        questions = benchmark_files.stratified_subset(questions, lambda item: item.subject, limit)
        score = partial(score_choices, axis, tokenizer, options.prompt)
        return make_parts(axis, questions, ITEMS_PER_PART, score)

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return the share of right choices, by log-probability over the number of characters and by itself."""
        return {
            "accuracy_norm": float(correct(table).mean()),
            "accuracy": float(measure_column(table, "accuracy").mean()),
        }

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> Contrasts:
        """Return both readings."""
        return [*super().contrasts(base, candidate, labels), measure_contrast("accuracy", base, candidate)]


FORM = MultipleChoice()


def score_choices(
    axis: str, tokenizer: Tokenizer, prompt: str, questions: Sequence[Question], engine: Engine
) -> list[Sample]:
    """Return the samples of questions."""
    texts = [question.after_context(prompt.replace("{question}", question.question)) for question in questions]
    requests = []
    for question, text in zip(questions, texts, strict=True):
        pairs = encode_pairs(tokenizer, text, [f" {choice}" for choice in question.choices])
        requests.append(Request(context=pairs[0][0], continuations=tuple(pair[1] for pair in pairs)))
    samples = []
    for question, text, scores in zip(questions, texts, engine.score(requests), strict=True):
        sample = Sample(
            axis=axis,
            subject=question.subject,
            item_id=question.item_id,
            text=question.question,
            **choose(text, scores, question.letters, question.answer),
        )
        lengths = np.array([max(1, len(choice)) for choice in question.choices])
        best = int(np.argmax(np.array(scores.logprobs) / lengths))
        samples.append(
            replace(
                sample,
                correct=float(best == question.answer),
                prediction=question.letters[best],
                measures={"accuracy": sample.correct or 0.0},
            )
        )
    return samples
