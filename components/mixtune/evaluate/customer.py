"""The customer's axis: classification where the records have labels, generation where none has one.

Among records with labels those without are left out and counted: a few of them never change what is measured.
"""

from mixtune import benchmark_files
from mixtune.artifacts.comparison import CUSTOMER_AXIS
from mixtune.artifacts.pools import PoolsManifest
from mixtune.errors import ConfigError
from mixtune.evaluate.benchmarks import generation
from mixtune.evaluate.benchmarks.form import Axis
from mixtune.evaluate.benchmarks.generation import GenerationOptions
from mixtune.evaluate.benchmarks.multilabel import label_form
from mixtune.evaluate.scoring.labels import LabelOptions, find_labels
from mixtune.inference.engine import Tokenizer
from mixtune.records import Record
from mixtune.settings.inference import AUTO, LOGPROBS, CustomerOptions


def plan_axis(pools: PoolsManifest, options: CustomerOptions, tokenizer: Tokenizer, limit: int) -> Axis | None:
    """Return the axis over the `test` records; None where there are none.

    Raises:
        ConfigError: Log-probabilities are asked for, but a label has several answers; or an option has no part in it.
    """
    records = _test_records(pools)
    labelled = [record for record in records if record.get("label")]
    left_out = len(records) - len(labelled) if labelled else 0
    if left_out:
        print(f"customer: {left_out} of {len(records)} test records have no label and are left out", flush=True)
    test = benchmark_files.stratified_subset(labelled or records, lambda record: record.get("label", ""), limit)
    if not test:
        return None
    tokens = options.max_new_tokens
    if labelled and options.pattern:
        raise ConfigError("customer_options: pattern is for answers without labels, and these have some; omit it")
    if not labelled and (options.separator or options.aliases):
        raise ConfigError("customer_options: separator and aliases are of labels, and no record has one; omit them")
    if not labelled:
        answered = GenerationOptions(records=test, max_new_tokens=tokens, pattern=options.pattern)
        parts = generation.FORM.plan(CUSTOMER_AXIS, answered, tokenizer, 0)
        return Axis(CUSTOMER_AXIS, generation.FORM, parts, max_new_tokens=tokens)
    labels = find_labels(_labelled(pools), options.separator, options.aliases)
    if options.method == LOGPROBS and not labels.answers:
        raise ConfigError("customer_options: method is logprobs, but labels have several answers; use generation")
    if options.method == LOGPROBS or (options.method == AUTO and labels.answers):
        tokens = 0
    form = label_form(options.separator)
    parts = form.plan(CUSTOMER_AXIS, LabelOptions(records=test, labels=labels, max_new_tokens=tokens), tokenizer, 0)
    return Axis(CUSTOMER_AXIS, form, parts, labels.labels, max_new_tokens=tokens, left_out=left_out)


def _test_records(pools: PoolsManifest) -> list[Record]:
    unique: dict[str, Record] = {}
    for pool in pools.pools:
        for record in pools.records(pool.name, "test"):
            unique.setdefault(record["id"], record)
    return list(unique.values())


def _labelled(pools: PoolsManifest) -> list[Record]:
    splits = ((pool.name, split) for pool in pools.pools for split in ("train", "test"))
    return [record for name, split in splits for record in pools.records(name, split) if record.get("label")]
