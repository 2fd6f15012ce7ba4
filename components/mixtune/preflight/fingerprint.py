"""What a run reads from outside, each thing with its digest: so that a cached step sees changed bytes.

KFP's cache key holds parameter values, not the bytes behind a URI. The sources, benchmarks and base model that leave
here carry `#digest` and go into the cached steps; weights leave apart from the sources, so that a changed mix does
not sanitize anything again.
"""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.artifacts.model import find_manifest
from mixtune.errors import ConfigError
from mixtune.settings.benchmark_entries import BenchmarkEntry, read_benchmark_entries
from mixtune.settings.chat import ChatSettings
from mixtune.settings.from_dict import Options
from mixtune.settings.mix import check_weights
from mixtune.settings.pool_entries import PoolEntry, read_pool_entries

HOLDOUT_RECORDS = 200
"""General records held back from every pool, on which forgetting is measured, where nobody says otherwise."""


def fingerprint_pools(
    customer_uri: str, customer_columns: dict[str, str], test_uri: str, general_pools: list[Mapping[str, object]]
) -> tuple[list[dict[str, object]], list[dict[str, object]], dict[str, float]]:
    """Return sources of the customer pool, sources of the general pools, and the weights.

    No pool has a weight where they follow from the pools' sizes (`temperature` of `mix_shard`).

    Raises:
        ConfigError: A pool is badly described, or the weights do not sum to 100.
        DataError: Something is not there.
    """
    pools = read_pools(general_pools)
    customer = [_source(CUSTOMER_AXIS, customer_uri, customer_columns, "train")]
    if test_uri:
        customer.append(_source(CUSTOMER_AXIS, test_uri, customer_columns, "test"))
    general = [_source(pool.category, pool.uri, pool.columns or {}, "train") for pool in pools]
    return customer, general, {pool.category: pool.weight for pool in pools if pool.weight is not None}


def fingerprint_benchmarks(benchmarks: Mapping[str, object]) -> tuple[dict[str, dict[str, object]], dict[str, float]]:
    """The benchmarks with digests, and the limits: the largest drop allowed, `max_drop`, by axis.

    A bare text stands for `{"uri": text}`; `customer` takes `min_gain`, which goes to the limits. These leave apart,
    so that a new limit measures nothing again.

    Raises:
        ConfigError: A benchmark that is neither a URI nor an object.
    """
    entries = read_benchmark_entries(benchmarks)
    gains = {CUSTOMER_AXIS: _min_gain(entries.pop(CUSTOMER_AXIS))} if CUSTOMER_AXIS in entries else {}
    drops = {name: float(entry.max_drop) for name, entry in entries.items() if entry.max_drop is not None}
    uris = {
        name: {"uri": _fingerprint(storage.check_fingerprint(entry.uri))} if entry.uri else {}
        for name, entry in entries.items()
    }
    measured = {name: {**uris[name], **entry.options} for name, entry in entries.items()}
    return {name: options for name, options in measured.items() if options}, {**drops, **gains}


def _min_gain(entry: BenchmarkEntry) -> float:
    """Return the gain that is asked for on the customer's records.

    Raises:
        ConfigError: The entry has something else, or no number from 0.
    """
    gain, alone = entry.options.get("min_gain"), entry == BenchmarkEntry(options=entry.options)
    alone = alone and set(entry.options) == {"min_gain"}
    if not alone or isinstance(gain, bool) or not isinstance(gain, int | float) or not 0 <= gain <= 1:
        takes = "stands for your own records and takes min_gain alone, 0 to 1"
        raise ConfigError(f"benchmarks: {CUSTOMER_AXIS!r} {takes}; got {dict(entry.options)}")
    return float(gain)


def fingerprint_model(base_model: str) -> str:
    """The base model with its digest; a hub name carries its revision instead.

    Raises:
        ConfigError: None is given.
        DataError: It is not there.
    """
    if not base_model:
        raise ConfigError("base_model is missing; give a folder, an s3:// prefix, or org/name@revision")
    return base_model if models.is_hub_name(base_model) else _fingerprint(base_model)


def fingerprint_trained(model_uri: str) -> str:
    """Return a trained model's URI with its digest; empty where there is none.

    Raises:
        DataError: It is not there, or is no longer what its digest says.
    """
    return fingerprint_model(storage.check_fingerprint(model_uri)) if model_uri else ""


def fingerprint_options(mix_options: Mapping[str, object], model_uri: str = "") -> dict[str, object]:
    """Return options of `mix_shard` with the digest of the chat template's file, where they name one.

    `model_uri` is of a model that is trained already: one that was trained here says how its conversations were
    rendered, where the options do not.

    Raises:
        DataError: The template is not there.
    """
    manifest = find_manifest(model_uri)
    usual = vars(ChatSettings())  # left out, so that tasks have the same options as in the run that trained it
    chat = vars(manifest.chat) if manifest else {}
    trained = {name: value for name, value in chat.items() if value != usual[name]}
    uri = mix_options.get("chat_template_uri")
    return {**trained, **mix_options, **({"chat_template_uri": _fingerprint(str(uri))} if uri else {})}


def fingerprint_sanitize(options: Options) -> dict[str, object]:
    """Return options of both sanitize tasks with the digest of the list of those who consented, where they name one.

    `splits.holdout_records` is that of the general pools.

    Raises:
        DataError: The list is not there.
    """
    consent = dict(options.get("consent", {}))
    if consent.get("list_uri"):
        consent["list_uri"] = _fingerprint(str(consent["list_uri"]))
    return {**options, "consent": consent, "splits": {"holdout_records": HOLDOUT_RECORDS, **options.get("splits", {})}}


def hand_on_chat(mix_options: Options, options: Options) -> dict[str, object]:
    """Return options of `sanitize` or `evaluate` with `chat` as `mix_shard` has it, where they do not say it."""
    names = [item.name for item in fields(ChatSettings)]
    chat = {name: mix_options[name] for name in names if name in mix_options}
    own = options.get("chat", {})
    if not isinstance(own, Mapping) or not (chat or own):
        return dict(options)
    if own.get("chat_template_uri"):
        own = {**own, "chat_template_uri": _fingerprint(str(own["chat_template_uri"]))}
    return {**options, "chat": {**chat, **own}}


def read_pools(general_pools: list[Mapping[str, object]]) -> list[PoolEntry]:
    """Return the general pools that the user describes.

    Raises:
        ConfigError: None, an unknown or missing key, a category twice or named like the customer's, or weights that
            do not sum to 100.
    """
    if not general_pools:
        raise ConfigError(
            "general_pools is empty; at least one is needed, also at 100 % customer: forgetting is measured on it"
        )
    pools = read_pool_entries(general_pools)
    names = [pool.category for pool in pools]
    doubled = sorted({name for name in names if names.count(name) > 1} | ({CUSTOMER_AXIS} & set(names)))
    if doubled:
        raise ConfigError(f"general_pools: category {doubled[0]!r} names two pools; every pool has a name of its own")
    try:
        if weights := {pool.category: pool.weight for pool in pools if pool.weight is not None}:
            check_weights(weights)
    except ConfigError as error:
        raise ConfigError(f"general_pools: {error}") from error
    return pools


def _source(name: str, uri: str, columns: Mapping[str, str], split: str) -> dict[str, object]:
    if not uri:  # which would be the folder that the process is in
        place = "customer_uri" if name == CUSTOMER_AXIS else f"general_pools: uri of {name!r}"
        raise ConfigError(f"{place} is empty; give a file, a folder or a pattern")
    return {"name": name, "uri": _fingerprint(uri), "columns": dict(columns), "split": split}


def _fingerprint(uri: str) -> str:
    return storage.fingerprint(uri if "://" in uri else str(Path(uri).resolve()))
