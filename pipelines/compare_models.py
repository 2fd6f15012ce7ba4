"""The compare_models pipeline: two base models on the customer's own test set and the general axes, with their price.

    fingerprint (twice) -> sanitize (general) -> sanitize (customer) -> evaluate (each model, cached) -> choose_model

Nothing is trained. Both models answer the same items, each by its own chat template.
"""

from dataclasses import replace

from kfp import dsl

from mixtune.model_choice.component import choose_model
from pipelines.flow import Run, on_cluster, with_run_id
from pipelines.parameters import documented


@dsl.pipeline(name="compare-models", description="Which of two open models to take, and at what price.")
@documented(
    general_pools="List of {category, uri, weight, columns}: their held-out records are a general axis.",
    base_model="The first model: a folder, an s3:// prefix, or org/name@revision.",
    other_model="The other model, likewise.",
    serve_options='Of the price: {"instance", "max_length", "num_sequences"}.',
    data_cpu="CPUs that the sanitize tasks reserve; they use more where the node has more.",
    data_memory="Memory that they reserve; 1 GB is enough for a million records.",
)
def compare_models(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    other_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    seed: int = 42,
    sanitize_options: dict = {},
    evaluate_options: dict = {},
    serve_options: dict = {},
    gpus_per_node: str = "",
    data_cpu: str = "1",
    data_memory: str = "4G",
    storage: dict = {},
) -> str:
    """Hold two base models against each other, before anything is trained."""
    run = Run(
        seed=seed,
        gpus_per_node=gpus_per_node,
        data_cpu=data_cpu,
        data_memory=data_memory,
        sanitize_options=sanitize_options,
        evaluate_options=evaluate_options,
        storage=storage,
    )
    sources = (customer_uri, customer_columns, test_uri, general_pools, benchmarks)
    inputs = run.fingerprint(*sources, base_model)
    others = replace(inputs, base_model=run.fingerprint(*sources, other_model).base_model)
    pools = run.sanitize(inputs)
    first, other = run.evaluate(pools, inputs), run.evaluate(pools, others)
    task = choose_model(
        first=first.set_display_name("evaluate-first").outputs["samples"],
        other=other.set_display_name("evaluate-other").outputs["samples"],
        first_model=inputs.base_model,
        other_model=others.base_model,
        serve_options=serve_options,
        storage=storage,
    )
    return with_run_id(on_cluster(task, cached=False)).outputs["Output"]
