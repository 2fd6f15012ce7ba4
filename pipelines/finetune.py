"""The finetune pipeline: sanitize, mix, validate in five steps, train, evaluate base and candidate, compare.

    fingerprint -> preflight -> sanitize (general) -> sanitize (customer) -> mix_shard -> preflight_mixed
                                        |                   |                                  |
                                        |                   |                    validation run -> training
                                        |                   |                                          |
                                        +---> evaluate (base, cached)                 evaluate (candidate)
                                                         |                                     |
                                                         +------------> compare <--------------+
                                                                           |
                                                                    record_outcome

Steps after `fingerprint` are cached under what they really read; the preflights, `compare` and `record_outcome` always
run.
"""

from kfp import dsl

from mixtune.preflight.component import fingerprint
from mixtune.train.component import train_lora, train_sft
from pipelines.steps import (
    check_mix,
    check_run,
    compare_models,
    end_run,
    evaluate_model,
    mix_pools,
    sanitize_pools,
    train,
    with_clean_up,
)


@dsl.pipeline(name="finetune", description="Fine-tune on customer and general records, and prove what was kept.")
@with_clean_up
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
    global_batch_size: int = 32,
    max_length: int = 8192,
    seed: int = 42,
    method: str = "lora",
    learning_rate: float = 1e-5,
    lora_rank: int = 16,
    lora_alpha: int = 32,
    num_nodes: str = "",
    gpus_per_node: str = "",
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
        global_batch_size: Records per optimizer step over all GPUs.
        max_length: Longest record in tokens.
        seed: Of splits, mix, initialisation.
        method: "lora" or "sft" (full).
        learning_rate: Peak learning rate.
        lora_rank: Rank of the adapter.
        lora_alpha: Scaling of the adapter.
        num_nodes: NodeSettings of the training job; empty: train in this process, without a cluster.
        gpus_per_node: GPUs per node of the training job and of an evaluation; empty: none.
        tracking: MLflow: {"uri", "experiment", "project", "hyperpod", "tags"}.
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
    machine = {"num_nodes": num_nodes, "gpus_per_node": gpus_per_node, "tracking": tracking, "storage": storage}
    checks = check_run(
        inputs,
        customer_data_percent=customer_data_percent,
        customer_epochs=customer_epochs,
        max_steps=max_steps,
        global_batch_size=global_batch_size,
        max_length=max_length,
        method=method,
        learning_rate=learning_rate,
        lora_rank=lora_rank,
        seed=seed,
        **machine,
    )
    general, customer = sanitize_pools(inputs, seed, storage)
    general.after(checks)
    mixed = mix_pools(
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
    data_checks = check_mix(
        mixed, base_model=inputs.outputs["base_model"], method=method, lora_rank=lora_rank, **machine
    )
    common = {
        "shards": mixed.outputs["shards"],
        "base_model": inputs.outputs["base_model"],
        "learning_rate": learning_rate,
        "seed": seed,
        **machine,
    }
    lora = {"lora_rank": lora_rank, "lora_alpha": lora_alpha}
    with dsl.If(method == "lora", "lora"):
        lora_training = train(train_lora, data_checks, **common, **lora)
    with dsl.Else("sft"):
        sft_training = train(train_sft, data_checks, **common)
    model_uri = dsl.OneOf(lora_training.outputs["Output"], sft_training.outputs["Output"])
    measured = (inputs.outputs["base_model"], inputs.outputs["benchmarks"], general, customer, gpus_per_node, storage)
    base, candidate = evaluate_model(*measured), evaluate_model(*measured, model_uri)
    decision = compare_models(
        base,
        candidate,
        shards=mixed.outputs["shards"],
        limits=inputs.outputs["limits"],
        tracking=tracking,
        storage=storage,
    )
    end_run("finetune", decision.outputs["comparison"], tracking, storage)
