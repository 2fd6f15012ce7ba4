"""The audit record of a run: who, which versions of which data, what was removed, what was decided.

It holds digests, counts and scores, and of a record's content nothing.
"""

import getpass
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mixtune import __version__, storage
from mixtune.artifacts.pools import PoolInputs, RowCounts
from mixtune.errors import DataError
from mixtune.settings.from_dict import from_dict
from mixtune.tracking import commit_hash

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SUBMITTER = "submitted_by"
"""The tag (`tracking.tags`) that says who is behind a run; Kubernetes does not tell a pod."""
DECIDED = ("axis", "metric", "base", "candidate", "difference", "lower", "upper", "limit", "verdict")


def make_record(found: Mapping[str, Any]) -> dict[str, Any]:
    """What a run's last task tells of it.

    Args:
        found: What `compare`, `choose_mix` or `choose_rung` wrote; every candidate with the mix that it was trained on.

    Raises:
        DataError: A candidate was compared without its shards.
    """
    candidates = list(_candidates(found))
    if unknown := [item["name"] for item in candidates if "receipt" not in item["mix"]]:
        raise DataError(f"{unknown[0]}: compared without shards, its data is not known; give `compare` the shards")
    base = candidates[0]["identity"]["base"]
    inputs = _inputs(candidates[0]["mix"])
    turned = [
        *found.get("turned_down", []),
        *({"name": f"at {one['strength']:g}", **one} for one in found.get("dial", [])),
    ]
    return {
        "kind": "audit record",
        "versions": {
            "mixtune": __version__,
            "commit": commit_hash(),
            "images": os.environ.get("MIXTUNE_IMAGES", "").split(),
            **{key: base[key] for key in ("base_model", "tokenizer", "benchmarks")},
        },
        "data": list(_sources(inputs)),
        "rules": {part: asdict(pools.rules) for part, pools in inputs.items()},
        "candidates": [_candidate(item) for item in candidates],
        "turned_down": [{"name": item["name"], **_decided(item)} for item in turned],
        "decided": {key: found.get(key, "") for key in ("verdict", "reason", "taken")},
    }


def _candidates(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The only candidate, or all of a grid or a ladder, with `name`, `identity`, `mix` and `contamination`."""
    if found["kind"] == "comparison":
        yield {**found, "name": "candidate"}
    for point in found.get("points", [rung["point"] for rung in found.get("rungs", [])]):
        yield {**point, **point["audit"]}


def _candidate(item: Mapping[str, Any]) -> dict[str, Any]:
    mix = item["mix"]
    receipt = mix["receipt"]
    return {
        "name": item["name"],
        "model": item["identity"]["candidate"]["model"],
        "shards": mix["digest"],
        "trained_on": {
            "mix_ratio": receipt["mix_ratio"],
            "seed": receipt["seed"],
            "steps": receipt["num_steps"],
            "records": {pool["name"]: pool["num_records"] for pool in receipt["pools"]},
        },
        "removed": {pool["name"]: _removed(pool, _inputs(mix)) for pool in receipt["pools"]},
        **_decided(item),
        "in_training_data": {one["axis"]: one["exact"] for one in item["contamination"]},
    }


def _decided(item: Mapping[str, Any]) -> dict[str, Any]:
    axes = item["axes"].values() if isinstance(item["axes"], dict) else item["axes"]
    scores = [{key: axis.get(key) for key in DECIDED} for axis in axes]
    return {"verdict": item["verdict"], "reason": item["reason"], "axes": scores}


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


def _inputs(mix: Mapping[str, Any]) -> dict[str, PoolInputs]:
    return {name: from_dict(PoolInputs, pools, name) for name, pools in mix["inputs"].items()}


def _sources(inputs: Mapping[str, PoolInputs]) -> Iterator[dict[str, str]]:
    for pools in inputs.values():
        for source in pools.inputs:
            uri, digest = storage.split_fingerprint(source.uri)
            licence = source.provenance.licence if source.provenance else ""
            yield {"pool": source.name, "split": source.split, "uri": uri, "digest": digest, "licence": licence}


def _removed(pool: Mapping[str, Any], inputs: Mapping[str, PoolInputs]) -> dict[str, Any]:
    """Of one pool: records read and kept, dropped and changed by rule, findings of personal data, consent."""
    counts = next((part.counts[pool["name"]] for part in inputs.values() if pool["name"] in part.counts), RowCounts())
    names = ("read", "kept", "dropped", "changed", "personal_data", "consent")
    return {
        **{name: getattr(counts, name) for name in names},
        "dropped_when_tokenized": pool["dropped"],
        "truncated": pool["num_truncated"],
    }
