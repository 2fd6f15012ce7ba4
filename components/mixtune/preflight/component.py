"""The components that check a run before a GPU is asked for: `fingerprint`, `preflight`, `preflight_mixed`."""

from typing import NamedTuple

from kfp import dsl

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def fingerprint(
    customer_uri: str,
    general_pools: list,
    base_model: str,
    customer_columns: dict = {},
    test_uri: str = "",
    benchmarks: dict = {},
    mix_options: dict = {},
    sanitize_options: dict = {},
    evaluate_options: dict = {},
    model_uri: str = "",
    storage: dict = {},
) -> NamedTuple(
    "Fingerprint",
    [
        ("customer", list),
        ("general", list),
        ("weights", dict),
        ("benchmarks", dict),
        ("limits", dict),
        ("base_model", str),
        ("mix_options", dict),
        ("sanitize_options", dict),
        ("evaluate_options", dict),
        ("model_uri", str),
    ],
):
    """Attach a digest to everything that a run reads from outside, so that cached tasks see changed bytes.

    Never cache this task itself. Weights and limits come out apart from what they belong to, so that a changed weight
    sanitizes nothing again and a changed limit measures nothing again.

    Args:
        customer_uri: The customer's records: a file or folder, a local path or s3://.
        general_pools: List of {category, uri, weight, columns}; weights are percents of the general share, sum 100.
        base_model: A folder, an s3:// prefix, or org/name@revision.
        customer_columns: Column mapping of the customer's files; empty: detected.
        test_uri: The customer's held-out set; empty: sanitize splits one off.
        benchmarks: {name: {"uri": ..., "max_drop": ..., options}}; max_drop is the axis's limit for compare.
        mix_options: Further settings of `mix_shard`.
        sanitize_options: Further settings of both `sanitize` tasks; `splits.holdout_records` (200) is of the general
            pools.
        evaluate_options: Further settings of `evaluate`.
        model_uri: A model that is trained already, to be evaluated or restored: one trained here says how its
            conversations were rendered, where `mix_options` do not.
        storage: {"kms_key_id", "endpoint_url", "region"} for s3:// data.

    Returns:
        customer: Sources for sanitize, digests attached.
        general: Sources for sanitize, digests attached.
        weights: Percent of the general share by pool name, for mix_shard.
        benchmarks: For sanitize and evaluate, digests attached.
        limits: Largest drop allowed by axis, for compare.
        base_model: With its digest; a hub name keeps its revision instead.
        mix_options: The chat template's file with its digest; conversations rendered as the trained model's were.
        sanitize_options: The list of those who consented with its digest; conversations rendered as in the mix.
        evaluate_options: Conversations rendered as in the mix.
        model_uri: With its digest; empty where none was given.
    """
    from mixtune.preflight import fingerprint as logic
    from mixtune.storage import configure_storage

    configure_storage(storage)
    pools = logic.fingerprint_pools(customer_uri, customer_columns, test_uri, general_pools)
    model, mix = logic.fingerprint_model(base_model), logic.fingerprint_options(mix_options, model_uri)
    cleaning = logic.hand_on_chat(mix, logic.fingerprint_sanitize(sanitize_options))
    evaluating = logic.hand_on_chat(mix, evaluate_options)
    trained = logic.fingerprint_trained(model_uri)
    return (*pools, *logic.fingerprint_benchmarks(benchmarks), model, mix, cleaning, evaluating, trained)


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def preflight(
    base_model: str,
    weights: dict,
    sources: list,
    general: list,
    report: dsl.Output[dsl.HTML],
    customer_data_percent: float = 50.0,
    customer_data_percents: list = [],
    customer_epochs: float = 1.0,
    max_steps: int = 0,
    mix_options: dict = {},
    method: str = "lora",
    learning_rate: float = 1e-5,
    train_options: dict = {},
    sanitize_options: dict = {},
    evaluate_options: dict = {},
    benchmarks: dict = {},
    seed: int = 42,
    num_nodes: str = "",
    gpus_per_node: str = "",
    data_memory: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Check a run before anything is computed; one error names every check that failed, with its way out.

    Args:
        base_model: Folder, `s3://` prefix or `org/name@revision`: its configuration, tokenizer and chat template.
        weights: Percent of the general share by general pool; they sum to 100.
        sources: The customer's sources, `{name, uri}`, as `fingerprint` leaves them.
        general: Those of the general pools.
        report: The checks as a table.
        customer_data_percent: Customer share of every global batch, 0 to 100.
        customer_data_percents: Those of a grid, in place of the one; empty: the one.
        customer_epochs: Passes over the customer pool, above 0, where `max_steps` is 0.
        max_steps: Optimizer steps; at 0 % customer it decides and is needed.
        mix_options: Further settings of `mix_shard`.
        method: `lora` or `sft`.
        learning_rate: Peak, above 0.
        train_options: Further settings of `train`.
        sanitize_options: Further settings of `sanitize`.
        evaluate_options: Further settings of `evaluate`.
        benchmarks: As the user gives them, with their limits; each is planned as `evaluate` will.
        seed: Recorded in the reproducibility checklist.
        num_nodes: Nodes of the training job; empty: no cluster is looked at.
        gpus_per_node: GPUs of a node; empty: memory is estimated for a CPU.
        data_memory: Memory that sanitize's tasks reserve, such as `4G`; empty: not looked at.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        `pass`, or `warn` where a check warns.

    Raises:
        ConfigError: At least one check failed.
    """
    from functools import partial

    from mixtune import storage as files
    from mixtune.evaluate.benchmark_checks import BenchmarkPlans, check_benchmarks, check_engine
    from mixtune.preflight.checks import run_preflight
    from mixtune.preflight.evaluation_time import check_time
    from mixtune.preflight.fingerprint import fingerprint_benchmarks
    from mixtune.preflight.run_settings import RunSettings, valid
    from mixtune.settings.sanitize import SourceSettings

    files.configure_storage(storage)
    measured, limits = fingerprint_benchmarks(benchmarks)
    run = RunSettings(
        base_model=base_model,
        general_pools=[source["name"] for source in general],
        weights=weights,
        customer_data_percents=[float(percent) for percent in customer_data_percents or [customer_data_percent]],
        customer_epochs=float(customer_epochs),
        max_steps=int(max_steps),
        mix_options=mix_options,
        method=method,
        learning_rate=float(learning_rate),
        train_options=train_options,
        sanitize_options=sanitize_options,
        evaluate_options=evaluate_options,
        seed=int(seed),
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        data_memory=data_memory,
        sources=[SourceSettings(**source) for source in (*sources, *general)],
        limits=limits,
        artifacts=files.data_uri(report.uri, "report"),
        tracking=tracking,
        storage=storage,
    )
    plans = BenchmarkPlans(benchmarks=measured, base_model=base_model, options=evaluate_options)
    further = {
        "evaluation": partial(check_engine, base_model, evaluate_options, valid(run.training)),
        "benchmarks": partial(check_benchmarks, plans, limits),
        "evaluation time": partial(check_time, run, plans),
    }
    return run_preflight(run, report.path, further)


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def preflight_mixed(
    shards: dsl.Input[dsl.Dataset],
    base_model: str,
    report: dsl.Output[dsl.HTML],
    method: str = "lora",
    train_options: dict = {},
    num_nodes: str = "",
    gpus_per_node: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Check the mixed data before a GPU is asked for: pools, lengths, steps, people, memory.

    Args:
        shards: From `mix_shard`; their manifest says what sanitize found, too.
        base_model: From `fingerprint`.
        report: The checks as a table, with the reproducibility checklist.
        method: `lora` or `sft`.
        train_options: Further settings of `train`, for the memory estimate.
        num_nodes: Nodes of the training job; empty: none.
        gpus_per_node: GPUs of a node; empty: memory is estimated for a CPU.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        `pass`, or `warn` where a check warns.

    Raises:
        ConfigError: At least one check failed.
    """
    from mixtune import storage as files
    from mixtune.artifacts.shards import ShardsManifest
    from mixtune.artifacts.typed_json import read_artifact
    from mixtune.preflight.mixed_checks import Mixed, run_mixed_preflight

    files.configure_storage(storage)
    mixed = Mixed(manifest=read_artifact(ShardsManifest, shards.path))
    settings = mixed.run_settings(
        base_model,
        method,
        train_options=train_options,
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        tracking=tracking,
        storage=storage,
    )
    return run_mixed_preflight(mixed, settings, report.path)
