"""The mix_grid pipeline: several mixes on the same customer exposure, one report, one recommendation.

    fingerprint -> preflight -> sanitize (general) -> sanitize (customer) --+-> evaluate (base, cached) ----------+
                                                                            |                                     |
      for each percentage:  mix_shard -> preflight_mixed -> validation run -> training --+-> evaluate --+-> compare
                                                                                         +-> sweep_dial +     |
                                                                                                              |
                                                                                record_outcome <- choose_mix <+

Every point sees the customer's records equally often; the general share adds steps. A point whose training fails is
reported with its reason, and the others count. What a training made is also evaluated at the lower strengths of `dial`.
"""

from kfp import dsl

from mixtune.choose.component import choose_mix
from mixtune.evaluate.component import sweep_dial
from mixtune.preflight.component import fingerprint, plan_points
from mixtune.train.component import train_lora, train_sft
from pipelines.steps import (
    check_mix,
    check_run,
    compare_models,
    end_run,
    evaluate_model,
    mix_pools,
    on_gpus,
    sanitize_pools,
    train,
    with_clean_up,
    with_run_id,
)

PARALLELISM = 2


@dsl.pipeline(name="mix-grid", description="Try several mixes and name the one to take.")
@with_clean_up
def mix_grid(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_data_percents: list = [100.0, 75.0, 50.0],
    customer_epochs: float = 1.0,
    global_batch_size: int = 32,
    max_length: int = 8192,
    seed: int = 42,
    method: str = "lora",
    learning_rate: float = 1e-5,
    lora_rank: int = 16,
    lora_alpha: int = 32,
    dial: list = [0.5],
    num_nodes: str = "",
    gpus_per_node: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> None:
    """Fine-tune the base model on several mixes of customer and general records, and name the mix to take.

    Args:
        customer_uri: The customer's records: a file or folder, local or s3://; any format that sanitize reads.
        general_pools: List of {category, uri, weight, columns}; weights are percents of the general share, sum 100.
        base_model: A folder, an s3:// prefix, or org/name@revision.
        customer_columns: Column mapping of the customer's files; empty: detected.
        test_uri: The customer's held-out set; empty: a tenth of the customer's records is split off.
        benchmarks: {"mmlu": {"uri": ...}, "ifeval": {"uri": ...}}: general axes beside the general hold-out's NLL.
        customer_data_percents: Customer shares to try, each above 0 and at most 100.
        customer_epochs: Passes over the customer pool, the same for every mix.
        global_batch_size: Records per optimizer step over all GPUs.
        max_length: Longest record in tokens.
        seed: Of splits, mix, initialisation.
        method: "lora" or "sft" (full).
        learning_rate: Peak learning rate.
        lora_rank: Rank of the adapter.
        lora_alpha: Scaling of the adapter.
        dial: Strengths between base (0) and trained model (1) at which every point is evaluated too; empty: none.
        num_nodes: NodeSettings of a training job; empty: train in this process, without a cluster.
        gpus_per_node: GPUs per node of a training job and of an evaluation; empty: none.
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
        customer_data_percents=customer_data_percents,
        customer_epochs=customer_epochs,
        global_batch_size=global_batch_size,
        max_length=max_length,
        method=method,
        learning_rate=learning_rate,
        lora_rank=lora_rank,
        seed=seed,
        **machine,
    )
    general, customer = sanitize_pools(inputs, seed, storage)
    base = evaluate_model(
        inputs.outputs["base_model"], inputs.outputs["benchmarks"], general, customer, gpus_per_node, storage
    )
    points = plan_points(
        customer_data_percents=customer_data_percents,
        base_model=inputs.outputs["base_model"],
        weights=inputs.outputs["weights"],
        benchmarks=inputs.outputs["benchmarks"],
        limits=inputs.outputs["limits"],
        dial=dial,
    )
    general.after(checks, points)
    with dsl.ParallelFor(points.output, parallelism=PARALLELISM, name="points") as point:
        mixed = mix_pools(
            general,
            customer,
            base_model=point.base_model,
            weights=point.weights,
            customer_data_percent=point.percent,
            global_batch_size=global_batch_size,
            customer_epochs=customer_epochs,
            max_length=max_length,
            seed=seed,
            storage=storage,
        )
        data_checks = check_mix(mixed, base_model=point.base_model, method=method, lora_rank=lora_rank, **machine)
        common = {
            "shards": mixed.outputs["shards"],
            "base_model": point.base_model,
            "learning_rate": learning_rate,
            "seed": seed,
            "on_error": "report",
            **machine,
        }
        lora = {"lora_rank": lora_rank, "lora_alpha": lora_alpha}
        with dsl.If(method == "lora", "lora"):
            lora_training = train(train_lora, data_checks, **common, **lora)
        with dsl.Else("sft"):
            sft_training = train(train_sft, data_checks, **common)
        model_uri = dsl.OneOf(lora_training.outputs["Output"], sft_training.outputs["Output"])
        candidate = evaluate_model(
            point.base_model, point.benchmarks, general, customer, gpus_per_node, storage, model_uri
        )
        swept = sweep_dial(
            base_model=point.base_model,
            customer=customer.outputs["pools"],
            general=general.outputs["pools"],
            model_uri=model_uri,
            strengths=point.dial,
            benchmarks=point.benchmarks,
            storage=storage,
        )
        on_gpus(swept, gpus_per_node)
        decision = compare_models(
            base,
            candidate,
            dial=swept.outputs["dial"],
            shards=mixed.outputs["shards"],
            limits=point.limits,
            tracking=tracking,
            storage=storage,
        )
    choice = choose_mix(
        comparisons=dsl.Collected(decision.outputs["comparison"]), tracking=tracking, storage=storage
    ).set_caching_options(False)
    with_run_id(choice)
    end_run("mix_grid", choice.outputs["grid"], tracking, storage)
