"""The prepare_data pipeline: sanitize and mix only, for those who train elsewhere.

fingerprint -> sanitize (general) -> sanitize (customer) -> mix_shard -> shards, receipt
"""

from kfp import dsl

from pipelines.flow import Mix, Run


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
    seed: int = 42,
    sanitize_options: dict = {},
    mix_options: dict = {},
    data_cpu: str = "1",
    data_memory: str = "4G",
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
        seed: Of splits and mix.
        sanitize_options: Further settings of sanitize, such as {"dedup": {...}, "splits": {"holdout_records": 200}}.
        mix_options: Further settings of mix_shard, such as {"global_batch_size": 32, "max_length": 8192}.
        data_cpu: CPUs that sanitize and mix_shard reserve; they use more where the node has more.
        data_memory: Memory that they reserve; sanitize needs about 1 GB for a million records.
        storage: {"kms_key_id", "endpoint_url", "region"} for s3:// data.
    """
    run = Run(
        seed=seed,
        data_cpu=data_cpu,
        data_memory=data_memory,
        sanitize_options=sanitize_options,
        storage=storage,
    )
    mix = Mix(customer_data_percent=customer_data_percent, customer_epochs=customer_epochs, max_steps=max_steps)
    inputs = run.fingerprint(
        customer_uri, customer_columns, test_uri, general_pools, benchmarks, base_model, mix_options
    )
    pools = run.sanitize(inputs)
    run.mix(pools, inputs, mix)
