"""General NLL: how surprising the model finds the answers of held-out general records.

It is continuous, so that it moves before accuracy does, and it tells something of a model whose MMLU is at chance.
"""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from mixtune.artifacts.pools import Pools
from mixtune.artifacts.samples import Part, Sample, chunks, prompt_hash
from mixtune.evaluate import benchmark_files
from mixtune.evaluate.answers import describe
from mixtune.evaluate.benchmarks.form import BenchmarkForm, ItemScores, Labels
from mixtune.inference.engine import Request
from mixtune.inference.prompts import Rendered, encode, render_record
from mixtune.records import Record

AXIS = "general_nll"
RECORDS_PER_PART = 256


@dataclass(frozen=True, kw_only=True)
class NllOptions:
    """The pools whose `holdout` records are scored."""

    pools: Pools


@dataclass(frozen=True)
class Scorer:
    """Scores the answers of one part's records."""

    pool: str
    records: tuple[Record, ...]
    tokenizer: Any

    def __call__(self, engine: Any) -> list[Sample]:
        """The samples of the part."""
        rendered = [render_record(self.tokenizer, record) for record in self.records]
        requests = [answer_request(self.tokenizer, item) for item in rendered]
        samples = []
        for record, item, request, scores in zip(self.records, rendered, requests, engine.score(requests), strict=True):
            samples.append(
                Sample(
                    axis=AXIS,
                    subject=self.pool,
                    **{**describe(record), "item_id": f"{self.pool}/{record['id']}"},
                    prompt_hash=prompt_hash(item.prompt + "\0" + item.answer),
                    nll=-scores.logprobs[0],
                    num_tokens=len(request.continuations[0]),
                    latency_seconds=scores.latency_seconds,
                    truncated=scores.truncated,
                )
            )
        return samples


def answer_request(tokenizer: Any, rendered: Rendered) -> Request:
    """A record's answer as the one continuation of its prompt."""
    whole = encode(tokenizer, rendered.prompt + rendered.answer)
    count = len(encode(tokenizer, rendered.prompt))
    return Request(context=whole[:count], continuations=(whole[count:],))


class Nll(BenchmarkForm[NllOptions]):
    """NLL per token of held-out records; its change is relative, and summed over tokens."""

    name, options, metric, default_limit = "nll", NllOptions, "nll_per_token", 0.02
    relative, higher_is_better, is_benchmark = True, False, False

    def plan(self, axis: str, options: NllOptions, tokenizer: Any, limit: int) -> list[Part]:
        """Return the `holdout` records, taken evenly from the pools, in parts of one pool each."""
        pools = options.pools
        held = [(pool.name, record) for pool in pools.pools for record in pools.records(pool.name, "holdout")]
        held = benchmark_files.take(held, [name for name, _ in held], limit)
        parts = []
        for name in sorted({name for name, _ in held}):
            records = [record for pool, record in held if pool == name]
            for number, part in enumerate(chunks(records, RECORDS_PER_PART)):
                label = hashlib.sha256(name.encode()).hexdigest()[:8]
                score = Scorer(name, tuple(part), tokenizer)
                parts.append(Part(axis=axis, name=f"{label}-{number:05}", num_items=len(part), score=score))
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
