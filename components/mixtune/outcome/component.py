"""The KFP component that ends a run: `record_outcome`."""

from kfp import dsl

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def record_outcome(
    comparison: dsl.Input[dsl.Artifact],
    record: dsl.Output[dsl.Artifact],
    pipeline: str = "finetune",
    endpoint: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Write a run's audit record, tag its MLflow run with what it cost, and tell the webhook, where there is one.

    The webhook's URL is a file, not a parameter: of a mounted secret on a cluster, else that which
    `MIXTUNE_WEBHOOK_FILE` names. A webhook that does not answer is a warning, not a failure. Never cache this task.

    Args:
        comparison: From `compare` (with shards), `choose_mix` or `choose_rung`.
        record: JSON: who, which data versions, what was removed, what was decided on every candidate, what it cost.
        pipeline: Name of the pipeline, for the message.
        endpoint: From `serve`: where the model is served; empty: nowhere.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional. Cost is known where
            `hyperpod` names known instances, such as `4x-p5.48xlarge`.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        What it cost in US dollars as text, such as `12.34`; empty where that is not known.

    Raises:
        DataError: A candidate was compared without its shards.
    """
    from mixtune import storage as files
    from mixtune.outcome.run import conclude_run

    files.configure_storage(storage)
    return conclude_run(pipeline, comparison.path, record.path, record.uri, tracking, endpoint)
