"""Generated answers on the customer's held-out records, held against the reference answers."""

import re
import string
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.evaluate.samples import Part, Sample, chunks, prompt_hash
from mixtune.evaluate.tokens import encode, render_prompt
from mixtune.records import Record, prompt_and_answer

RECORDS_PER_PART = 128
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def plan_parts(axis: str, records: list[Record], tokenizer: Any, max_new_tokens: int) -> list[Part]:
    """The records as parts of so many."""
    return [
        Part(
            axis=axis,
            name=f"{number:05}",
            num_items=len(part),
            score=Scorer(axis, tuple(part), tokenizer, max_new_tokens),
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
            measures = compare_texts(response, answer["content"])
            samples.append(
                Sample(
                    axis=self.axis,
                    subject=record.get("label", "all"),
                    item_id=record["id"],
                    cluster=record.get("group", ""),
                    prompt_hash=prompt_hash(text),
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


def normalise(text: str) -> str:
    """Text for comparing: lower case, no punctuation, no articles, single spaces."""
    plain = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(_ARTICLES.sub(" ", plain).split())


def token_f1(response: str, reference: str) -> float:
    """Harmonic mean of precision and recall over normalised words, as in SQuAD."""
    said, wanted = normalise(response).split(), normalise(reference).split()
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def compare_texts(response: str, reference: str) -> dict[str, float]:
    """A response's measures against its reference."""
    return {
        "exact_match": float(normalise(response) == normalise(reference)),
        "token_f1": token_f1(response, reference),
    }


def summarize(table: pa.Table) -> dict[str, float]:
    """Means of all measures, and how long the answers took."""
    rows = [dict(row) for row in table["measures"].to_pylist()]
    scores = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    latency = table["latency_seconds"].to_numpy()
    return {
        **scores,
        "latency_p50_seconds": float(np.quantile(latency, 0.5)),
        "latency_p95_seconds": float(np.quantile(latency, 0.95)),
        "truncated_ratio": float(np.mean(table["truncated"].to_pylist())),
    }
