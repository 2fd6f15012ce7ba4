"""The components `train` and `restore`, and `clean_up`, the exit task of runs that start jobs."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from mixtune import images


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def train(
    shards: Input[Dataset],
    base_model: str,
    model: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
    method: str = "lora",
    learning_rate: float = 1e-5,
    train_options: dict = {},
    seed: int = 42,
    validation_steps: int = 0,
    num_nodes: str = "",
    gpus_per_node: str = "",
    launcher: str = "",
    validated: str = "",
    on_error: str = "raise",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Train an adapter or all weights over all steps of the shards; a task that was killed goes on from its checkpoint.

    Records are packed without padding and never attend to one another; the loss is normalised by the loss tokens of
    the whole global batch, so that the trajectory does not depend on how a batch is cut. Losses are tracked per pool.

    Args:
        shards: Steps in training order, from `mix_shard`.
        base_model: Folder, `s3://` prefix or `org/name@revision`.
        model: Manifest of the adapter (in PEFT's format) or of the whole model (with tokenizer and chat template),
            which lies beside it.
        metrics: Losses, tokens a second, seconds and peak memory, of a job too.
        report: Of a validation run the checks of the mixed data, as `preflight_mixed` makes them, with the
            reproducibility checklist, and its figures; else the figures of the training.
        method: `lora` (an adapter) or `sft` (all weights).
        learning_rate: Peak, above 0; for LoRA that of the A matrices.
        train_options: Further settings: `lora_rank` (16), `lora_alpha` (32), `lora_options`, `schedule`, `guards`,
            `checkpoints`, `memory` and `interpolate`, how far the saved model goes from the base (0) to the tuned
            weights (1): a dial against forgetting (WiSE-FT). docs/settings.md has all of them, under `TrainSettings`.
        seed: Of the adapter's initialisation and its dropout.
        validation_steps: Above 0: the checks of `preflight_mixed` and, where they pass, a validation run of so many
            steps, which keeps no model.
        num_nodes: Nodes of a job of the cluster, as text such as "2"; this task starts, follows and deletes it. Empty:
            train in the task's own process.
        gpus_per_node: GPUs, and so processes, of each node of the job; empty: one process without a GPU.
        launcher: `process`, `trainjob` (Kubeflow Trainer) or `pytorchjob` (Training Operator v1); empty: `process`
            without nodes, else what the platform's ConfigMap `mixtune-jobs` says.
        validated: What the validation run returned; a failure is passed on and nothing is trained.
        on_error: `raise`, or `report`: a failed training returns `failed: <reason>` in place of a model's URI.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The fingerprinted URI of the adapter's or model's folder; empty for a validation run.

    Raises:
        TrainingError: Loss or gradient is not finite or far off, too much is forgotten at once, a validation run does
            not learn or does not fit, or the job failed.
        ConfigError: An option out of its range, shards made with another tokenizer, or a check of a validation run's
            data that fails.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    from mixtune import storage as files
    from mixtune.settings.job import NodeSettings
    from mixtune.settings.train import TrainSettings
    from mixtune.tracking import Tracking
    from mixtune.train.entry import TrainPage, train_or_report
    from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

    files.configure_storage(storage)
    nodes = NodeSettings(launcher=launcher, num_nodes=num_nodes, gpus_per_node=gpus_per_node)
    settings = TrainSettings.from_options(train_options, method=method, learning_rate=learning_rate, seed=seed)
    inputs = TrainInputs(shards_path=shards.path, shards_uri=shards.uri, base_model=base_model)
    where = Tracking.from_options(tracking)
    outputs = TrainOutputs(model_path=model.path, model_uri=model.uri, tracking=where)
    task = TrainTask(settings=settings, inputs=inputs, outputs=outputs, validation_steps=int(validation_steps))
    page = TrainPage(path=report.path, train_options=train_options, tracking=tracking, storage=storage)
    return train_or_report(task, nodes, validated, on_error, metrics, page)


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def restore(
    shards: Input[Dataset],
    base_model: str,
    model_uri: str,
    model: Output[Model],
    metrics: Output[Metrics],
    report: Output[HTML],
    method: str = "lora",
    learning_rate: float = 1e-5,
    train_options: dict = {},
    seed: int = 42,
    num_nodes: str = "",
    gpus_per_node: str = "",
    launcher: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Draw a trained model back towards its base on answers of its own; a task that was killed goes on.

    The model answers the prompts of the shards' general records, and at every token of these answers its prediction is
    drawn to the base's (on-policy distillation, reverse Kullback-Leibler divergence over the whole vocabulary). The
    customer's records of every batch are learned as in `train`, so that they are not lost. Under an adapter the base is
    the same model with the adapter off.

    Args:
        shards: Steps in training order, from `mix_shard`; their general records' answers are not used.
        base_model: Folder, `s3://` prefix or `org/name@revision`.
        model_uri: The trained model, an adapter's folder or that of all weights.
        model: Manifest of the restored model, which lies beside it, of the same kind.
        metrics: As of `train`, and how far the model was from its base before and after.
        report: The checks of the data, then the figures.
        method: How the model was trained: `lora` (an adapter, whose rank and scaling stay) or `sft` (all weights).
        learning_rate: Peak, above 0; for LoRA that of the A matrices.
        train_options: As of `train`; what says how an adapter is made is the adapter's own. `restore`:
            `max_new_tokens` (of an answer at most, 64), `temperature` (at which answers are sampled, 1),
            `learned_ratio` (share of the general records that are learned as they are, 0).
        seed: Of the answers.
        num_nodes: As of `train`.
        gpus_per_node: As of `train`.
        launcher: As of `train`.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The fingerprinted URI of the adapter's or model's folder.

    Raises:
        TrainingError: Loss or gradient is not finite or far off, or the job failed.
        ConfigError: An option out of its range, or one that does not fit the model; shards without general records.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    from mixtune import storage as files
    from mixtune.settings.job import NodeSettings
    from mixtune.tracking import Tracking
    from mixtune.train.entry import TrainPage, restore_settings, train_or_report
    from mixtune.train.task import TrainInputs, TrainOutputs, TrainTask

    files.configure_storage(storage)
    nodes = NodeSettings(launcher=launcher, num_nodes=num_nodes, gpus_per_node=gpus_per_node)
    settings = restore_settings(model_uri, train_options, method=method, learning_rate=learning_rate, seed=seed)
    start = {"base_model": base_model, "start_model": model_uri}
    inputs = TrainInputs(shards_path=shards.path, shards_uri=shards.uri, **start)
    outputs = TrainOutputs(model_path=model.path, model_uri=model.uri, tracking=Tracking.from_options(tracking))
    task = TrainTask(settings=settings, inputs=inputs, outputs=outputs)
    page = TrainPage(path=report.path, train_options=train_options, tracking=tracking, storage=storage)
    return train_or_report(task, nodes, "", "raise", metrics, page)


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def clean_up():
    """Delete what is left of this run's training jobs: the exit task of the pipelines that start any.

    Jobs are found by the run's id (`MIXTUNE_RUN_ID`, else the pod's label). Outside a cluster there are none, and the
    log says so.

    Raises:
        ClusterError: The Kubernetes API is away, or the service account may not delete jobs.
    """
    from mixtune.train.launcher import cleanup

    cleanup.clean_up()
