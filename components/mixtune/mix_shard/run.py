"""Pools to shards: tokenize, plan, write, and say what came of it."""

import tempfile
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mixtune import models, storage
from mixtune.artifacts.pools import MixedPools, Pools, read_pools
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.errors import ConfigError, DataError
from mixtune.mix_shard.exposure import check_repeats
from mixtune.mix_shard.holdout import write_holdout
from mixtune.mix_shard.receipt import make_receipt, receipt_lines, receipt_markdown, receipt_metrics
from mixtune.mix_shard.receipt_page import receipt_html
from mixtune.mix_shard.schedule import Plan
from mixtune.mix_shard.schedule_file import make_plan
from mixtune.mix_shard.store import Store
from mixtune.mix_shard.workers import Tokenizing, tokenize_pools
from mixtune.mix_shard.write_shards import Target, write_shards
from mixtune.report import pages
from mixtune.settings.mix import MixSettings


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What is mixed, and for which model."""

    base_model: str
    """Model whose tokenizer and chat template are used."""
    customer_path: str
    """Manifest of the customer's pool."""
    general_path: str
    """Manifest of the general pools."""


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where the shards and their receipt are written."""

    manifest_path: str
    """Manifest of the shards, written last."""
    data_uri: str
    """Folder of the shards."""
    html_path: str
    """The receipt as a page."""
    markdown_path: str
    """The receipt in short."""


def run(mix: MixSettings, inputs: Inputs, outputs: Outputs) -> dict[str, Any]:
    """Mix the customer pool with the general pools into shards, and return the receipt.

    Raises:
        ConfigError: The mix is not possible with these pools.
        DataError: A pool is not whole, or has a share and no record.
        ModelError: The tokenizer or its chat template cannot be used.
    """
    customer, general = _read(inputs)
    names = [pool.name for pool in (*customer.pools, *general.pools)]
    mix.check_general_pools(names[1:])
    template = read_template(mix.tokens.chat_template_uri)
    folder = models.fetch_model(inputs.base_model, weights=False)
    sources = list(zip([customer] + [general] * len(general.pools), names, strict=True))
    with tempfile.TemporaryDirectory(prefix="mixtune-mix-") as scratch, ExitStack() as opened:
        job = Tokenizing(folder=folder, settings=mix.tokens, template=template, scratch=Path(scratch))
        found = tokenize_pools(job, sources)
        stores = [opened.enter_context(closing(Store(Path(scratch), str(number)))) for number in range(len(names))]
        planned = _plan(mix, names, stores, Path(scratch) / "plan")
        storage.delete(outputs.manifest_path)
        receipt, loss_tokens = make_receipt(planned.plan, stores, found.drops, mix.unit, planned.notes)
        target = Target(plan=planned.plan, scratch=Path(scratch), data_uri=outputs.data_uri)
        entries, listed = write_shards(target, stores)
        entries += write_holdout(general, ChatTokenizer(folder, mix.tokens, template, fast=False), outputs.data_uri)
        longest = max(int(store.rows["length"].max()) for store in stores if len(store))
    print("\n".join(receipt_lines(receipt)), flush=True)
    pages.write_text(outputs.html_path, receipt_html(receipt))
    pages.write_text(outputs.markdown_path, receipt_markdown(receipt))
    manifest = {
        "kind": "shards",
        "num_steps": planned.plan.num_steps,
        "global_batch_size": mix.global_batch_size,
        "pools": names,
        "shards": listed,
        "num_slices": planned.plan.num_slices,
        "loss_tokens": loss_tokens,
        "max_record_tokens": longest,
        "tokenizer_digest": models.tokenizer_digest(folder),
        "tokenizer_backend": found.backend,
        "chat_template": template,
        "train_on": sorted(mix.tokens.train_on),
        "seed": mix.seed,
        "mix_ratio": float(mix.mix_ratio),
        "inputs": {"customer": asdict(MixedPools.of(customer)), "general": asdict(MixedPools.of(general))},
        "unit": mix.unit,
        "plan_digest": planned.digest,
        "metrics": receipt_metrics(receipt),
        "receipt": receipt,
    }
    storage.write_manifest(outputs.manifest_path, manifest, outputs.data_uri, entries)
    return receipt


def read_template(uri: str) -> str:
    """The chat template in a file; empty where none is named.

    Raises:
        DataError: There is no such file, it is empty, or it is not UTF-8.
    """
    if not uri:
        return ""
    with storage.open_read(storage.check_fingerprint(uri)) as stream:
        try:
            template = stream.read().decode()
        except UnicodeDecodeError as error:
            raise DataError(f"chat_template_uri: {uri} is not UTF-8 ({error.reason})") from error
    if not template.strip():
        raise DataError(f"chat_template_uri: {uri} is empty; leave it out for the model's own template")
    return template


def _read(inputs: Inputs) -> tuple[Pools, Pools]:
    """The customer's pool, and the general pools, all of different names."""
    customer, general = read_pools(inputs.customer_path), read_pools(inputs.general_path)
    if len(customer.pools) != 1:
        raise ConfigError(f"customer: one pool is needed; there are {', '.join(pool.name for pool in customer.pools)}")
    names = [pool.name for pool in (*customer.pools, *general.pools)]
    if len(set(names)) != len(names):
        raise ConfigError(f"customer: a general pool has the name {names[0]!r} too; give it another")
    return customer, general


class _Planned(NamedTuple):
    plan: Plan
    digest: str
    notes: list[str]


def _plan(mix: MixSettings, names: list[str], stores: list[Store], path: Path) -> _Planned:
    """The plan, in a file; its digest; and what is to be said of repeats."""
    plan = make_plan(mix, names, stores, path)
    notes = check_repeats(mix, names, [len(store) for store in stores], plan.given(plan.num_slots).tolist())
    for line in notes:
        print(f"warning: {line}", flush=True)
    return _Planned(plan, storage.sha256_file(str(path)), notes)
