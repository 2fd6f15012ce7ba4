"""The finetune pipeline: sanitize, mix, validate in five steps, train, evaluate base and candidate, compare.

    fingerprint -> preflight -> sanitize (general) -> sanitize (customer) -> mix_shard
                                        |                   |                    |
                                        |                   |     checks and validation run -> training
                                        |                   |                                     |
                                        +---> evaluate (base, cached)            evaluate (candidate)
                                                         |                                     |
                                                         +------------> compare <--------------+
                                                                           |
                                                                    record_outcome

Steps after `fingerprint` are cached under what they really read; `preflight`, `compare` and `record_outcome` always
run.
"""

from kfp import dsl

from pipelines.flow import Mix, Run, Training, clean_up_at_end


@dsl.pipeline(name="finetune", description="Fine-tune on customer and general records, and prove what was kept.")
def finetune(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_data_percent: float = 50.0,
    customer_epochs: float = 1.0,
    max_steps: int = 0,
    method: str = "lora",
    learning_rate: float = 1e-5,
    seed: int = 42,
    sanitize_options: dict = {},
    mix_options: dict = {},
    train_options: dict = {},
    evaluate_options: dict = {},
    num_nodes: str = "",
    gpus_per_node: str = "",
    data_cpu: str = "1",
    data_memory: str = "4G",
    tracking: dict = {},
    storage: dict = {},
) -> None:
    """Fine-tune a base model on customer and general records.

    Args:
        customer_uri: The customer's records: a file or folder, local or s3://; any format that sanitize reads.
        general_pools: List of {category, uri, weight, columns}; weights are percents of the general share, sum 100.
        base_model: A folder, an s3:// prefix, or org/name@revision.
        customer_columns: Column mapping of the customer's files; empty: detected.
        test_uri: The customer's held-out set; empty: a tenth of the customer's records is split off.
        benchmarks: {"mmlu": {"uri": ...}, "ifeval": {"uri": ...}}: general axes beside the general hold-out's NLL.
        customer_data_percent: Customer share of every global batch, 0 to 100.
        customer_epochs: Passes over the customer pool; max_steps, where it is not 0, decides instead.
        max_steps: Optimizer steps; 0: as many as customer_epochs takes.
        method: "lora" or "sft" (full).
        learning_rate: Peak learning rate.
        seed: Of splits, mix, initialisation.
        sanitize_options: Further settings of sanitize, such as {"dedup": {...}, "splits": {"holdout_records": 200}}.
        mix_options: Further settings of mix_shard, such as {"global_batch_size": 32, "max_length": 8192}.
        train_options: Further settings of train, such as {"lora_rank": 16, "lora_alpha": 32, "memory": {...}}.
        evaluate_options: Further settings of evaluate, such as {"limit": 500, "engine": "vllm"}.
        num_nodes: Nodes of the training job; empty: train in this process, without a cluster.
        gpus_per_node: GPUs per node of the training job and of an evaluation; empty: none.
        data_cpu: CPUs that sanitize and mix_shard reserve; they use more where the node has more.
        data_memory: Memory that they reserve; sanitize needs about 1 GB for a million records.
        tracking: MLflow: {"uri", "experiment", "project", "hyperpod", "tags"}.
        storage: {"kms_key_id", "endpoint_url", "region"} for s3:// data.
    """
    run = Run(
        seed=seed,
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        data_cpu=data_cpu,
        data_memory=data_memory,
        sanitize_options=sanitize_options,
        evaluate_options=evaluate_options,
        tracking=tracking,
        storage=storage,
    )
    mix = Mix(customer_data_percent=customer_data_percent, customer_epochs=customer_epochs, max_steps=max_steps)
    training = Training(method=method, learning_rate=learning_rate, options=train_options)
    with clean_up_at_end():
        inputs = run.fingerprint(
            customer_uri, customer_columns, test_uri, general_pools, benchmarks, base_model, mix_options
        )
        checks = run.preflight(inputs, mix, training)
        pools = run.sanitize(inputs, checks)
        mixed = run.mix(pools, inputs, mix)
        model_uri = run.train(mixed, inputs, training)
        base = run.evaluate(pools, inputs)
        candidate = run.evaluate(pools, inputs, model_uri)
        decision = run.compare(base, candidate, inputs, mixed)
        run.record("finetune", decision.outputs["comparison"])
