"""The lora_then_sft pipeline: LoRA first, a better adapter where that is not enough, full fine-tuning last.

    rung 1: LoRA --> what next? --+-- lora --> rung 2: another rank or mix --> what next? --+
                                  +-- stop -------------------------------------------------+
                                                                                            |
                                  +-- sft --> rung 3: full fine-tuning <--------------------+
                                  +-- stop -------------------------------------------------+--> choose_rung

KFP has no loop that ends on a result, so the ladder is written out: at most three rungs, each with its validation run.
Around it all lie the steps of finetune: `preflight` first, `record_outcome` last. A rung whose mixed data fails its
checks, or that does not fit, is a rung that failed, and ends nothing.
"""

from dataclasses import replace

from kfp import dsl

from pipelines.flow import STEP, Mix, Run, Training, clean_up_at_end, hand_on
from pipelines.parameters import documented


@dsl.pipeline(name="lora-then-sft", description="LoRA first; full fine-tuning only where LoRA misses the target.")
@documented(
    customer_data_percent="Customer share of every global batch of the first rung, above 0 and at most 100.",
    customer_epochs="Passes over the customer pool on every rung.",
    learning_rate="Peak learning rate of every rung.",
    train_options='Further settings of train, such as {"lora_rank": 16, "memory": {...}}; rungs change the rank.',
)
def lora_then_sft(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_data_percent: float = 50.0,
    customer_epochs: float = 1.0,
    learning_rate: float = 1e-5,
    seed: int = 42,
    sanitize_options: dict = {},
    mix_options: dict = {},
    train_options: dict = {},
    customer_target: float = 0.0,
    sft_max_steps: int = 0,
    evaluate_options: dict = {},
    num_nodes: str = "",
    gpus_per_node: str = "",
    data_cpu: str = "1",
    data_memory: str = "4G",
    tracking: dict = {},
    storage: dict = {},
) -> None:
    """Tune with LoRA, go on while the customer's target is missed and nothing is forgotten, and name the candidate."""
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
    mix = Mix(customer_data_percent=customer_data_percent, customer_epochs=customer_epochs)
    lora = Training(method="lora", learning_rate=learning_rate, options=train_options, on_error="report")
    with clean_up_at_end():
        inputs = run.fingerprint(
            customer_uri, customer_columns, test_uri, general_pools, benchmarks, base_model, mix_options
        )
        checks = run.preflight(inputs, mix, lora)
        pools = run.sanitize(inputs, checks)
        base = run.evaluate(pools, inputs)

        def rung(training: Training, percent: float, earlier: str = "") -> dsl.PipelineTask:
            mixed = run.mix(pools, inputs, replace(mix, customer_data_percent=percent))
            model_uri = run.train(mixed, inputs, training)
            decision = run.compare(base, run.evaluate(pools, inputs, model_uri), inputs, mixed)
            return run.climb(decision, training, earlier, customer_target, sft_max_steps)

        first = rung(lora, customer_data_percent)
        with dsl.If(first.outputs["action"] == "lora", "second-adapter"):
            other = replace(lora, options=first.outputs["train_options"])
            second = rung(other, first.outputs["customer_data_percent"], first.outputs["ladder_uri"])
        with dsl.Else("one-adapter"):
            enough = hand_on(*(first.outputs[name] for name in STEP))
        adapted = hand_on(*(dsl.OneOf(second.outputs[name], enough.outputs[name]) for name in STEP))
        with dsl.If(adapted.outputs["action"] == "sft", "full"):
            sft = replace(lora, method="sft", options=adapted.outputs["train_options"])
            full = rung(sft, adapted.outputs["customer_data_percent"], adapted.outputs["ladder_uri"])
        with dsl.Else("adapters-only"):
            adapters_only = hand_on(*(adapted.outputs[name] for name in STEP))
        choice = run.choose_rung(dsl.OneOf(full.outputs["ladder_uri"], adapters_only.outputs["ladder_uri"]))
        run.record("lora_then_sft", choice.outputs["ladder"])
