"""Generated answers on the customer's held-out records, held against the reference answers."""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.evaluate.classification import latency_scores
from mixtune.evaluate.samples import Part, Sample, chunks, prompt_hash
from mixtune.evaluate.text_metrics import compare_texts, corpus_bleu, is_json, same_json
from mixtune.evaluate.tokens import encode, render_prompt, turns_text
from mixtune.records import Record, prompt_and_answer

RECORDS_PER_PART = 128


def plan_parts(axis: str, records: list[Record], tokenizer: Any, max_new_tokens: int, pattern: str) -> list[Part]:
    """The records as parts of so many."""
    return [
        Part(
            axis=axis,
            name=f"{number:05}",
            num_items=len(part),
            score=Scorer(axis, tuple(part), tokenizer, max_new_tokens, pattern),
        )
        for number, part in enumerate(chunks(records, RECORDS_PER_PART))
    ]


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
        turns = [prompt_and_answer(record) for record in self.records]
        texts = [
            render_prompt(self.tokenizer, prompt, record.get("tools"))
            for record, (prompt, _) in zip(self.records, turns, strict=True)
        ]
        done = engine.generate([encode(self.tokenizer, text) for text in texts], self.max_new_tokens)
        samples = []
        for record, (_, answer), text, completion in zip(self.records, turns, texts, done, strict=True):
            response = self.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
            measures = measure(response, answer["content"], self.pattern)
            samples.append(
                Sample(
                    axis=self.axis,
                    subject=record.get("label", "all"),
                    item_id=record["id"],
                    cluster=record.get("group", ""),
                    prompt_hash=prompt_hash(text),
                    text=turns_text(record),
                    prediction=response,
                    gold=answer["content"],
                    correct=measures["exact_match"],
                    num_tokens=len(completion.token_ids),
                    response=response,
                    latency_seconds=completion.latency_seconds,
                    truncated=completion.truncated,
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


def summarize(table: pa.Table) -> dict[str, float]:
    """Means of all measures over the items that have them, BLEU, and how long the answers took."""
    rows = [dict(row) for row in table["measures"].to_pylist()]
    names = sorted({name for row in rows for name in row})
    scores = {name: float(np.mean([row[name] for row in rows if name in row])) for name in names}
    bleu = corpus_bleu(table["response"].to_pylist(), table["gold"].to_pylist())
    return {**scores, "bleu": bleu, **latency_scores(table)}
