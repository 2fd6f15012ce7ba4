"""The evaluate_only pipeline: for those who train elsewhere, base against a tuned model, with a verdict.

fingerprint -> sanitize (general) -> sanitize (customer) -> evaluate (base, cached) and evaluate -> compare
"""

from collections import namedtuple
from typing import NamedTuple

from kfp import dsl

from pipelines.flow import Run
from pipelines.parameters import documented


@dsl.pipeline(name="evaluate-only", description="Measure what a tuned model gained and forgot.")
@documented(
    general_pools="List of {category, uri, weight, columns}: on their held-out records forgetting is measured.",
    data_cpu="CPUs that the sanitize tasks reserve; they use more where the node has more.",
    data_memory="Memory that they reserve; 1 GB is enough for a million records.",
)
def evaluate_only(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    model_uri: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    seed: int = 42,
    sanitize_options: dict = {},
    evaluate_options: dict = {},
    gpus_per_node: str = "",
    data_cpu: str = "1",
    data_memory: str = "4G",
    tracking: dict = {},
    storage: dict = {},
) -> NamedTuple("Outcome", [("verdict", str)]):
    """Compare a model that was tuned elsewhere with its base model."""
    run = Run(
        seed=seed,
        gpus_per_node=gpus_per_node,
        data_cpu=data_cpu,
        data_memory=data_memory,
        sanitize_options=sanitize_options,
        evaluate_options=evaluate_options,
        tracking=tracking,
        storage=storage,
    )
    sources = (customer_uri, customer_columns, test_uri, general_pools, benchmarks)
    inputs = run.fingerprint(*sources, base_model, model_uri=model_uri)
    pools = run.sanitize(inputs)
    base = run.evaluate(pools, inputs)
    candidate = run.evaluate(pools, inputs, inputs.model_uri)
    decision = run.compare(base, candidate, inputs)
    return namedtuple("Outcome", "verdict")(decision.outputs["Output"])
