"""The customer's axis: classification where the records have labels, generation where they have none."""

from mixtune.artifacts.pools import PoolsManifest
from mixtune.errors import ConfigError
from mixtune.evaluate import benchmark_files
from mixtune.evaluate.benchmarks import generation
from mixtune.evaluate.benchmarks.form import Axis
from mixtune.evaluate.benchmarks.generation import GenerationOptions
from mixtune.evaluate.benchmarks.labels import LabelOptions, find_labels
from mixtune.evaluate.benchmarks.multilabel import label_form
from mixtune.inference.engine import Tokenizer
from mixtune.records import Record
from mixtune.settings.inference import GENERATION, LOGPROBS, CustomerOptions

AXIS = "customer"


def plan_axis(pools: PoolsManifest, options: CustomerOptions, tokenizer: Tokenizer, limit: int) -> Axis | None:
    """Return the axis over the `test` records; None where there are none.

    Raises:
        ConfigError: Log-probabilities are asked for, but a label has several answers.
    """
    test = _test_records(pools, limit)
    if not test:
        return None
    tokens = options.max_new_tokens
    if not all("label" in record for record in test):
        answered = GenerationOptions(records=test, max_new_tokens=tokens, pattern=options.pattern)
        return Axis(AXIS, generation.FORM, generation.FORM.plan(AXIS, answered, tokenizer, 0))
    labels = find_labels(_labelled(pools), options.separator, options.aliases)
    if options.method == LOGPROBS and not labels.answers:
        raise ConfigError("customer_options: method is logprobs, but labels have several answers; use generation")
    generated = options.method == GENERATION or not labels.answers
    labelled = LabelOptions(records=test, labels=labels, max_new_tokens=tokens if generated else 0)
    form = label_form(options.separator)
    return Axis(AXIS, form, form.plan(AXIS, labelled, tokenizer, 0), labels.labels)


def _test_records(pools: PoolsManifest, limit: int) -> list[Record]:
    unique: dict[str, Record] = {}
    for pool in pools.pools:
        for record in pools.records(pool.name, "test"):
            unique.setdefault(record["id"], record)
    return benchmark_files.stratified_subset(list(unique.values()), lambda record: record.get("label", ""), limit)


def _labelled(pools: PoolsManifest) -> list[Record]:
    splits = ((pool.name, split) for pool in pools.pools for split in ("train", "test"))
    return [record for name, split in splits for record in pools.records(name, split) if "label" in record]
