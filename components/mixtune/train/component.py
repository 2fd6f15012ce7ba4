"""The `train_lora` and `train_sft` components, two shells over one loop, and the exit task of runs that start jobs."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from mixtune import images


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def train_lora(
    shards: Input[Dataset],
    base_model: str,
    model: Output[Model],
    learning_rate: float = 1e-5,
    lora_rank: int = 16,
    lora_alpha: int = 32,
    lora_plus_ratio: float = 64.0,
    lora_options: dict = {},
    max_tokens_per_gpu: int = 16384,
    checkpoint_steps: int = 100,
    seed: int = 42,
    validation_steps: int = 0,
    num_nodes: str = "",
    gpus_per_node: str = "",
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
        learning_rate: Peak, above 0; that of the A matrices.
        lora_rank: Rank of the adapter, 1 or more.
        lora_alpha: Scaling of the adapter, 1 or more.
        lora_plus_ratio: Learning rate of the B matrices over that of the A matrices (LoRA+), 1 or more.
        lora_options: Options of PEFT's LoraConfig: `target_modules` (default `all-linear`), `exclude_modules`,
            `use_rslora`, `use_dora`, `init_lora_weights` (`gaussian`, `orthogonal`), `rank_pattern`, `alpha_pattern`.
        max_tokens_per_gpu: Tokens of one micro batch at most.
        checkpoint_steps: Steps between two checkpoints.
        seed: Of the adapter's initialisation.
        validation_steps: Above 0: a validation run of so many steps, which keeps no model.
        num_nodes: Nodes of a job of the cluster, which this task starts, follows and deletes; empty: train in the
            task's own process.
        gpus_per_node: GPUs, and so processes, of each node of the job; empty: one process without a GPU.
        launcher: `process`, `trainjob` (Kubeflow Trainer) or `pytorchjob` (Training Operator v1); empty: `process`
            without nodes, else what the platform's ConfigMap `mixtune-jobs` says.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The fingerprinted URI of the adapter's folder; empty for a validation run.

    Raises:
        TrainingError: Loss or gradient is not finite, a validation run diverges, or the job failed.
        ConfigError: An option out of its range, or shards made with another tokenizer.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    from mixtune import storage as files
    from mixtune.train.config import TrainConfig
    from mixtune.train.launcher.nodes import Nodes, train
    from mixtune.train.training import Places

    files.use(storage)
    nodes = Nodes(launcher=launcher, num_nodes=num_nodes, gpus_per_node=gpus_per_node, shards_uri=shards.uri)
    config = TrainConfig(
        method="lora",
        learning_rate=learning_rate,
        lora_rank=int(lora_rank),
        lora_alpha=int(lora_alpha),
        lora_plus_ratio=lora_plus_ratio,
        lora_options=lora_options,
        max_tokens_per_gpu=int(max_tokens_per_gpu),
        checkpoint_steps=int(checkpoint_steps),
        seed=int(seed),
        validation_steps=int(validation_steps),
    )
    places = Places(
        shards_path=shards.path, base_model=base_model, model_path=model.path, model_uri=model.uri, tracking=tracking
    )
    return train(config, places, nodes)


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def train_sft(
    shards: Input[Dataset],
    base_model: str,
    model: Output[Model],
    learning_rate: float = 1e-5,
    max_tokens_per_gpu: int = 16384,
    checkpoint_steps: int = 100,
    seed: int = 42,
    validation_steps: int = 0,
    num_nodes: str = "",
    gpus_per_node: str = "",
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
        learning_rate: Peak, above 0.
        max_tokens_per_gpu: Tokens of one micro batch at most.
        checkpoint_steps: Steps between two checkpoints.
        seed: Recorded with the run; the weights are the base model's.
        validation_steps: Above 0: a validation run of so many steps, which keeps no model.
        num_nodes: Nodes of a job of the cluster, which this task starts, follows and deletes; empty: train in the
            task's own process.
        gpus_per_node: GPUs, and so processes, of each node of the job; empty: one process without a GPU.
        launcher: `process`, `trainjob` (Kubeflow Trainer) or `pytorchjob` (Training Operator v1); empty: `process`
            without nodes, else what the platform's ConfigMap `mixtune-jobs` says.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The fingerprinted URI of the model's folder; empty for a validation run.

    Raises:
        TrainingError: Loss or gradient is not finite, a validation run diverges, or the job failed.
        ConfigError: An option out of its range, or shards made with another tokenizer.
        ClusterError: The cluster refused, lost or deleted the job.
    """
    from mixtune import storage as files
    from mixtune.train.config import TrainConfig
    from mixtune.train.launcher.nodes import Nodes, train
    from mixtune.train.training import Places

    files.use(storage)
    nodes = Nodes(launcher=launcher, num_nodes=num_nodes, gpus_per_node=gpus_per_node, shards_uri=shards.uri)
    config = TrainConfig(
        method="sft",
        learning_rate=learning_rate,
        max_tokens_per_gpu=int(max_tokens_per_gpu),
        checkpoint_steps=int(checkpoint_steps),
        seed=int(seed),
        validation_steps=int(validation_steps),
    )
    places = Places(
        shards_path=shards.path, base_model=base_model, model_path=model.path, model_uri=model.uri, tracking=tracking
    )
    return train(config, places, nodes)


@dsl.component(base_image=images.TRAIN, packages_to_install=[], install_kfp_package=False)
def clean_up():
    """Delete what is left of this run's training jobs: the exit task of a pipeline that starts any (`dsl.ExitHandler`).

    Jobs are found by the run's id (`MIXTUNE_RUN_ID`, else the pod's label). Outside a cluster there are none, and the
    log says so. KFP lets no output leave an exit handler: a pipeline with outputs relies on the job's owner, the
    run's workflow, and on its deadline.

    Raises:
        ClusterError: The Kubernetes API is away.
    """
    from mixtune.train.launcher import launching

    launching.clean_up()
