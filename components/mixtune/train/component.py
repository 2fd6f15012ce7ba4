"""The `train_lora` and `train_sft` components, two shells over one loop, and the exit task of runs that start jobs."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from mixtune import images


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def train_lora(
    shards: Input[Dataset],
    base_model: str,
    model: Output[Model],
    metrics: Output[Metrics],
    learning_rate: float = 1e-5,
    lora_rank: int = 16,
    lora_alpha: int = 32,
    lora_plus_ratio: float = 64.0,
    lora_options: dict = {},
    merge: bool = False,
    min_lr_ratio: float = 0.1,
    warmup_ratio: float = 0.05,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    max_loss_rise: float = 5.0,
    max_grad_ratio: float = 100.0,
    max_nll_rise: float = 0.0,
    max_tokens_per_gpu: int = 16384,
    dtype: str = "",
    activations: str = "",
    fused_kernels: bool = False,
    shard_base: bool = False,
    checkpoint_steps: int = 100,
    checkpoint_seconds: float = 0.0,
    keep_checkpoints: int = 2,
    interpolate: float = 1.0,
    seed: int = 42,
    validation_steps: int = 0,
    num_nodes: str = "",
    gpus_per_node: str = "",
    validated: str = "",
    on_error: str = "raise",
    launcher: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Train a LoRA adapter over all steps of the shards; a task that was killed goes on from its checkpoint.

    Records are packed without padding and never attend to one another; the loss is normalised by the loss tokens of
    the whole global batch, so that the trajectory does not depend on how a batch is cut. Losses are tracked per pool.

    Args:
        shards: Steps in training order, from `mix_shard`.
        base_model: Folder, `s3://` prefix or `org/name@revision`.
        model: Manifest of the adapter, which lies in PEFT's format beside it.
        metrics: Losses, tokens a second, seconds and peak memory, of a job too.
        learning_rate: Peak, above 0; that of the A matrices.
        lora_rank: Rank of the adapter, 1 or more.
        lora_alpha: Scaling of the adapter, 1 or more.
        lora_plus_ratio: Learning rate of the B matrices over that of the A matrices (LoRA+), 1 or more.
        lora_options: Options of PEFT's LoraConfig: `target_modules` (default `all-linear`), `exclude_modules`,
            `use_rslora`, `use_dora`, `init_lora_weights` (`gaussian`, `orthogonal`, `pissa`, `pissa_niter_<number>`,
            `olora`), `rank_pattern`, `alpha_pattern`, `lora_dropout`; or `use_osf`: orthogonal subspace tuning, in
            which `lora_rank` directions of every matrix move, and `lora_alpha` and `lora_plus_ratio` have no part.
        merge: Whether base and adapter are written as one model too (bf16, with tokenizer and chat template), into
            the folder `merged` beside the adapter.
        min_lr_ratio: Learning rate of the last step as a share of the peak, 0 to 1; a cosine leads there.
        warmup_ratio: Share of the steps over which the learning rate rises, 0 to 1.
        weight_decay: Of AdamW, 0 or more.
        max_grad_norm: Gradients are clipped to this norm, above 0.
        max_loss_rise: A loss so many nats above the mean of the last 20 steps stops the training; 0: never.
        max_grad_ratio: A gradient norm so many times the mean of the last 20 steps stops it; 0: never.
        max_nll_rise: Nats a token by which the NLL of held-out general records may rise above the base model's; beyond,
            the training ends with the newest checkpoint that is within. 0: never.
        max_tokens_per_gpu: Tokens of one micro batch at most; a longer record is a micro batch of its own.
        dtype: Of the arithmetic: `float32`, or `bfloat16` with trained weights in float32; empty: `bfloat16` on GPUs.
        activations: For the backward pass: `keep`, `recompute` or `offload` to the host's memory; empty: `recompute` on
            GPUs, else `keep`.
        fused_kernels: Liger's kernels for norms, rotary embeddings and MLPs, on GPUs.
        shard_base: Hold the base model in slices over the GPUs (FSDP2), where it is too large for one.
        checkpoint_steps: Steps between two checkpoints, which are written while training goes on.
        checkpoint_seconds: Above 0: a checkpoint also whenever so many seconds have passed since the last.
        keep_checkpoints: Newest checkpoints that stay until the model is there.
        interpolate: How far the saved model goes from the base (0) to the tuned weights (1), above 0: a dial against
            forgetting (WiSE-FT).
        seed: Of the adapter's initialisation.
        validation_steps: Above 0: a validation run of so many steps, which keeps no model.
        num_nodes: Nodes of a job of the cluster, which this task starts, follows and deletes; empty: train in the
            task's own process.
        gpus_per_node: GPUs, and so processes, of each node of the job; empty: one process without a GPU.
        launcher: `process`, `trainjob` (Kubeflow Trainer) or `pytorchjob` (Training Operator v1); empty: `process`
            without nodes, else what the platform's ConfigMap `mixtune-jobs` says.
        validated: What the validation run returned; a failure is passed on and nothing is trained.
        on_error: `raise`, or `report`: a failed training returns `failed: <reason>` in place of a model's URI.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The fingerprinted URI of the adapter's folder; empty for a validation run.

    Raises:
        TrainingError: Loss or gradient is not finite or far off, too much is forgotten at once, a
            validation run does not learn or does not fit, or the job failed.
        ConfigError: An option out of its range, or shards made with another tokenizer.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    from mixtune import storage as files
    from mixtune.train.config import Places, TrainConfig
    from mixtune.train.entry import train_or_report
    from mixtune.train.launcher.nodes import Nodes

    files.use(storage)
    nodes = Nodes(launcher=launcher, num_nodes=num_nodes, gpus_per_node=gpus_per_node, shards_uri=shards.uri)
    config = TrainConfig(
        method="lora",
        learning_rate=learning_rate,
        lora_rank=int(lora_rank),
        lora_alpha=int(lora_alpha),
        lora_plus_ratio=lora_plus_ratio,
        lora_options=lora_options,
        merge=merge,
        min_lr_ratio=min_lr_ratio,
        warmup_ratio=warmup_ratio,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        max_loss_rise=max_loss_rise,
        max_grad_ratio=max_grad_ratio,
        max_nll_rise=max_nll_rise,
        max_tokens_per_gpu=int(max_tokens_per_gpu),
        dtype=dtype,
        activations=activations,
        fused_kernels=fused_kernels,
        shard_base=shard_base,
        checkpoint_steps=int(checkpoint_steps),
        checkpoint_seconds=checkpoint_seconds,
        keep_checkpoints=int(keep_checkpoints),
        interpolate=interpolate,
        seed=int(seed),
        validation_steps=int(validation_steps),
    )
    places = Places(
        shards_path=shards.path, base_model=base_model, model_path=model.path, model_uri=model.uri, tracking=tracking
    )
    return train_or_report(config, places, nodes, validated, on_error, metrics)


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def train_sft(
    shards: Input[Dataset],
    base_model: str,
    model: Output[Model],
    metrics: Output[Metrics],
    learning_rate: float = 1e-5,
    min_lr_ratio: float = 0.1,
    warmup_ratio: float = 0.05,
    weight_decay: float = 0.0,
    max_grad_norm: float = 1.0,
    max_loss_rise: float = 5.0,
    max_grad_ratio: float = 100.0,
    max_nll_rise: float = 0.0,
    max_tokens_per_gpu: int = 16384,
    dtype: str = "",
    activations: str = "",
    fused_kernels: bool = False,
    checkpoint_steps: int = 100,
    checkpoint_seconds: float = 0.0,
    keep_checkpoints: int = 2,
    interpolate: float = 1.0,
    seed: int = 42,
    validation_steps: int = 0,
    num_nodes: str = "",
    gpus_per_node: str = "",
    validated: str = "",
    on_error: str = "raise",
    launcher: str = "",
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Train all weights over all steps of the shards; a task that was killed goes on from its checkpoint.

    The same loop as `train_lora`; what comes out is a whole model with tokenizer and chat template.

    Args:
        shards: Steps in training order, from `mix_shard`.
        base_model: Folder, `s3://` prefix or `org/name@revision`.
        model: Manifest of the model, which lies as a Hugging Face folder beside it.
        metrics: Losses, tokens a second, seconds and peak memory, of a job too.
        learning_rate: Peak, above 0.
        min_lr_ratio: Learning rate of the last step as a share of the peak, 0 to 1; a cosine leads there.
        warmup_ratio: Share of the steps over which the learning rate rises, 0 to 1.
        weight_decay: Of AdamW, 0 or more.
        max_grad_norm: Gradients are clipped to this norm, above 0.
        max_loss_rise: A loss so many nats above the mean of the last 20 steps stops the training; 0: never.
        max_grad_ratio: A gradient norm so many times the mean of the last 20 steps stops it; 0: never.
        max_nll_rise: Nats a token by which the NLL of held-out general records may rise above the base model's; beyond,
            the training ends with the newest checkpoint that is within. 0: never.
        max_tokens_per_gpu: Tokens of one micro batch at most; a longer record is a micro batch of its own.
        dtype: Of the arithmetic and of what is saved: `float32`, or `bfloat16` with trained weights in float32; empty:
            `bfloat16` on GPUs.
        activations: For the backward pass: `keep`, `recompute` or `offload` to the host's memory; empty: `recompute` on
            GPUs, else `keep`.
        fused_kernels: Liger's kernels for norms, rotary embeddings and MLPs, on GPUs.
        checkpoint_steps: Steps between two checkpoints, which are written while training goes on.
        checkpoint_seconds: Above 0: a checkpoint also whenever so many seconds have passed since the last.
        keep_checkpoints: Newest checkpoints that stay until the model is there.
        interpolate: How far the saved model goes from the base (0) to the tuned weights (1), above 0: a dial against
            forgetting (WiSE-FT).
        seed: Recorded with the run; the weights are the base model's.
        validation_steps: Above 0: a validation run of so many steps, which keeps no model.
        num_nodes: Nodes of a job of the cluster, which this task starts, follows and deletes; empty: train in the
            task's own process.
        gpus_per_node: GPUs, and so processes, of each node of the job; empty: one process without a GPU.
        launcher: `process`, `trainjob` (Kubeflow Trainer) or `pytorchjob` (Training Operator v1); empty: `process`
            without nodes, else what the platform's ConfigMap `mixtune-jobs` says.
        validated: What the validation run returned; a failure is passed on and nothing is trained.
        on_error: `raise`, or `report`: a failed training returns `failed: <reason>` in place of a model's URI.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The fingerprinted URI of the model's folder; empty for a validation run.

    Raises:
        TrainingError: Loss or gradient is not finite or far off, too much is forgotten at once, a
            validation run does not learn or does not fit, or the job failed.
        ConfigError: An option out of its range, or shards made with another tokenizer.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    from mixtune import storage as files
    from mixtune.train.config import Places, TrainConfig
    from mixtune.train.entry import train_or_report
    from mixtune.train.launcher.nodes import Nodes

    files.use(storage)
    nodes = Nodes(launcher=launcher, num_nodes=num_nodes, gpus_per_node=gpus_per_node, shards_uri=shards.uri)
    config = TrainConfig(
        method="sft",
        learning_rate=learning_rate,
        min_lr_ratio=min_lr_ratio,
        warmup_ratio=warmup_ratio,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        max_loss_rise=max_loss_rise,
        max_grad_ratio=max_grad_ratio,
        max_nll_rise=max_nll_rise,
        max_tokens_per_gpu=int(max_tokens_per_gpu),
        dtype=dtype,
        activations=activations,
        fused_kernels=fused_kernels,
        checkpoint_steps=int(checkpoint_steps),
        checkpoint_seconds=checkpoint_seconds,
        keep_checkpoints=int(keep_checkpoints),
        interpolate=interpolate,
        seed=int(seed),
        validation_steps=int(validation_steps),
    )
    places = Places(
        shards_path=shards.path, base_model=base_model, model_path=model.path, model_uri=model.uri, tracking=tracking
    )
    return train_or_report(config, places, nodes, validated, on_error, metrics)


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
