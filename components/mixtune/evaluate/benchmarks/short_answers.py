"""Short free answers: questions whose right answer is one of several texts, possibly about a passage.

Asked as plain text behind solved items, so that a base model without a chat template is asked the same. An answer ends
with its line. It is compared by the published rule of its benchmark (`scoring.answer_matching`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa

from mixtune import benchmark_files
from mixtune.artifacts.samples import Sample
from mixtune.errors import ConfigError, DataError
from mixtune.evaluate.answers import AnswerColumns, generate, is_prompt_cut, latency_scores
from mixtune.evaluate.benchmarks import form
from mixtune.evaluate.benchmarks.form import correct, measure_column
from mixtune.evaluate.reference_rows import UNANSWERABLE, ShortQuestion, read_questions
from mixtune.evaluate.scoring.answer_matching import Match, best_match, words_of
from mixtune.inference.engine import Engine, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import encode

QUESTIONS_PER_PART = 128
_HEAD = f"Answer in words of the passage, or say {UNANSWERABLE} where it has no answer.\n\n"
_SHOTS_APART = 8
"""Solved items are so many times rarer than they could be, so that they are about different passages."""
_TOO_LONG = 0.05
"""Share of the right answers that may be longer than an answer can be."""


@dataclass(frozen=True, kw_only=True)
class ShortAnswerOptions:
    """Options of a benchmark of short answers, in one of the layouts of `reference_rows`."""

    uri: str
    columns: dict[str, str] = field(default_factory=dict)
    """The file's columns by the usual names, `question`, `context` and `answer`, where it has others."""
    num_fewshot: int = 5
    """Solved items of the `train` split, or else of another one, before each question; 0: none."""
    max_new_tokens: int = 48
    """Tokens of an answer at most."""

    def __post_init__(self) -> None:
        if self.num_fewshot < 0 or self.max_new_tokens < 1:
            raise ConfigError("num_fewshot is 0 or more, max_new_tokens 1 or more")


class ShortAnswers(form.BenchmarkForm[ShortAnswerOptions]):
    """Questions whose answers are short texts."""

    name, options, metric, default_limit = "short_answers", ShortAnswerOptions, "token_f1", 0.02
    other_metrics = ("exact_match",)
    means = (("token_f1", partial(measure_column, name="token_f1")), ("exact_match", correct))

    def plan(self, axis: str, options: ShortAnswerOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the questions of the `test` split, or else of another, taken evenly from the passages."""
        splits = read_questions(options.uri, options.columns)
        items = benchmark_files.choose_split(splits, options.uri)
        shots = _solved(splits, items, options)
        _check_length(items, tokenizer, options)
        head = "" if all(item.references for item in items) else _HEAD
        start = head + "".join(f"{ask(shot)} {shot.gold}\n\n" for shot in shots)
        chosen = benchmark_files.stratified_subset(items, lambda item: f"{item.subject} {item.cluster}", limit)
        score = partial(score_questions, axis, tokenizer, start, options.max_new_tokens)
        return make_parts(axis, chosen, QUESTIONS_PER_PART, score, new_tokens=options.max_new_tokens)

    def summarize(self, table: pa.Table, labels: form.Labels) -> dict[str, float]:
        """Return the means of both scores, of F1 also over items with and without an answer, and how answers came."""
        values, subjects = measure_column(table, "token_f1"), table["subject"].to_pylist()
        scores = super().summarize(table, labels)
        if UNANSWERABLE in subjects:
            for name in sorted(set(subjects)):
                of_subject = [value for value, subject in zip(values, subjects, strict=True) if subject == name]
                scores[f"token_f1/{name}"] = float(sum(of_subject) / len(of_subject))
        return {**scores, **latency_scores(table)}


FORM = ShortAnswers()


def ask(item: ShortQuestion) -> str:
    """Return a question up to `Answer:`, behind its passage; a text that goes on alone."""
    prompt = item.question if item.is_continued else f"Question: {item.question}\nAnswer:"
    return f"{item.context}\n{prompt}" if item.context else prompt


def score_questions(
    axis: str, tokenizer: Tokenizer, start: str, max_new_tokens: int, items: Sequence[ShortQuestion], engine: Engine
) -> list[Sample]:
    """Answer questions behind the solved ones, and compare the answers' first lines."""
    prompts = [start + ask(item) for item in items]
    samples = []
    for item, prompt, answer in zip(
        items, prompts, generate(engine, tokenizer, prompts, max_new_tokens, plain=True), strict=True
    ):
        is_ended = _cut(answer, item)
        if is_ended and answer["truncated"]:  # not by its length, but perhaps the passage was
            answer["truncated"] = is_prompt_cut(engine, tokenizer, prompt, max_new_tokens)
        score = _match(answer["response"], item)
        samples.append(
            Sample(
                axis=axis,
                subject=item.subject,
                item_id=item.item_id,
                cluster=item.cluster,
                text=item.question,
                **answer,
                prediction=answer["response"],
                gold=item.gold,
                correct=score.exact,
                measures={"token_f1": score.f1},
            )
        )
    return samples


def _cut(answer: AnswerColumns, item: ShortQuestion) -> bool:
    """Leave of an answer its first line, or its first word where that is asked for; return whether more followed."""
    text = answer["response"].strip()
    answer["response"], *rest = text.split(None, 1) if item.is_continued and text else text.split("\n", 1)
    return bool(rest)


def _match(response: str, item: ShortQuestion) -> Match:
    """Return how well an answer matches; of a question without an answer, whether it says so: silence does not."""
    if item.references:
        return best_match(response, item.references, item.rule)
    says_so = float(words_of(response) == [UNANSWERABLE])
    return Match(says_so, says_so)


def _solved(
    splits: dict[str, list[ShortQuestion]], items: list[ShortQuestion], options: ShortAnswerOptions
) -> list[ShortQuestion]:
    """Return the solved items, spread over a split that is not asked, from subjects in turn.

    Raises:
        DataError: There are too few.
    """
    if not options.num_fewshot:
        return []
    others = [splits[name] for name in ("train", "dev", "validation") if splits.get(name, items) is not items]
    solved = next(filter(None, others), [])
    if len(solved) < options.num_fewshot:
        count = f"{len(solved)} solved items beside those that are asked, num_fewshot is {options.num_fewshot}"
        raise DataError(f"{options.uri}: {count}; give a folder with a train file, or set num_fewshot")
    apart = max(1, len(solved) // (_SHOTS_APART * options.num_fewshot))
    return benchmark_files.stratified_subset(solved[::apart], lambda item: item.subject, options.num_fewshot)


def _check_length(items: list[ShortQuestion], tokenizer: Tokenizer, options: ShortAnswerOptions) -> None:
    """Say how many right answers are longer than an answer may be; a DataError where they are many."""
    shortest = [min([", ".join(reference) for reference in item.references] or [""], key=len) for item in items]
    long = [text for text in shortest if len(text.encode()) > options.max_new_tokens]  # a token is a byte at least
    sizes = [size for text in long if (size := len(encode(tokenizer, f" {text}"))) > options.max_new_tokens]
    if sizes:
        count = f"{len(sizes)} of {len(items)} right answers have more than max_new_tokens={options.max_new_tokens}"
        text = f"{options.uri}: {count}, the longest {max(sizes)}"
        if len(sizes) > _TOO_LONG * len(items):
            raise DataError(f"{text}; raise max_new_tokens")
        print(text, flush=True)
