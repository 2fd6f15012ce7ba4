"""KFP components that look at a run before a GPU is asked for: `fingerprint`, `preflight`, `preflight_mixed`."""

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
        storage: {"kms_key_id", "endpoint_url", "region"} for s3:// data.

    Returns:
        customer: Sources for sanitize, digests attached.
        general: Sources for sanitize, digests attached.
        weights: Percent of the general share by pool name, for mix_shard.
        benchmarks: For sanitize and evaluate, digests attached.
        limits: Largest drop allowed by axis, for compare.
        base_model: With its digest; a hub name keeps its revision instead.
    """
    from collections import namedtuple

    from mixtune.preflight import fingerprint as taken
    from mixtune.storage import configure_storage

    configure_storage(storage)
    customer, general, weights = taken.fingerprint_pools(customer_uri, customer_columns, test_uri, general_pools)
    measured, limits = taken.fingerprint_benchmarks(benchmarks)
    model = taken.fingerprint_model(base_model)
    made = namedtuple("made", "customer general weights benchmarks limits base_model")
    return made(customer, general, weights, measured, limits, model)


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def preflight(
    base_model: str,
    weights: dict,
    report: dsl.Output[dsl.HTML],
    customer_data_percent: float = 50.0,
    customer_data_percents: list = [],
    customer_epochs: float = 1.0,
    max_steps: int = 0,
    global_batch_size: int = 32,
    max_length: int = 8192,
    method: str = "lora",
    learning_rate: float = 1e-5,
    lora_rank: int = 16,
    seed: int = 42,
    num_nodes: str = "",
    gpus_per_node: str = "",
    data_memory: str = "",
    sources: list = [],
    general: list = [],
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Look at a run before anything is computed; one error names every check that failed, with its way out.

    Args:
        base_model: Folder, `s3://` prefix or `org/name@revision`: its configuration, tokenizer and chat template.
        weights: Percent of the general share by general pool; they sum to 100.
        report: The checks as a table.
        customer_data_percent: Customer share of every global batch, 0 to 100.
        customer_data_percents: Those of a grid, in place of the one; empty: the one.
        customer_epochs: Passes over the customer pool, above 0, where `max_steps` is 0.
        max_steps: Optimizer steps; at 0 % customer it decides and is needed.
        global_batch_size: Records per optimizer step, 1 or more.
        max_length: Longest record in tokens, compared with what the model takes.
        method: `lora` or `sft`.
        learning_rate: Peak, above 0.
        lora_rank: Rank of the adapter, for the memory estimate.
        seed: Recorded in the reproducibility checklist.
        num_nodes: Nodes of the training job; empty: no cluster is looked at.
        gpus_per_node: GPUs of a node; empty: memory is estimated for a CPU.
        data_memory: Memory that sanitize's tasks reserve, such as `4G`; empty: not looked at.
        sources: The customer's sources, `{name, uri}`, as `fingerprint` leaves them.
        general: Those of the general pools.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        `pass`, or `warn` where a check warns.

    Raises:
        ConfigError: At least one check failed.
    """
    from mixtune import storage as files
    from mixtune.preflight.checks import Settings, run_preflight

    files.configure_storage(storage)
    folder = files.data_uri(report.uri, "report")
    settings = Settings(
        base_model=base_model,
        weights=weights,
        customer_data_percents=[float(one) for one in customer_data_percents or [customer_data_percent]],
        customer_epochs=customer_epochs,
        max_steps=int(max_steps),
        global_batch_size=int(global_batch_size),
        max_length=int(max_length),
        method=method,
        learning_rate=learning_rate,
        lora_rank=int(lora_rank),
        seed=int(seed),
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        data_memory=data_memory,
        sources=[*sources, *general],
        artifacts=folder,
        storage=storage,
        tracking=tracking,
    )
    return run_preflight(settings, report.path)


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def preflight_mixed(
    shards: dsl.Input[dsl.Dataset],
    base_model: str,
    report: dsl.Output[dsl.HTML],
    method: str = "lora",
    lora_rank: int = 16,
    num_nodes: str = "",
    gpus_per_node: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Look at the mixed data before a GPU is asked for: pools, lengths, steps, people, memory.

    Args:
        shards: From `mix_shard`; their manifest says what sanitize found, too.
        base_model: From `fingerprint`.
        report: The checks as a table, with the reproducibility checklist.
        method: `lora` or `sft`.
        lora_rank: Rank of the adapter, for the memory estimate.
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
    settings = mixed.settings(
        base_model,
        method,
        lora_rank=int(lora_rank),
        num_nodes=num_nodes,
        gpus_per_node=gpus_per_node,
        tracking=tracking,
        storage=storage,
    )
    return run_mixed_preflight(mixed, settings, report.path)
