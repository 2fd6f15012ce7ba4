"""The flow that the pipelines share: what a run works with, and a method of `Run` for each of its stages."""

from dataclasses import dataclass, field

from kfp import dsl, kubernetes
from kfp.dsl.pipeline_channel import PipelineArtifactChannel, PipelineChannel

from mixtune import images
from mixtune.choose.component import choose_mix, choose_rung, climb, go_on, plan_points
from mixtune.compare.component import compare
from mixtune.evaluate.component import evaluate, sweep_dial
from mixtune.mix_shard.component import mix_shard
from mixtune.outcome.component import record_outcome
from mixtune.preflight.component import fingerprint, preflight
from mixtune.sanitize.component import sanitize
from mixtune.settings.train import VALIDATION_STEPS
from mixtune.step import ENVIRONMENT
from mixtune.train.component import clean_up, restore, train


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run reads from outside, with digests, from `fingerprint`."""

    customer: list
    general: list
    base_model: str
    weights: dict
    benchmarks: dict
    limits: dict
    mix_options: dict
    sanitize_options: dict
    evaluate_options: dict
    model_uri: str
    """Of a model that is trained already; empty: there is none."""
    axes: dict
    """The benchmarks as the user gives them, with their limits."""


@dataclass(frozen=True, kw_only=True)
class Mix:
    """How long is trained on which records."""

    customer_epochs: float
    customer_data_percent: float = 50.0
    max_steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is trained."""

    method: str
    learning_rate: float
    options: dict
    on_error: str = "raise"
    """`report`: a failure is handed on in place of the model's URI, and the run goes on."""


@dataclass(frozen=True, kw_only=True)
class Pools:
    """The tasks that sanitize both sides of a mix."""

    general: dsl.PipelineTask
    customer: dsl.PipelineTask


@dataclass(frozen=True, kw_only=True)
class Run:
    """The services and machines that all tasks of a run use, and a method that adds the tasks of each stage."""

    seed: int
    storage: dict
    data_cpu: str
    data_memory: str
    num_nodes: str = ""
    gpus_per_node: str = ""
    tracking: dict = field(default_factory=dict)
    sanitize_options: dict = field(default_factory=dict)
    evaluate_options: dict = field(default_factory=dict)

    def fingerprint(
        self,
        customer_uri: str,
        customer_columns: dict,
        test_uri: str,
        general_pools: list,
        benchmarks: dict,
        base_model: str,
        mix_options: dict = {},
        model_uri: str = "",
    ) -> Inputs:
        """Add digests to everything that the run reads, so that later tasks are cached under what they really read."""
        task = fingerprint(
            customer_uri=customer_uri,
            customer_columns=customer_columns,
            test_uri=test_uri,
            general_pools=general_pools,
            benchmarks=benchmarks,
            base_model=base_model,
            mix_options=mix_options,
            sanitize_options=self.sanitize_options,
            evaluate_options=self.evaluate_options,
            model_uri=model_uri,
            storage=self.storage,
        )
        return Inputs(**on_cluster(task, cached=False).outputs, axes=benchmarks)

    def preflight(self, inputs: Inputs, mix: Mix, training: Training, percents: list = []) -> dsl.PipelineTask:
        """Check the run before anything is computed; `percents` are those of a grid, in place of the mix's."""
        task = preflight(
            base_model=inputs.base_model,
            weights=inputs.weights,
            sources=inputs.customer,
            general=inputs.general,
            customer_data_percent=mix.customer_data_percent,
            customer_data_percents=percents,
            customer_epochs=mix.customer_epochs,
            max_steps=mix.max_steps,
            mix_options=inputs.mix_options,
            method=training.method,
            learning_rate=training.learning_rate,
            train_options=training.options,
            sanitize_options=inputs.sanitize_options,
            evaluate_options=inputs.evaluate_options,
            benchmarks=inputs.axes,
            seed=self.seed,
            num_nodes=self.num_nodes,
            gpus_per_node=self.gpus_per_node,
            data_memory=self.data_memory,
            tracking=self.tracking,
            storage=self.storage,
        )
        return with_images(on_cluster(task, cached=False))

    def sanitize(self, inputs: Inputs, *after: dsl.PipelineTask) -> Pools:
        """Clean the general pools; then the customer's, which loses what stands in them or in a benchmark."""
        general = sanitize(
            sources=inputs.general,
            benchmarks=inputs.benchmarks,
            base_model=inputs.base_model,
            splits={"test_ratio": 0.0, "validation_ratio": 0.0},
            consent={"required": False},
            options=inputs.sanitize_options,
            seed=self.seed,
            storage=self.storage,
        )
        customer = sanitize(
            sources=inputs.customer,
            against=general.outputs["pools"],
            benchmarks=inputs.benchmarks,
            base_model=inputs.base_model,
            splits={"holdout_records": 0},
            options=inputs.sanitize_options,
            seed=self.seed,
            storage=self.storage,
        )
        general.set_display_name("sanitize-general").after(*after)
        customer.set_display_name("sanitize-customer")
        return Pools(general=self._on_data_machine(general), customer=self._on_data_machine(customer))

    def mix(self, pools: Pools, inputs: Inputs, mix: Mix) -> dsl.PipelineTask:
        """Decide the training order, tokenize the records and write them as shards."""
        task = mix_shard(
            customer=pools.customer.outputs["pools"],
            general=pools.general.outputs["pools"],
            base_model=inputs.base_model,
            weights=inputs.weights,
            customer_data_percent=mix.customer_data_percent,
            customer_epochs=mix.customer_epochs,
            max_steps=mix.max_steps,
            options=inputs.mix_options,
            seed=self.seed,
            storage=self.storage,
        )
        return self._on_data_machine(task)

    def train(self, mixed: dsl.PipelineTask, inputs: Inputs, training: Training) -> str:
        """Train once the mixed data passed its checks and a validation run went well; return the model's URI."""
        validation = self._train(mixed, inputs, training, validation_steps=VALIDATION_STEPS)
        validation.set_display_name("validate-training")
        task = self._train(mixed, inputs, training, validated=validation.outputs["Output"])
        return task.set_display_name("train").outputs["Output"]

    def _train(
        self,
        mixed: dsl.PipelineTask,
        inputs: Inputs,
        training: Training,
        validation_steps: int = 0,
        validated: str = "",
    ) -> dsl.PipelineTask:
        task = train(
            shards=mixed.outputs["shards"],
            base_model=inputs.base_model,
            method=training.method,
            learning_rate=training.learning_rate,
            train_options=training.options,
            on_error=training.on_error,
            validation_steps=validation_steps,
            validated=validated,
            seed=self.seed,
            num_nodes=self.num_nodes,
            gpus_per_node=self.gpus_per_node,
            tracking=self.tracking,
            storage=self.storage,
        )
        return with_run_id(on_cluster(task))

    def restore(self, mixed: dsl.PipelineTask, inputs: Inputs, training: Training, model_uri: str) -> str:
        """Draw a trained model back towards its base; return the restored model's URI."""
        task = restore(
            shards=mixed.outputs["shards"],
            base_model=inputs.base_model,
            model_uri=model_uri,
            method=training.method,
            learning_rate=training.learning_rate,
            train_options=training.options,
            seed=self.seed,
            num_nodes=self.num_nodes,
            gpus_per_node=self.gpus_per_node,
            tracking=self.tracking,
            storage=self.storage,
        )
        return with_run_id(on_cluster(task)).outputs["Output"]

    def evaluate(self, pools: Pools, inputs: Inputs, model_uri: str = "") -> dsl.PipelineTask:
        """Evaluate the base model, or a tuned one, on all axes."""
        task = evaluate(
            base_model=inputs.base_model,
            model_uri=model_uri,
            customer=pools.customer.outputs["pools"],
            general=pools.general.outputs["pools"],
            benchmarks=inputs.benchmarks,
            options=inputs.evaluate_options,
            storage=self.storage,
        )
        return self._on_gpus(task.set_display_name("evaluate-candidate" if model_uri else "evaluate-base"))

    def sweep(self, pools: Pools, inputs: Inputs, model_uri: str, strengths: list) -> dsl.PipelineTask:
        """Evaluate a tuned model at lower strengths."""
        task = sweep_dial(
            base_model=inputs.base_model,
            model_uri=model_uri,
            strengths=strengths,
            customer=pools.customer.outputs["pools"],
            general=pools.general.outputs["pools"],
            benchmarks=inputs.benchmarks,
            options=inputs.evaluate_options,
            storage=self.storage,
        )
        return self._on_gpus(task)

    def compare(
        self,
        base: dsl.PipelineTask,
        candidate: dsl.PipelineTask,
        inputs: Inputs,
        mixed: dsl.PipelineTask | None = None,
        swept: dsl.PipelineTask | None = None,
        earlier: dsl.PipelineTask | None = None,
    ) -> dsl.PipelineTask:
        """Compare a candidate's evaluation with the base model's, item by item, and decide."""
        before = {"earlier": earlier.outputs["samples"]} if earlier else {}
        shards = {"shards": mixed.outputs["shards"]} if mixed else {}
        dial = {"dial": swept.outputs["dial"]} if swept else {}
        task = compare(
            base=base.outputs["samples"],
            candidate=candidate.outputs["samples"],
            limits=inputs.limits,
            tracking=self.tracking,
            storage=self.storage,
            **shards,
            **dial,
            **before,
        )
        return with_run_id(on_cluster(task, cached=False))

    def plan_points(self, inputs: Inputs, percents: list, dial: list) -> dsl.PipelineTask:
        """Make the points of a grid, each with all that its tasks take from `fingerprint`."""
        task = plan_points(
            customer_data_percents=percents,
            base_model=inputs.base_model,
            weights=inputs.weights,
            benchmarks=inputs.benchmarks,
            limits=inputs.limits,
            mix_options=inputs.mix_options,
            evaluate_options=inputs.evaluate_options,
            dial=dial,
        )
        return on_cluster(task)

    def choose_mix(self, comparisons: PipelineArtifactChannel) -> dsl.PipelineTask:
        """Lay the comparisons of a grid side by side and name the mix to take."""
        task = choose_mix(comparisons=dsl.Collected(comparisons), tracking=self.tracking, storage=self.storage)
        return with_run_id(on_cluster(task, cached=False))

    def climb(
        self, decision: dsl.PipelineTask, training: Training, earlier: str, customer_target: float, sft_max_steps: int
    ) -> dsl.PipelineTask:
        """Add a candidate to a ladder and say what comes next."""
        task = climb(
            comparison=decision.outputs["comparison"],
            method=training.method,
            train_options=training.options,
            earlier=earlier,
            customer_target=customer_target,
            sft_max_steps=sft_max_steps,
            storage=self.storage,
        )
        return on_cluster(task, cached=False)

    def choose_rung(self, ladder_uri: str) -> dsl.PipelineTask:
        """Compare the candidates of a ladder and name the one to take."""
        task = choose_rung(ladder_uri=ladder_uri, tracking=self.tracking, storage=self.storage)
        return with_run_id(on_cluster(task, cached=False))

    def record(self, pipeline: str, comparison: PipelineArtifactChannel) -> dsl.PipelineTask:
        """Write audit record and cost, and tell the webhook. A run that failed does not reach this."""
        task = record_outcome(comparison=comparison, pipeline=pipeline, tracking=self.tracking, storage=self.storage)
        kubernetes.use_secret_as_volume(task, "mixtune-webhook", mount_path="/etc/mixtune/webhook", optional=True)
        return with_images(with_run_id(on_cluster(task, cached=False)))

    def _on_data_machine(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Reserve CPUs and memory for a task that works on records; it may use more where the node has more."""
        task.set_cpu_request(self.data_cpu).set_memory_request(self.data_memory)
        return on_cluster(hand_in(task, self.data_cpu, self.data_memory))

    def _on_gpus(self, task: dsl.PipelineTask) -> dsl.PipelineTask:
        """Reserve as many GPUs as `gpus_per_node` says; empty: none."""
        task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(self.gpus_per_node)
        kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")
        return on_cluster(hand_in(task, self.gpus_per_node))


STEP = ("action", "customer_data_percent", "train_options", "ladder_uri")
"""What `climb` says of the next candidate of a ladder."""


def hand_on(*step: str | dict) -> dsl.PipelineTask:
    """End or join branches of a ladder: hand on the outputs `STEP`.

    The back end takes a branch for done when a task of its own ends last, which a task from the cache is not.
    """
    return on_cluster(go_on(**dict(zip(STEP, step, strict=True))), cached=False)


def clean_up_at_end() -> dsl.ExitHandler:
    """Let `clean_up` follow on all tasks inside, whether the run succeeds, fails or is stopped.

    KFP lets no output leave an exit handler: verdict and model stand in the comparison that `compare` writes.
    """
    return dsl.ExitHandler(with_run_id(clean_up()).set_caching_options(False), name="run")


def on_cluster(task: dsl.PipelineTask, *, cached: bool = True) -> dsl.PipelineTask:
    """Give a task what all have: retries, and, where it opens files or services, the namespace's settings and secrets.

    Its step makes its environment of them (`mixtune.step`): as variables of the pod, each would stand in Argo's object
    six times a task.
    Argo counts `backoff_max_duration` from the first attempt's start, a training's hours included.
    """
    task.set_retry(2, backoff_duration="30s", backoff_factor=2.0, backoff_max_duration="4w")
    if "storage" in (task.component_spec.inputs or {}):
        kubernetes.use_config_map_as_volume(task, "mixtune-env", ENVIRONMENT[0], optional=True)
        kubernetes.use_secret_as_volume(task, "mixtune-secrets", ENVIRONMENT[1], optional=True)
    return task if cached else task.set_caching_options(False)


def hand_in(task: dsl.PipelineTask, *values: str) -> dsl.PipelineTask:
    """Hand parameters that a task's resources name into the sub-graph that it lies in, which KFP's compiler omits."""
    task.register_pipeline_channels([value for value in values if isinstance(value, PipelineChannel)])
    return task


def with_run_id(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Let a task find the run's parent in MLflow, by the pod's label."""
    return kubernetes.use_field_path_as_env(task, "MIXTUNE_RUN_ID", "metadata.labels['pipeline/runid']")


def with_images(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Tell a task the run's images, to be recorded: `mixtune submit` pins these names as it does all."""
    return task.set_env_variable("MIXTUNE_IMAGES", " ".join((images.DATA, images.TRAIN, images.EVALUATE)))
