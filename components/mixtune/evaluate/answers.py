"""What engines answer, and the records that they answer, as columns of samples."""

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
import pyarrow as pa

from mixtune.artifacts.samples import prompt_hash
from mixtune.inference.engine import Engine, Scores, Tokenizer
from mixtune.inference.prompts import encode, encode_pair, render
from mixtune.records import Record, prompt_and_answer


class AnswerColumns(TypedDict):
    """How a prompt was answered."""

    prompt_hash: str
    response: str
    num_tokens: int
    latency_seconds: float
    truncated: bool


class ChoiceColumns(TypedDict):
    """Which of several continuations is the most probable."""

    prompt_hash: str
    prediction: str
    gold: str
    correct: float
    choice_logprobs: tuple[float, ...]
    nll: float
    num_tokens: int
    latency_seconds: float
    truncated: bool


class RecordColumns(TypedDict):
    """Which record it is."""

    item_id: str
    cluster: str
    text: str


def generate(
    engine: Engine, tokenizer: Tokenizer, prompts: Sequence[str], max_new_tokens: int, *, plain: bool = False
) -> list[AnswerColumns]:
    """Return the answers to prompts.

    Plain prompts get the tokenizer's special tokens; rendered ones have those of the chat template written out.
    """
    encoded = [encode_pair(tokenizer, prompt, "")[0] if plain else encode(tokenizer, prompt) for prompt in prompts]
    return [
        AnswerColumns(
            prompt_hash=prompt_hash(prompt),
            response=tokenizer.decode(completion.token_ids, skip_special_tokens=True),
            num_tokens=len(completion.token_ids),
            latency_seconds=completion.latency_seconds,
            truncated=completion.truncated,
        )
        for prompt, completion in zip(prompts, engine.generate(encoded, max_new_tokens), strict=True)
    ]


def answer_records(
    engine: Engine, tokenizer: Tokenizer, records: Sequence[Record], max_new_tokens: int
) -> list[AnswerColumns]:
    """Return the model's own answers to records."""
    prompts = [render(tokenizer, prompt_and_answer(record)[0], record.get("tools")) for record in records]
    return generate(engine, tokenizer, prompts, max_new_tokens)


def choose(prompt: str, scores: Scores, names: Sequence[str], gold: int) -> ChoiceColumns:
    """Return the choice of a model that scored a continuation for each name; `gold` is the right one's index.

    `nll` is the negative log of the gold continuation's share among all, in nats.
    """
    best = int(np.argmax(scores.logprobs))
    return ChoiceColumns(
        prompt_hash=prompt_hash(prompt),
        prediction=names[best],
        gold=names[gold],
        correct=float(best == gold),
        choice_logprobs=scores.logprobs,
        nll=float(np.logaddexp.reduce(scores.logprobs) - scores.logprobs[gold]),
        num_tokens=1,
        latency_seconds=scores.latency_seconds,
        truncated=scores.truncated,
    )


def record_columns(record: Record, item_id: str = "") -> RecordColumns:
    """Return the columns of a record, without its answer; the item's id is the record's, or another."""
    text = "\n".join(message["content"] for message in record["messages"] if message["role"] == "user")
    return RecordColumns(item_id=item_id or record["id"], cluster=record.get("group", ""), text=text)


def latency_scores(table: pa.Table) -> dict[str, float]:
    """Return latency of generated answers at the batch size that was used, and the tokens of an answer per second."""
    latency, tokens = table["latency_seconds"].to_numpy(), table["num_tokens"].to_numpy()
    return {
        "latency_p50_seconds": float(np.quantile(latency, 0.5)),
        "latency_p95_seconds": float(np.quantile(latency, 0.95)),
        "tokens_per_second": float(tokens.sum() / latency.sum()) if latency.sum() > 0 else 0.0,
        "truncated_ratio": float(np.mean(table["truncated"].to_pylist())),
    }
