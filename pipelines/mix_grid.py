"""The mix_grid pipeline: several mixes on the same customer exposure, one report, one recommendation.

    fingerprint -> preflight -> sanitize (general) -> sanitize (customer) --+-> evaluate (base, cached) ----------+
                                                                            |                                     |
      for each percentage:  mix_shard -> checks and validation run -> training --+-> evaluate ----+-> compare
                                                                                 +-> sweep_dial --+      |
                                                                                                         |
                                                                           record_outcome <- choose_mix <+

Every point sees the customer's records equally often; the general share adds steps. A point whose training fails is
reported with its reason, and the others count. What a training made is also evaluated at the lower strengths of `dial`.
"""

from dataclasses import replace

from kfp import dsl

from pipelines.flow import Mix, Run, Training, clean_up_at_end
from pipelines.parameters import documented

PARALLELISM = 2


@dsl.pipeline(name="mix-grid", description="Try several mixes and name the one to take.")
@documented(customer_epochs="Passes over the customer pool, the same for every mix.")
def mix_grid(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_data_percents: list = [100.0, 75.0, 50.0],
    customer_epochs: float = 1.0,
    method: str = "lora",
    learning_rate: float = 1e-5,
    seed: int = 42,
    sanitize_options: dict = {},
    mix_options: dict = {},
    train_options: dict = {},
    dial: list = [0.5],
    evaluate_options: dict = {},
    num_nodes: str = "",
    gpus_per_node: str = "",
    data_cpu: str = "1",
    data_memory: str = "4G",
    tracking: dict = {},
    storage: dict = {},
) -> None:
    """Fine-tune the base model on several mixes of customer and general records, and name the mix to take."""
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
    mix = Mix(customer_epochs=customer_epochs)
    training = Training(method=method, learning_rate=learning_rate, options=train_options, on_error="report")
    with clean_up_at_end():
        inputs = run.fingerprint(
            customer_uri, customer_columns, test_uri, general_pools, benchmarks, base_model, mix_options
        )
        checks = run.preflight(inputs, mix, training, percents=customer_data_percents)
        points = run.plan_points(inputs, customer_data_percents, dial)
        pools = run.sanitize(inputs, checks, points)
        base = run.evaluate(pools, inputs)
        with dsl.ParallelFor(points.output, parallelism=PARALLELISM, name="points") as point:
            # KFP's local runner lets no other task's parameter into a loop: a point holds what it needs.
            names = ("base_model", "weights", "benchmarks", "limits", "mix_options", "evaluate_options")
            inputs_of_point = replace(inputs, **{name: getattr(point, name) for name in names})
            mixed = run.mix(pools, inputs_of_point, replace(mix, customer_data_percent=point.percent))
            model_uri = run.train(mixed, inputs_of_point, training)
            candidate = run.evaluate(pools, inputs_of_point, model_uri)
            swept = run.sweep(pools, inputs_of_point, model_uri, point.dial)
            decision = run.compare(base, candidate, inputs_of_point, mixed, swept)
        choice = run.choose_mix(decision.outputs["comparison"])
        run.record("mix_grid", choice.outputs["grid"])
