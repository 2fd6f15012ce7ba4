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
from pipelines.parameters import documented


@dsl.pipeline(name="finetune", description="Fine-tune on customer and general records, and prove what was kept.")
@documented()
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
    """Fine-tune a base model on customer and general records."""
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
