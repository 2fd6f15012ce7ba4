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

from collections.abc import Callable
from typing import Any

from kfp import dsl

from mixtune.choose.component import choose_rung, climb, go_on
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
    with_run_id,
)

STEP = ("action", "customer_data_percent", "ladder_uri")
"""What a rung says of the next one."""


@dsl.pipeline(name="lora-then-sft", description="LoRA first; full fine-tuning only where LoRA misses the target.")
@with_clean_up
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
        customer_data_percent=customer_data_percent,
        customer_epochs=customer_epochs,
        global_batch_size=global_batch_size,
        max_length=max_length,
        learning_rate=learning_rate,
        lora_rank=lora_rank,
        seed=seed,
        **machine,
    )
    general, customer = sanitize_pools(inputs, seed, storage)
    general.after(checks)
    measured = (inputs.outputs["base_model"], inputs.outputs["benchmarks"], general, customer, gpus_per_node, storage)
    base = evaluate_model(*measured)

    def rung(
        component: Callable[..., dsl.PipelineTask], percent: Any, earlier: Any = "", **adapter: Any
    ) -> dsl.PipelineTask:
        mixed = mix_pools(
            general,
            customer,
            base_model=inputs.outputs["base_model"],
            weights=inputs.outputs["weights"],
            customer_data_percent=percent,
            global_batch_size=global_batch_size,
            customer_epochs=customer_epochs,
            max_length=max_length,
            seed=seed,
            storage=storage,
        )
        checked = (
            None
            if earlier
            else check_mix(mixed, base_model=inputs.outputs["base_model"], lora_rank=lora_rank, **machine)
        )
        training = train(
            component,
            checked,
            shards=mixed.outputs["shards"],
            base_model=inputs.outputs["base_model"],
            learning_rate=learning_rate,
            seed=seed,
            on_error="report",
            **machine,
            **adapter,
        )
        decision = compare_models(
            base,
            evaluate_model(*measured, training.outputs["Output"]),
            shards=mixed.outputs["shards"],
            limits=inputs.outputs["limits"],
            tracking=tracking,
            storage=storage,
        )
        return climb(
            comparison=decision.outputs["comparison"],
            model_uri=training.outputs["Output"],
            method="lora" if adapter else "sft",
            earlier=earlier,
            customer_target=customer_target,
            sft_max_steps=sft_max_steps,
            storage=storage,
            **adapter,
        ).set_caching_options(False)

    first = rung(train_lora, customer_data_percent, lora_rank=lora_rank, lora_alpha=lora_alpha)
    adapter = {name: first.outputs[name] for name in ("lora_rank", "lora_alpha")}
    with dsl.If(first.outputs["action"] == "lora", "second-adapter"):
        second = rung(train_lora, first.outputs["customer_data_percent"], first.outputs["ladder_uri"], **adapter)
        tried = go_on(**{name: second.outputs[name] for name in STEP})
    with dsl.Else("one-adapter"):
        enough = go_on(**{name: first.outputs[name] for name in STEP})
    adapted = go_on(**{name: dsl.OneOf(tried.outputs[name], enough.outputs[name]) for name in STEP})
    with dsl.If(adapted.outputs["action"] == "sft", "full"):
        full = rung(train_sft, adapted.outputs["customer_data_percent"], adapted.outputs["ladder_uri"])
        ended = go_on(**{name: full.outputs[name] for name in STEP})
    with dsl.Else("adapters-only"):
        done = go_on(**{name: adapted.outputs[name] for name in STEP})
    choice = choose_rung(
        ladder_uri=dsl.OneOf(ended.outputs["ladder_uri"], done.outputs["ladder_uri"]),
        tracking=tracking,
        storage=storage,
    ).set_caching_options(False)
    with_run_id(choice)
    end_run("lora_then_sft", choice.outputs["ladder"], tracking, storage)
