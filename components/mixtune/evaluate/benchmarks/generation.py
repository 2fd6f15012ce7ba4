"""Generated answers on the customer's held-out records, held against the reference answers."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import pyarrow as pa

from mixtune.artifacts.comparison import SUPERIORITY
from mixtune.artifacts.samples import Sample
from mixtune.evaluate.answers import answer_records, latency_scores, record_columns
from mixtune.evaluate.benchmarks.form import BenchmarkForm, Contrasts, Labels, mean_measures, measure_contrast
from mixtune.evaluate.scoring.answer_matching import match
from mixtune.inference.engine import Engine, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.thoughts import visible_text
from mixtune.records import Record, prompt_and_answer

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

RECORDS_PER_PART = 128


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Records that are answered, and how their answers are measured."""

    records: Sequence[Record]
    max_new_tokens: int
    pattern: str = ""
    """Regular expression that a good answer matches from end to end; empty: not measured."""


class Generation(BenchmarkForm[GenerationOptions]):
    """Answers to records without labels, held against their references."""

    name, options, metric = "generation", GenerationOptions, "token_f1"
    question, is_benchmark = SUPERIORITY, False

    def plan(self, axis: str, options: GenerationOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the records in parts."""
        score = partial(score_records, axis, tokenizer, options.max_new_tokens, options.pattern)
        return make_parts(axis, options.records, RECORDS_PER_PART, score, new_tokens=options.max_new_tokens)

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return means of all measures over the items that have them, BLEU, and how long the answers took."""
        bleu = corpus_bleu(table["response"].to_pylist(), table["gold"].to_pylist())
        return {**mean_measures(table), "bleu": bleu, **latency_scores(table)}

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> Contrasts:
        """Return all measures that every item of both has."""
        common = set.intersection(
            *(set(dict(row)) for side in (base, candidate) for row in side["measures"].to_pylist())
        )
        names = [self.metric, *sorted(common - {self.metric})]
        return [measure_contrast(name, base, candidate) for name in names]


FORM = Generation()


def score_records(
    axis: str, tokenizer: Tokenizer, max_new_tokens: int, pattern: str, records: Sequence[Record], engine: Engine
) -> list[Sample]:
    """Answer records and compare with their references."""
    samples = []
    answers = answer_records(engine, tokenizer, records, max_new_tokens)
    for record, answer in zip(records, answers, strict=True):
        gold = visible_text(prompt_and_answer(record)[1]["content"])
        measures = measure(answer["response"], gold, pattern)
        samples.append(
            Sample(
                axis=axis,
                subject=record.get("label", "all"),
                **record_columns(record),
                **answer,
                prediction=answer["response"],
                gold=gold,
                correct=measures["exact_match"],
                measures=measures,
            )
        )
    return samples


def measure(response: str, reference: str, pattern: str) -> dict[str, float]:
    """Return all measures of a response; `pattern` as in `GenerationOptions`."""
    measures = compare_texts(response, reference)
    if is_json(reference) and reference.strip()[:1] in ("{", "["):
        measures |= {"json_valid": float(is_json(response)), "json_equal": float(same_json(response, reference))}
    if pattern:
        measures["pattern"] = float(re.fullmatch(pattern, response.strip(), re.DOTALL) is not None)
    return measures


def compare_texts(response: str, reference: str) -> dict[str, float]:
    """Return a response's measures against its reference."""
    from sacrebleu import sentence_chrf

    score = match(response, reference)
    return {
        "exact_match": score.exact,
        "token_f1": score.f1,
        "rouge_l": float(_rouge().score(reference, response)["rougeL"].fmeasure),
        "chrf": sentence_chrf(response, [reference]).score / 100,
    }


def corpus_bleu(responses: list[str], references: list[str]) -> float:
    """Return BLEU over all texts at once, as sacrebleu defines it."""
    from sacrebleu import corpus_bleu as bleu

    return bleu(responses, [references]).score / 100


def is_json(text: str) -> bool:
    """Return whether a text is one JSON value and nothing else."""
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def same_json(response: str, reference: str) -> bool:
    """Return whether two texts are the same JSON value, whatever its layout and the order of its keys."""
    return is_json(response) and is_json(reference) and json.loads(response) == json.loads(reference)


@lru_cache(maxsize=1)
def _rouge() -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer  # it brings NLTK, which takes a second

    return RougeScorer(["rougeL"], use_stemmer=True)
