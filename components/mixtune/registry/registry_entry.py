"""What a registry holds of a model version: the model, its proof and its terms, the same in every registry."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

from mixtune import storage
from mixtune.artifacts.comparison import PASS, Comparison, TrainedMix
from mixtune.artifacts.typed_json import to_json
from mixtune.tracking import commit_hash


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One version of a registered model."""

    name: str
    """Of the registered model; its versions share it."""
    uri: str
    """Of the model's files, without digest."""
    digest: str
    """Of the model's files: the same model keeps its version."""
    kind: str
    """`adapter` or `weights`."""
    card: str
    """Markdown."""
    run_id: str
    """Of the pipeline's run; empty: not known."""
    properties: Mapping[str, str]
    """The proof and the terms, by name."""


def make_entry(name: str, model_uri: str, comparison: Comparison, card: str, terms: Mapping[str, str]) -> Entry:
    """Return the entry of a model that was compared with its base; `terms` are base model and licence."""
    uri, digest = storage.split_fingerprint(model_uri)
    proof = {
        "model_digest": digest,
        "verdict": comparison.verdict,
        "forced": str(comparison.verdict != PASS).lower(),
        "comparison_digest": storage.manifest_digest(to_json(comparison)),
        "scores": json.dumps(_list_scores(comparison)),
        "commit_hash": commit_hash(),
    }
    return Entry(
        name=name,
        uri=uri,
        digest=digest,
        kind=comparison.identity["candidate"].model_kind,
        card=card,
        run_id=os.environ.get("MIXTUNE_RUN_ID", ""),
        properties={**proof, **_describe_receipt(comparison.mix), **terms},
    )


def _list_scores(comparison: Comparison) -> dict[str, dict[str, float | str]]:
    """Return both models' scores and the verdict by axis."""
    return {
        axis.axis: {
            "metric": axis.measure.metric,
            "base": round(axis.measure.base, 6),
            "candidate": round(axis.measure.candidate, 6),
            "verdict": axis.verdict,
        }
        for axis in comparison.axes
    }


def _describe_receipt(mix: TrainedMix | None) -> dict[str, str]:
    """Return the mix and its receipt: what was planned for every pool, and what was trained on."""
    if mix is None:
        return {"mix_ratio": "unknown"}
    receipt = {
        pool.name: {
            "planned": round(pool.planned_share, 6),
            "of_records": round(pool.share_of_records, 6),
            "of_loss_tokens": round(pool.share_of_loss_tokens, 6),
            "unique_records": pool.unique_records,
            "epochs": round(pool.epochs, 4),
        }
        for pool in mix.receipt.pools
    }
    return {"mix_ratio": str(mix.mix_ratio), "mix_receipt": json.dumps(receipt), "shards": mix.digest}
