"""Generated answers and the records that they answer, as columns of samples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.artifacts.samples import prompt_hash
from mixtune.inference.prompts import encode, encode_pair, render_prompt, turns_text
from mixtune.records import Record, prompt_and_answer


def generate(
    engine: Any, tokenizer: Any, prompts: Sequence[str], max_new_tokens: int, *, plain: bool = False
) -> list[dict[str, Any]]:
    """Return the answers to prompts: `prompt_hash`, `response`, `num_tokens`, `latency_seconds`, `truncated`.

    Plain prompts get the tokenizer's special tokens; rendered ones have those of the chat template written out.
    """
    encoded = [encode_pair(tokenizer, prompt, "")[0] if plain else encode(tokenizer, prompt) for prompt in prompts]
    done = engine.generate(encoded, max_new_tokens)
    return [
        {
            "prompt_hash": prompt_hash(prompt),
            "response": str(tokenizer.decode(completion.token_ids, skip_special_tokens=True)),
            "num_tokens": len(completion.token_ids),
            "latency_seconds": completion.latency_seconds,
            "truncated": completion.truncated,
        }
        for prompt, completion in zip(prompts, done, strict=True)
    ]


def answer_records(engine: Any, tokenizer: Any, records: Sequence[Record], max_new_tokens: int) -> list[dict[str, Any]]:
    """The model's own answers to records, with the columns that say which record it is."""
    prompts = [render_prompt(tokenizer, prompt_and_answer(record)[0], record.get("tools")) for record in records]
    found = generate(engine, tokenizer, prompts, max_new_tokens)
    return [{**describe(record), **answer} for record, answer in zip(records, found, strict=True)]


def describe(record: Record) -> dict[str, Any]:
    """Which record it is: `item_id`, `cluster`, `text`."""
    return {"item_id": record["id"], "cluster": record.get("group", ""), "text": turns_text(record)}


def latency_scores(table: pa.Table) -> dict[str, float]:
    """Return latency of generated answers at the batch size that was used, and the tokens of an answer per second."""
    latency, tokens = table["latency_seconds"].to_numpy(), table["num_tokens"].to_numpy()
    return {
        "latency_p50_seconds": float(np.quantile(latency, 0.5)),
        "latency_p95_seconds": float(np.quantile(latency, 0.95)),
        "tokens_per_second": float(tokens.sum() / latency.sum()) if latency.sum() > 0 else 0.0,
        "truncated_ratio": float(np.mean(table["truncated"].to_pylist())),
    }
