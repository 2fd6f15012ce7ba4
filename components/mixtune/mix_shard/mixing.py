"""Pools to shards: tokenize, plan, write, and say what came of it."""

import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mixtune import models, storage
from mixtune.errors import ConfigError
from mixtune.mix_shard.exposure import Mix, check_repeats, plan_stages
from mixtune.mix_shard.lengths import POLICIES
from mixtune.mix_shard.planning import make_plan
from mixtune.mix_shard.receipt import make_receipt, receipt_lines, receipt_markdown, receipt_metrics
from mixtune.mix_shard.receipt_page import receipt_html
from mixtune.mix_shard.store import Drops, Store, write_store
from mixtune.mix_shard.tokenizing import ChatTokenizer
from mixtune.mix_shard.writing import Target, write_shards
from mixtune.pools import Pools, read_pools

PARITY_RECORDS = 1000
"""First records of every pool on which fastokens must agree with the model's own tokenizer."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where things are read and written."""

    customer_path: str
    """Manifest of the customer's pool."""
    general_path: str
    """Manifest of the general pools."""
    manifest_path: str
    """Manifest of the shards, written last."""
    data_uri: str
    """Folder of the shards."""
    html_path: str
    """The receipt as a page."""
    markdown_path: str
    """The receipt in short."""


def mix_shard(
    base_model: str, mix: Mix, places: Places, max_length: int = 8192, too_long: str = "drop"
) -> dict[str, Any]:
    """Mix the customer pool with the general pools into shards.

    Args:
        base_model: The model whose tokenizer and chat template are used.
        mix: What is asked for.
        places: Where things are read and written.
        max_length: Longest record in tokens; longer ones are treated by `too_long` and counted.
        too_long: "drop"; "truncate": cut, an answer stays whole; or "error".

    Returns:
        The receipt.
    """
    customer, general = read_pools(places.customer_path), read_pools(places.general_path)
    if len(customer.pools) != 1:
        raise ConfigError(f"customer: one pool is needed; there are {', '.join(pool.name for pool in customer.pools)}")
    names = [pool.name for pool in (*customer.pools, *general.pools)]
    if len(set(names)) != len(names):
        raise ConfigError(f"customer: a general pool has the name {names[0]!r} too; give it another")
    plan_stages(mix, names[1:], [pool.num_records("train") for pool in general.pools])
    folder = models.fetch_model(base_model, weights=False)
    tokenizer = ChatTokenizer(folder)
    if too_long not in POLICIES:
        raise ConfigError(f"too_long is {too_long!r}; it is one of {', '.join(POLICIES)}")
    sample = chain.from_iterable(
        islice(pools.records(pool.name, "train"), PARITY_RECORDS)
        for pools in (customer, general)
        for pool in pools.pools
    )
    backend = tokenizer.choose_encoder(sample)
    print(f"tokenizing with {backend}", flush=True)
    with tempfile.TemporaryDirectory(prefix="mixtune-mix-") as scratch, ExitStack() as opened:
        sources = [customer] + [general] * len(general.pools)
        drops = [
            _tokenize_pool(Path(scratch), number, source, name, tokenizer, max_length, too_long)
            for number, (source, name) in enumerate(zip(sources, names, strict=True))
        ]
        stores = [opened.enter_context(closing(Store(Path(scratch), str(number)))) for number in range(len(names))]
        plan = make_plan(mix, names, stores, Path(scratch) / "plan")
        drawn = plan.given(plan.num_slots).tolist()
        for line in (repeats := check_repeats(mix, names, [len(store) for store in stores], drawn)):
            print(f"warning: {line}", flush=True)
        plan_digest = storage.sha256_file(str(Path(scratch) / "plan"))
        storage.delete(places.manifest_path)
        receipt, loss_tokens = make_receipt(plan, stores, drops, mix.unit, repeats)
        entries, listed = write_shards(Target(plan=plan, scratch=Path(scratch), data_uri=places.data_uri), stores)
        longest = max(int(store.rows["length"].max()) for store in stores if len(store))
    print("\n".join(receipt_lines(receipt)), flush=True)
    Path(places.html_path).write_text(receipt_html(receipt))
    Path(places.markdown_path).write_text(receipt_markdown(receipt))
    manifest = {
        "kind": "shards",
        "num_steps": plan.num_steps,
        "global_batch_size": plan.global_batch_size,
        "pools": names,
        "shards": listed,
        "loss_tokens": loss_tokens,
        "max_record_tokens": longest,
        "tokenizer_digest": models.tokenizer_digest(folder),
        "tokenizer_backend": backend,
        "seed": mix.seed,
        "mix_ratio": float(mix.mix_ratio),
        "inputs": {"customer": _described(customer), "general": _described(general)},
        "unit": mix.unit,
        "plan_digest": plan_digest,
        "metrics": receipt_metrics(receipt),
        "receipt": receipt,
    }
    storage.write_manifest(places.manifest_path, manifest, places.data_uri, entries)
    return receipt


def _tokenize_pool(
    scratch: Path, number: int, pools: Pools, name: str, tokenizer: ChatTokenizer, max_length: int, too_long: str
) -> Drops:
    print(f"pool {name}: tokenizing {pools[name].num_records('train'):,} records", flush=True)
    return write_store(scratch, str(number), tokenizer.tokenize(pools.records(name, "train")), max_length, too_long)


def _described(pools: Pools) -> dict[str, Any]:
    content = {key: value for key, value in pools.manifest.items() if key not in ("files", "data_uri")}
    return {**content, "digest": pools.digest}
