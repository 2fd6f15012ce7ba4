"""The audit record of a run: who, which versions of which data, what was removed, what was decided.

It holds digests, counts and scores, and of a record's content nothing.
"""

import getpass
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mixtune import __version__, storage
from mixtune.tracking import commit_hash

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SUBMITTER = "submitted_by"
"""The tag (`tracking.tags`) that says who is behind a run; Kubernetes does not tell a pod."""
DECIDED = ("axis", "metric", "base", "candidate", "difference", "lower", "upper", "limit", "verdict")


def make_record(comparison: Mapping[str, Any], shards: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's last manifests tell of it.

    Args:
        comparison: As `compare` wrote it.
        shards: The manifest of the shards, with those of the pools in it.
    """
    identity, receipt = comparison["identity"], shards["receipt"]
    inputs = shards.get("inputs", {})
    return {
        "kind": "audit record",
        "versions": {
            "mixtune": __version__,
            "commit": commit_hash(),
            "images": os.environ.get("MIXTUNE_IMAGES", "").split(),
            "base_model": identity["base"]["base_model"],
            "model": identity["candidate"]["model"],
            "tokenizer": identity["base"]["tokenizer"],
            "benchmarks": identity["base"]["benchmarks"],
            "shards": storage.manifest_digest(dict(shards)),
        },
        "data": list(_sources(inputs)),
        "rules": {part: pools.get("rules", {}) for part, pools in inputs.items()},
        "removed": {pool["name"]: _removed(pool, inputs) for pool in receipt["pools"]},
        "trained_on": {
            "mix_ratio": receipt["mix_ratio"],
            "seed": receipt["seed"],
            "steps": receipt["num_steps"],
            "records": {pool["name"]: pool["num_records"] for pool in receipt["pools"]},
        },
        "decided": {
            "verdict": comparison["verdict"],
            "reason": comparison.get("reason", ""),
            "axes": [{key: axis.get(key) for key in DECIDED} for axis in comparison["axes"]],
            "in_training_data": {item["axis"]: item["exact"] for item in comparison.get("contamination", [])},
        },
    }


def who(tags: Mapping[str, str]) -> str:
    """Whom a run is put down to: the tag `submitted_by`, else the pod's namespace, else this machine's user."""
    if name := tags.get(SUBMITTER):
        return str(name)
    if NAMESPACE_FILE.is_file():
        return f"namespace {NAMESPACE_FILE.read_text().strip()}"
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in a container
        return f"user id {os.getuid()}"


def _sources(inputs: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    for pools in inputs.values():
        for source in pools.get("inputs", []):
            uri, digest = storage.split_fingerprint(source["uri"])
            licence = source.get("provenance", {}).get("licence", "")
            told = {"pool": source["name"], "split": source.get("split") or "train", "uri": uri, "digest": digest}
            yield {**told, "licence": licence}


def _removed(pool: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Of one pool: records read and kept, dropped and changed by rule, findings of personal data, consent."""
    counts: dict[str, Any] = next(
        (part["counts"][pool["name"]] for part in inputs.values() if pool["name"] in part["counts"]), {}
    )
    kept = {key: counts.get(key, 0) for key in ("read", "kept")}
    named = {key: counts.get(key, {}) for key in ("dropped", "changed", "personal_data", "consent")}
    return {**kept, **named, "dropped_when_tokenized": pool["dropped"], "truncated": pool["num_truncated"]}
