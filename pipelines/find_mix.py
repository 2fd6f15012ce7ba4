"""The find_mix pipeline: the least general share that keeps everything, for little more than one training.

Short trainings, called proxies, on a few mixes tell how every axis falls with length and share. The least general share
that is likely to pass is trained in full, compared, and held against its prediction. Where it does not
pass, what it measured joins the proxies, and a second share is trained; there is no third.
"""

from dataclasses import replace

from kfp import dsl

from pipelines.flow import Mix, Training, clean_up_at_end, hand_on
from pipelines.parameters import documented
from pipelines.search_flow import SearchRun

PARALLELISM = 2


@dsl.pipeline(name="find-mix", description="Find the least general share that keeps everything.")
@documented(
    customer_epochs="Passes over the customer pool of the full training.",
    find_options='Further settings of the search, such as {"proxy_share": 0.25, "proxy_items": 200}.',
)
def find_mix(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    customer_epochs: float = 1.0,
    method: str = "lora",
    learning_rate: float = 1e-5,
    seed: int = 42,
    sanitize_options: dict = {},
    mix_options: dict = {},
    train_options: dict = {},
    find_options: dict = {},
    evaluate_options: dict = {},
    num_nodes: str = "",
    gpus_per_node: str = "",
    data_cpu: str = "1",
    data_memory: str = "4G",
    tracking: dict = {},
    storage: dict = {},
) -> None:
    """Find the least general share with which fine-tuning keeps everything, train at it, and prove it."""
    run = SearchRun(
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
        plan = run.plan_search(inputs, find_options)
        short = replace(inputs, evaluate_options=plan.outputs["evaluate_options"])
        proxies = run.plan_proxies(short, mix, find_options)
        checks = run.preflight(inputs, mix, training, percents=plan.outputs["percents"])
        pools = run.sanitize(inputs, checks, proxies)
        base = run.evaluate(pools, inputs)
        with dsl.ParallelFor(proxies.output, parallelism=PARALLELISM, name="proxies") as proxy:
            # KFP's local runner lets no other task's parameter into a loop: a proxy holds what it needs.
            names = ("base_model", "weights", "benchmarks", "limits", "mix_options", "evaluate_options")
            inputs_of_proxy = replace(inputs, **{name: getattr(proxy, name) for name in names})
            one = replace(run, seed=proxy.seed)
            mixed = one.mix(
                pools, inputs_of_proxy, Mix(customer_data_percent=proxy.percent, customer_epochs=proxy.epochs)
            )
            model_uri = one.train(mixed, inputs_of_proxy, training)
            measured = one.compare(base, one.evaluate(pools, inputs_of_proxy, model_uri), inputs_of_proxy, mixed)
        fitted = run.fit_mix(measured.outputs["comparison"], base, mix, find_options)

        def full_training(percent: float, search_uri: str) -> dsl.PipelineTask:
            mixed = run.mix(pools, inputs, replace(mix, customer_data_percent=percent))
            model_uri = run.train(mixed, inputs, training)
            decision = run.compare(base, run.evaluate(pools, inputs, model_uri), inputs, mixed)
            return run.weigh_mix(decision, search_uri)

        first = full_training(fitted.outputs["customer_data_percent"], fitted.outputs["search_uri"])
        with dsl.If(first.outputs["action"] == "again", "second-training"):
            second = full_training(first.outputs["customer_data_percent"], first.outputs["search_uri"])
        with dsl.Else("one-training"):
            enough = hand_on(
                first.outputs["action"], first.outputs["customer_data_percent"], {}, first.outputs["search_uri"]
            )
        choice = run.conclude_mix(dsl.OneOf(second.outputs["search_uri"], enough.outputs["ladder_uri"]))
        run.record("find_mix", choice.outputs["grid"])
