"""The lora_then_sft pipeline: LoRA first, a better adapter where that is not enough, full fine-tuning last.

    rung 1: LoRA --> what next? --+-- lora --> rung 2: another rank or mix --> what next? --+
                                  +-- stop -------------------------------------------------+
                                                                                            |
                                  +-- sft --> rung 3: full fine-tuning <--------------------+
                                  +-- stop -------------------------------------------------+--> choose_rung

KFP has no loop that ends on a result, so the ladder is written out: at most three rungs, each with its validation run.
Around it all lie the steps of finetune: `preflight` first, `preflight_mixed` before the first rung (a later one that
does not fit is a rung that failed, and ends nothing), `record_outcome` last.
"""

from dataclasses import replace

from kfp import dsl

from pipelines.flow import Mix, Run, Training, clean_up_at_end, hand_on

STEP = ("action", "customer_data_percent", "ladder_uri")
"""What a rung says of the next one."""


@dsl.pipeline(name="lora-then-sft", description="LoRA first; full fine-tuning only where LoRA misses the target.")
def lora_then_sft(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_data_percent: float = 50.0,
    customer_epochs: float = 1.0,
    global_batch_size: int = 32,
    max_length: int = 8192,
    seed: int = 42,
    learning_rate: float = 1e-5,
    lora_rank: int = 16,
    lora_alpha: int = 32,
    customer_target: float = 0.0,
    sft_max_steps: int = 0,
    num_nodes: str = "",
    gpus_per_node: str = "",
    data_cpu: str = "1",
    data_memory: str = "4G",
    tracking: dict = {},
    storage: dict = {},
) -> None:
    """Tune with LoRA, go on while the customer's target is missed and nothing is forgotten, and name the candidate.

    Args:
        customer_uri: The customer's records: a file or folder, local or s3://; any format that sanitize reads.
        general_pools: List of {category, uri, weight, columns}; weights are percents of the general share, sum 100.
        base_model: A folder, an s3:// prefix, or org/name@revision.
        customer_columns: Column mapping of the customer's files; empty: detected.
        test_uri: The customer's held-out set; empty: a tenth of the customer's records is split off.
        benchmarks: {"mmlu": {"uri": ...}, "ifeval": {"uri": ...}}: general axes beside the general hold-out's NLL.
        customer_data_percent: Customer share of every global batch of the first rung, above 0 and at most 100.
        customer_epochs: Passes over the customer pool on every rung.
        global_batch_size: Records per optimizer step over all GPUs.
        max_length: Longest record in tokens.
        seed: Of splits, mix, initialisation.
        learning_rate: Peak learning rate of every rung.
        lora_rank: Rank of the first adapter.
        lora_alpha: Scaling of the first adapter.
        customer_target: Score to reach on the customer's axis, in its own metric; 0: a certain gain is enough.
        sft_max_steps: The budget: optimizer steps that full fine-tuning may take; 0: it is never tried.
        num_nodes: Nodes of a training job; empty: train in this process, without a cluster.
        gpus_per_node: GPUs per node of a training job and of an evaluation; empty: none.
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
        tracking=tracking,
        storage=storage,
    )
    mix = Mix(global_batch_size=global_batch_size, customer_epochs=customer_epochs, max_length=max_length)
    lora = Training(
        method="lora", learning_rate=learning_rate, lora_rank=lora_rank, lora_alpha=lora_alpha, on_error="report"
    )
    with clean_up_at_end():
        inputs = run.fingerprint(customer_uri, customer_columns, test_uri, general_pools, benchmarks, base_model)
        checks = run.preflight(inputs, mix, lora, customer_data_percent)
        pools = run.sanitize(inputs, checks)
        base = run.evaluate(pools, inputs)

        def rung(training: Training, percent: float, earlier: str = "") -> dsl.PipelineTask:
            mixed = run.mix(pools, inputs, mix, percent)
            after = () if earlier else (run.preflight_mixed(mixed, inputs, training),)
            model_uri = run.train(mixed, inputs, training, *after)
            decision = run.compare(base, run.evaluate(pools, inputs, model_uri), inputs, mixed)
            return run.climb(decision, training, earlier, customer_target, sft_max_steps)

        first = rung(lora, customer_data_percent)
        with dsl.If(first.outputs["action"] == "lora", "second-adapter"):
            next_lora = replace(lora, lora_rank=first.outputs["lora_rank"], lora_alpha=first.outputs["lora_alpha"])
            second = rung(next_lora, first.outputs["customer_data_percent"], first.outputs["ladder_uri"])
        with dsl.Else("one-adapter"):
            enough = hand_on(*(first.outputs[name] for name in STEP))
        adapted = hand_on(*(dsl.OneOf(second.outputs[name], enough.outputs[name]) for name in STEP))
        with dsl.If(adapted.outputs["action"] == "sft", "full"):
            sft = replace(lora, method="sft")
            full = rung(sft, adapted.outputs["customer_data_percent"], adapted.outputs["ladder_uri"])
        with dsl.Else("adapters-only"):
            done = hand_on(*(adapted.outputs[name] for name in STEP))
        choice = run.choose_rung(dsl.OneOf(full.outputs["ladder_uri"], done.outputs["ladder_uri"]))
        run.record("lora_then_sft", choice.outputs["ladder"])
