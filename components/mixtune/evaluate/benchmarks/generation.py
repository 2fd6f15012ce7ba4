"""Generated answers on the customer's held-out records, held against the reference answers."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.artifacts.samples import Part, Sample, chunks
from mixtune.evaluate.answers import answer_records, latency_scores
from mixtune.evaluate.benchmarks.form import (
    SUPERIORITY,
    BenchmarkForm,
    Contrast,
    Labels,
    ResampledContrast,
    mean_scores,
    measure_column,
)
from mixtune.evaluate.benchmarks.text_metrics import compare_texts, corpus_bleu, is_json, same_json
from mixtune.records import Record, prompt_and_answer

RECORDS_PER_PART = 128


@dataclass(frozen=True, kw_only=True)
class GenerationOptions:
    """Records that are answered, and how their answers are measured."""

    records: tuple[Record, ...]
    max_new_tokens: int
    pattern: str = ""
    """Regular expression that a good answer matches from end to end; empty: not measured."""


@dataclass(frozen=True)
class Scorer:
    """Answers one part's records and compares with their references."""

    axis: str
    records: tuple[Record, ...]
    tokenizer: Any
    max_new_tokens: int
    pattern: str

    def __call__(self, engine: Any) -> list[Sample]:
        """The samples of the part."""
        samples = []
        answers = answer_records(engine, self.tokenizer, self.records, self.max_new_tokens)
        for record, answer in zip(self.records, answers, strict=True):
            gold = prompt_and_answer(record)[1]["content"]
            measures = measure(answer["response"], gold, self.pattern)
            samples.append(
                Sample(
                    axis=self.axis,
                    subject=record.get("label", "all"),
                    **answer,
                    prediction=answer["response"],
                    gold=gold,
                    correct=measures["exact_match"],
                    measures=measures,
                )
            )
        return samples


def measure(response: str, reference: str, pattern: str) -> dict[str, float]:
    """All measures of one response.

    Args:
        response: What the model said.
        reference: What the record's answer says.
        pattern: Regular expression that a good answer matches from end to end; empty: not measured.
    """
    measures = compare_texts(response, reference)
    if is_json(reference) and reference.strip()[:1] in ("{", "["):
        measures |= {"json_valid": float(is_json(response)), "json_equal": float(same_json(response, reference))}
    if pattern:
        measures["pattern"] = float(re.fullmatch(pattern, response.strip(), re.DOTALL) is not None)
    return measures


class Generation(BenchmarkForm[GenerationOptions]):
    """Answers to records without labels, held against their references."""

    name, options, metric = "generation", GenerationOptions, "token_f1"
    question, is_benchmark = SUPERIORITY, False

    def plan(self, axis: str, options: GenerationOptions, tokenizer: Any, limit: int) -> list[Part]:
        """Return the records in parts of 128."""
        return [
            Part(
                axis=axis,
                name=f"{number:05}",
                num_items=len(part),
                score=Scorer(axis, tuple(part), tokenizer, options.max_new_tokens, options.pattern),
            )
            for number, part in enumerate(chunks(options.records, RECORDS_PER_PART))
        ]

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return means of all measures over the items that have them, BLEU, and how long the answers took."""
        rows = [dict(row) for row in table["measures"].to_pylist()]
        names = sorted({name for row in rows for name in row})
        scores = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
        bleu = corpus_bleu(table["response"].to_pylist(), table["gold"].to_pylist())
        return {**scores, "bleu": bleu, **latency_scores(table)}

    def contrasts(self, base: pa.Table, candidate: pa.Table, labels: Labels) -> list[Contrast | ResampledContrast]:
        """Return all measures that every item of both has."""
        rows = [dict(row) for table in (base, candidate) for row in table["measures"].to_pylist()]
        common = set.intersection(*map(set, rows))
        return [
            Contrast(
                metric=name,
                base=mean_scores(measure_column(base, name)),
                candidate=mean_scores(measure_column(candidate, name)),
            )
            for name in [self.metric, *sorted(common - {self.metric})]
        ]


FORM = Generation()
