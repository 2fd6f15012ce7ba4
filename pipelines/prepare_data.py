"""The prepare_data pipeline: sanitize and mix only, for those who train elsewhere.

fingerprint -> sanitize (general) -> sanitize (customer) -> mix_shard -> shards, receipt
"""

from kfp import dsl

from pipelines.flow import Mix, Run
from pipelines.parameters import documented


@dsl.pipeline(name="prepare-data", description="Clean customer and general records and mix them into shards.")
@documented(
    base_model="A folder, an s3:// prefix, or org/name@revision: its tokenizer and chat template are used.",
    benchmarks='{"mmlu": {"uri": ...}, "ifeval": {"uri": ...}}: records that leak from them are dropped.',
)
def prepare_data(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_data_percent: float = 50.0,
    customer_epochs: float = 1.0,
    max_steps: int = 0,
    seed: int = 42,
    sanitize_options: dict = {},
    mix_options: dict = {},
    data_cpu: str = "1",
    data_memory: str = "4G",
    storage: dict = {},
):
    """Clean customer and general records and mix them into shards in training order, with a receipt."""
    run = Run(seed=seed, data_cpu=data_cpu, data_memory=data_memory, sanitize_options=sanitize_options, storage=storage)
    mix = Mix(customer_data_percent=customer_data_percent, customer_epochs=customer_epochs, max_steps=max_steps)
    inputs = run.fingerprint(
        customer_uri, customer_columns, test_uri, general_pools, benchmarks, base_model, mix_options
    )
    pools = run.sanitize(inputs)
    run.mix(pools, inputs, mix)
