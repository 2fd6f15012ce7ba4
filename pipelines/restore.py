"""The restore pipeline: draw a finished training back towards its base, and prove what came back and what it cost.

    fingerprint -> preflight -> sanitize (general) -> sanitize (customer) --> mix_shard -> restore
                                        |                     |                               |
                                        +--> evaluate (base), evaluate and sweep_dial (trained), evaluate (restored)
                                                                          |
                                                              compare -> record_outcome

The trained model is evaluated too, whole and turned down, so that one report has all three ways to get back what it
lost. What an earlier run of finetune sanitized and evaluated comes from the cache.
"""

from kfp import dsl

from pipelines.flow import Mix, Run, Training, clean_up_at_end
from pipelines.parameters import documented

# The pipeline's own name is another: KFP takes a pipeline that is called as one of its components for that component.
DIAL = [0.5]
"""Strengths at which the trained model is evaluated, too."""


@dsl.pipeline(name="restore-model", description="Draw a trained model back towards its base, and prove what came back.")
@documented(
    model_uri="What finetune left: an adapter's folder, or that of all weights; local or s3://.",
    customer_data_percent="Customer share of every global batch, 0 to below 100: learned as ever, so that it stays.",
    max_steps="Optimizer steps, 1 or more.",
    method='How the model was trained: "lora" or "sft" (full).',
    train_options='Further settings of train, such as {"restore": {"max_new_tokens": 64}}.',
)
def restore(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    model_uri: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_data_percent: float = 25.0,
    max_steps: int = 100,
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
    """Draw a trained model back towards its base on answers of its own."""
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
    mix = Mix(customer_data_percent=customer_data_percent, customer_epochs=1.0, max_steps=max_steps)
    training = Training(method=method, learning_rate=learning_rate, options=train_options)
    with clean_up_at_end():
        inputs = run.fingerprint(
            customer_uri, customer_columns, test_uri, general_pools, benchmarks, base_model, mix_options, model_uri
        )
        checks = run.preflight(inputs, mix, training)
        pools = run.sanitize(inputs, checks)
        mixed = run.mix(pools, inputs, mix)
        restored_uri = run.restore(mixed, inputs, training, inputs.model_uri)
        base = run.evaluate(pools, inputs)
        trained = run.evaluate(pools, inputs, inputs.model_uri).set_display_name("evaluate-trained")
        swept = run.sweep(pools, inputs, inputs.model_uri, DIAL)
        candidate = run.evaluate(pools, inputs, restored_uri)
        decision = run.compare(base, candidate, inputs, mixed, swept, earlier=trained)
        run.record("restore", decision.outputs["comparison"])
