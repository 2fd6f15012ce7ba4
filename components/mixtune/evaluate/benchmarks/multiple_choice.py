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
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import choose
from mixtune.evaluate.benchmarks import form
from mixtune.evaluate.benchmarks.form import correct, measure_column
from mixtune.evaluate.choice_rows import ChoiceOptions, Question, read_questions, scored_as_texts
from mixtune.inference.engine import Engine, Request, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import encode_pairs

ITEMS_PER_PART = 1024
PROMPT, CONTINUED = "Question: {question}\nAnswer:", "{question}"
BIAS, GOLD = "ambiguous_bias", "gold_probability"
WORDS = {"yes", "no", "maybe", "true", "false", "neither", "valid", "invalid", "positive", "negative"}
"""Choices of these alone are not compared by their length: `yes` is no longer an answer than `no`."""


@dataclass(frozen=True, kw_only=True)
class MultipleChoiceOptions(ChoiceOptions):
    """Options of a multiple-choice benchmark, in one of the layouts of `choice_layouts`."""

    prompt: str = PROMPT
    """What stands before a choice and a space; `{question}` is the row's. By default a text that its choices go on with
    stands alone (HellaSwag, OpenBookQA, COPA, WinoGrande)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if "{question}" not in self.prompt:
            raise ConfigError("prompt has {question} where a row's question goes")


class MultipleChoice(form.BenchmarkForm[MultipleChoiceOptions]):
    """Questions whose choices are texts."""

    name, options, metric, default_limit = "multiple_choice", MultipleChoiceOptions, "accuracy_norm", 0.02
    other_metrics = ("accuracy", GOLD, BIAS)
    means = (
        ("accuracy_norm", correct),
        ("accuracy", partial(measure_column, name="accuracy")),
        (GOLD, form.gold_probability),
    )

    def plan(self, axis: str, options: MultipleChoiceOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the questions of the `test` split, or else of `validation`, taken evenly from the subjects."""
        questions = benchmark_files.choose_split(read_questions(options), options.uri)
        if self.metric == BIAS and not all(question.bias for question in questions):
            raise DataError(f"{options.uri}: {self.metric} is scored on rows of BBQ, with their answer_info")
        questions = scored_as_texts(questions, options.uri)
        questions = benchmark_files.stratified_subset(questions, lambda item: item.subject, limit)
        score = partial(score_choices, axis, tokenizer, options.prompt)
        return make_parts(axis, questions, ITEMS_PER_PART, score)

    def summarize(self, table: pa.Table, labels: form.Labels) -> dict[str, float]:
        """Return the share of right choices, by log-probability over the number of characters and by itself.

        `gold_probability` is the right choices' share of all choices' probability; where several are right, it is
        TruthfulQA's mc2.
        """
        scores = super().summarize(table, labels)
        if _is_biased(table):
            values, weights = _ambiguous_bias(table)
            scores[BIAS] = float(values.sum() / max(weights.sum(), 1))
            scores["disambiguated_bias"] = _disambiguated_bias(table)(np.ones(len(table)))
        return scores

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: form.Labels) -> form.Contrasts:
        """Return both readings, the right choices' probability, and of BBQ its bias, of which less is better."""
        contrasts = super().contrasts(base, candidate, labels)
        if _is_biased(base):
            before, after = _ambiguous_bias(base), _ambiguous_bias(candidate)
            contrasts.append(form.Contrast(metric=BIAS, base=before, candidate=after, higher_is_better=False))
            first, second = _disambiguated_bias(base), _disambiguated_bias(candidate)
            name = "disambiguated_bias"
            contrasts.append(form.ResampledContrast(metric=name, base=first, candidate=second, higher_is_better=False))
        return contrasts


FORM = MultipleChoice()


def score_choices(
    axis: str, tokenizer: Tokenizer, prompt: str, questions: Sequence[Question], engine: Engine
) -> list[Sample]:
    """Return the samples of questions."""
    bare = CONTINUED if prompt == PROMPT else prompt
    texts = [
        question.after_context((bare if question.is_continued else prompt).replace("{question}", question.question))
        for question in questions
    ]
    requests = [_requests(tokenizer, text, question) for question, text in zip(questions, texts, strict=True)]
    answers = iter(engine.score([request for of_question in requests for request in of_question]))
    samples = []
    for question, text, parts in zip(questions, texts, requests, strict=True):
        scored = [next(answers) for _ in parts]
        scores = replace(scored[0], logprobs=tuple(value for part in scored for value in part.logprobs))
        sample = Sample(
            axis=axis,
            subject=question.subject,
            item_id=question.item_id,
            cluster=question.cluster,
            text=question.question,
            **choose(text, scores, question.choices, question.answer, question.others_right),
        )
        is_fixed = len(parts) > 1 or WORDS.issuperset(choice.lower() for choice in question.choices)
        lengths = np.array([1 if is_fixed else max(1, len(choice)) for choice in question.choices])
        best = int(np.argmax(np.array(scores.logprobs) / lengths))
        measures = {"accuracy": sample.correct or 0.0} | ({"bias": question.bias[best]} if question.bias else {})
        right = float(best in (question.answer, *question.others_right))
        samples.append(replace(sample, correct=right, prediction=question.choices[best], measures=measures))
    return samples


def _is_biased(table: pa.Table) -> bool:
    """Return whether the items are BBQ's, some with a context that does not tell."""
    rows = (dict(row) for row in table["measures"].to_pylist())
    return all("bias" in row for row in rows) and bool(_is_ambiguous(table).any())


def _is_ambiguous(table: pa.Table) -> form.Floats:
    return np.array([float(name.endswith(" ambiguous")) for name in table["subject"].to_pylist()])


def _ambiguous_bias(table: pa.Table) -> form.ItemScores:
    """Return the bias of Parrish et al. (2022), -1 to 1: `(1 - accuracy) * (2 * biased / answered - 1)` is its mean."""
    ambiguous = _is_ambiguous(table)
    return form.ItemScores(measure_column(table, "bias") * ambiguous, ambiguous)


def _disambiguated_bias(table: pa.Table) -> form.Score:
    """Return their bias where the context tells: of the answers that say something, which say the stereotype."""
    bias = measure_column(table, "bias") * (1 - _is_ambiguous(table))
    return lambda weights: float(weights @ bias) / max(float(weights @ np.abs(bias)), 1e-9)


def _requests(tokenizer: Tokenizer, text: str, question: Question) -> list[Request]:
    """Return what is scored: the choices behind a text, or where it has a blank, the rest of it behind each choice."""
    if question.is_continued and text.count("_") == 1:  # WinoGrande, by partial evaluation (Trinh and Le, 2018)
        before, after = text.split("_")
        pairs = [encode_pairs(tokenizer, before + choice, [f" {after.strip()}"])[0] for choice in question.choices]
        return [Request(context=context, continuations=(rest,)) for context, rest in pairs]
    pairs = encode_pairs(tokenizer, text, [f" {choice}" for choice in question.choices])
    return [Request(context=pairs[0][0], continuations=tuple(pair[1] for pair in pairs))]
