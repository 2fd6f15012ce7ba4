"""General NLL: how surprising the model finds the answers of held-out general records.

It is continuous, so it moves before accuracy does, and it shows a change in a model whose MMLU is at chance.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from mixtune import benchmark_files
from mixtune.artifacts.pools import PoolsManifest
from mixtune.artifacts.samples import Sample, prompt_hash
from mixtune.evaluate.answers import record_columns
from mixtune.evaluate.benchmarks.form import BenchmarkForm, ItemScores, Labels
from mixtune.inference.engine import Engine, Request, Tokenizer
from mixtune.inference.parallel import Part, make_parts
from mixtune.inference.prompts import Rendered, encode, render_record
from mixtune.records import Record

AXIS = "general_nll"
RECORDS_PER_PART = 256


@dataclass(frozen=True, kw_only=True)
class NllOptions:
    """The pools whose `holdout` records are scored."""

    pools: PoolsManifest


class Nll(BenchmarkForm[NllOptions]):
    """NLL per token of held-out records; its change is relative, and summed over tokens."""

    name, options, metric, default_limit = "nll", NllOptions, "nll_per_token", 0.02
    relative, higher_is_better, is_benchmark = True, False, False

    def plan(self, axis: str, options: NllOptions, tokenizer: Tokenizer, limit: int) -> list[Part]:
        """Return the `holdout` records, taken evenly from the pools, in parts of one pool each."""
        pools = options.pools
        items = [(pool.name, record) for pool in pools.pools for record in pools.records(pool.name, "holdout")]
        by_pool: dict[str, list[Record]] = {}
        for name, record in benchmark_files.stratified_subset(items, lambda item: item[0], limit):
            by_pool.setdefault(name, []).append(record)
        parts = []
        for name, records in sorted(by_pool.items()):
            prefix = hashlib.sha256(name.encode()).hexdigest()[:8]
            parts += make_parts(
                axis, records, RECORDS_PER_PART, partial(score_records, axis, tokenizer, name), f"{prefix}-"
            )
        return parts

    def summarize(self, table: pa.Table, labels: Labels) -> dict[str, float]:
        """Return nats per token: over all tokens, and per pool."""
        nll, tokens = self.item_scores(table)
        names = np.array(table["subject"].to_pylist())
        scores = {"nll_per_token": float(nll.sum() / tokens.sum())}
        for name in np.unique(names):
            scores[f"nll_per_token/{name}"] = float(nll[names == name].sum() / tokens[names == name].sum())
        return scores

    def item_scores(self, table: pa.Table) -> ItemScores:
        """Return each answer's nats and tokens."""
        return ItemScores(table["nll"].to_numpy(), table["num_tokens"].to_numpy())


FORM = Nll()


def score_records(
    axis: str, tokenizer: Tokenizer, pool: str, records: Sequence[Record], engine: Engine
) -> list[Sample]:
    """Score the answers of records."""
    rendered = [render_record(tokenizer, record) for record in records]
    requests = [answer_request(tokenizer, item) for item in rendered]
    return [
        Sample(
            axis=axis,
            subject=pool,
            **record_columns(record, f"{pool}/{record['id']}"),
            prompt_hash=prompt_hash(item.prompt + "\0" + item.answer),
            nll=-scores.logprobs[0],
            num_tokens=len(request.continuations[0]),
            latency_seconds=scores.latency_seconds,
            truncated=scores.truncated,
        )
        for record, item, request, scores in zip(records, rendered, requests, engine.score(requests), strict=True)
    ]


def answer_request(tokenizer: Tokenizer, rendered: Rendered) -> Request:
    """Return a record's answer as the one continuation of its prompt."""
    tokens = encode(tokenizer, rendered.prompt + rendered.answer)
    count = len(encode(tokenizer, rendered.prompt))
    return Request(context=tokens[:count], continuations=(tokens[count:],))
