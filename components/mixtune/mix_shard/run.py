"""Pools to shards: tokenize, plan the training order, write it with its receipt."""

import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from mixtune import models, storage
from mixtune.artifacts.pools import MixedPools, PoolsManifest, read_pools
from mixtune.artifacts.shards import ShardsManifest
from mixtune.artifacts.typed_json import write_artifact
from mixtune.chat.refused_share import check_refused
from mixtune.chat.template_files import read_template_file
from mixtune.chat.tokenizer import ChatTokenizer
from mixtune.errors import ConfigError
from mixtune.mix_shard.exposure import check_repeats, make_plan
from mixtune.mix_shard.holdout import write_holdout
from mixtune.mix_shard.receipt import make_receipt, rendering_notes
from mixtune.mix_shard.receipt_page import receipt_html, receipt_lines, receipt_markdown
from mixtune.mix_shard.store import Store
from mixtune.mix_shard.workers import TokenizeJob, tokenize_pools
from mixtune.mix_shard.write_shards import Target, write_shards
from mixtune.report import pages
from mixtune.report.outputs import Outputs
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


def run(mix: MixSettings, inputs: Inputs, outputs: Outputs) -> ShardsManifest:
    """Mix the customer pool with the general pools into shards, and return their manifest.

    Raises:
        ConfigError: The mix is not possible with these pools.
        DataError: A pool is not whole, or has a share and no record.
        ModelError: The tokenizer or its chat template cannot be used.
    """
    customer, general = _read_pools(inputs)
    names = [pool.name for pool in (*customer.pools, *general.pools)]
    mix.check_general_pools(names[1:])
    folder = models.fetch_model(inputs.base_model, weights=False)
    template = read_template_file(mix.tokens.chat_template_uri)
    with tempfile.TemporaryDirectory(prefix="mixtune-mix-") as scratch_name, ExitStack() as opened:
        scratch = Path(scratch_name)
        job = TokenizeJob(folder=folder, settings=mix.tokens, template=template, scratch=scratch)
        tokenized = tokenize_pools(job, [(customer, names[0]), *((general, name) for name in names[1:])])
        for name, drops in zip(names, tokenized.drops, strict=True):
            check_refused(name, drops.num_read, drops.dropped, mix.tokens.max_refused_ratio)
        stores = [opened.enter_context(closing(Store(scratch, str(number)))) for number in range(len(names))]
        plan = make_plan(mix, names, stores, tokenized.drops, scratch / "plan")
        notes = check_repeats(mix, plan) + rendering_notes(names, tokenized.drops)
        for note in notes:
            print(f"warning: {note}", flush=True)
        storage.delete(outputs.json_path)
        receipt, loss_tokens = make_receipt(plan, stores, tokenized.drops, mix.unit, notes)
        shards, files = write_shards(Target(plan=plan, scratch=scratch, data_uri=outputs.data_uri), stores)
        files += write_holdout(general, ChatTokenizer(folder, mix.tokens, template, fast=False), outputs.data_uri)
        manifest = ShardsManifest(
            data_uri=outputs.data_uri,
            files=tuple(files),
            num_steps=plan.num_steps,
            global_batch_size=mix.global_batch_size,
            pools=tuple(names),
            shards=tuple(shards),
            num_sub_batches=plan.num_sub_batches,
            loss_tokens=tuple(loss_tokens),
            max_record_tokens=max(int(store.rows["length"].max()) for store in stores if len(store)),
            tokenizer_digest=models.tokenizer_digest(folder),
            tokenizer_backend=tokenized.backend,
            chat_template=template,
            chat=mix.tokens.chat,
            train_on=tuple(sorted(mix.tokens.train_on)),
            seed=mix.seed,
            mix_ratio=float(mix.mix_ratio),
            unit=mix.unit,
            plan_digest=storage.sha256_file(str(scratch / "plan")),
            inputs={"customer": MixedPools.of(customer), "general": MixedPools.of(general)},
            receipt=receipt,
        )
    print("\n".join(receipt_lines(receipt)), flush=True)
    pages.write_text(outputs.html_path, receipt_html(receipt))
    pages.write_text(outputs.markdown_path, receipt_markdown(receipt))
    write_artifact(outputs.json_path, manifest)
    return manifest


def _read_pools(inputs: Inputs) -> tuple[PoolsManifest, PoolsManifest]:
    """Open the customer's pool and the general pools, all of different names."""
    customer, general = read_pools(inputs.customer_path), read_pools(inputs.general_path)
    if len(customer.pools) != 1:
        raise ConfigError(f"customer: one pool is needed; there are {', '.join(pool.name for pool in customer.pools)}")
    name = customer.pools[0].name
    if name in [pool.name for pool in general.pools]:
        raise ConfigError(f"customer: a general pool has the name {name!r} too; give it another")
    return customer, general
