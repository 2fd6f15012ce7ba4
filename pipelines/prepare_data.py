"""The prepare_data pipeline: sanitize and mix only, for those who train elsewhere.

fingerprint -> sanitize (general) -> sanitize (customer) -> mix_shard -> shards, receipt
"""

from kfp import dsl

from mixtune.preflight.component import fingerprint
from pipelines.steps import mix_pools, sanitize_pools


@dsl.pipeline(name="prepare-data", description="Clean customer and general records and mix them into shards.")
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
    global_batch_size: int = 32,
    max_length: int = 8192,
    seed: int = 42,
    storage: dict = {},
):
    """Clean customer and general records and mix them into shards in training order, with a receipt.

    Args:
        customer_uri: The customer's records: a file or folder, local or s3://; any format that sanitize reads.
        general_pools: List of {category, uri, weight, columns}; weights are percents of the general share, sum 100.
        base_model: A folder, an s3:// prefix, or org/name@revision: its tokenizer and chat template are used.
        customer_columns: Column mapping of the customer's files; empty: detected.
        test_uri: The customer's held-out set; empty: a tenth of the customer's records is split off.
        benchmarks: {"mmlu": {"uri": ...}, "ifeval": {"uri": ...}}: records that leak from them are dropped.
        customer_data_percent: Customer share of every global batch, 0 to 100.
        customer_epochs: Passes over the customer pool; max_steps, where it is not 0, decides instead.
        max_steps: Optimizer steps; 0: as many as customer_epochs takes.
        global_batch_size: Records per optimizer step over all GPUs.
        max_length: Longest record in tokens.
        seed: Of splits and mix.
        storage: {"kms_key_id", "endpoint_url", "region"} for s3:// data.
    """
    inputs = fingerprint(
        customer_uri=customer_uri,
        customer_columns=customer_columns,
        test_uri=test_uri,
        general_pools=general_pools,
        benchmarks=benchmarks,
        base_model=base_model,
        storage=storage,
    ).set_caching_options(False)
    general, customer = sanitize_pools(inputs, seed, storage)
    mix_pools(
        general,
        customer,
        base_model=inputs.outputs["base_model"],
        weights=inputs.outputs["weights"],
        customer_data_percent=customer_data_percent,
        global_batch_size=global_batch_size,
        customer_epochs=customer_epochs,
        max_steps=max_steps,
        max_length=max_length,
        seed=seed,
        storage=storage,
    )
