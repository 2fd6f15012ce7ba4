"""The flow that the pipelines share: what a run works with, and a method of `Run` for each of its stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.base_component import BaseComponent
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
    train_options: dict
    on_error: str = "raise"
    """`report`: a failure is handed on in place of the model's URI, and the run goes on."""


@dataclass(frozen=True, kw_only=True)
class Pools:
    """The tasks that sanitize both sides of a mix."""

    general: dsl.PipelineTask
    customer: dsl.PipelineTask

    @property
    def outputs(self) -> dict:
        """Both sides' pools."""
        return {"customer": self.customer.outputs["pools"], "general": self.general.outputs["pools"]}


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

    def fingerprint(self, parameters: Mapping[str, Any], **own: str) -> Inputs:
        """Add digests to everything that the run reads, so that later tasks are cached under what they really read.

        `parameters` are the pipeline's, by name; `own` stand in place of some.
        """
        values = {"mix_options": {}, "model_uri": "", **vars(self), **parameters, **own}
        task = fingerprint(**{name: values[name] for name in fingerprint.component_spec.inputs})
        return Inputs(**on_cluster(task, cached=False).outputs)

    def preflight(self, inputs: Inputs, mix: Mix, training: Training, percents: list = []) -> dsl.PipelineTask:
        """Check the run before anything is computed; `percents` are those of a grid, in place of the mix's."""
        task = add(preflight, self, inputs, mix, training, sources=inputs.customer, customer_data_percents=percents)
        return with_images(on_cluster(task, cached=False))

    def sanitize(self, inputs: Inputs, *after: dsl.PipelineTask) -> Pools:
        """Clean the general pools; then the customer's, which loses what stands in them or in a benchmark."""
        general = add(
            sanitize,
            self,
            inputs,
            sources=inputs.general,
            splits={"test_ratio": 0.0, "validation_ratio": 0.0},
            consent={"required": False},
            options=inputs.sanitize_options,
        )
        customer = add(
            sanitize,
            self,
            inputs,
            sources=inputs.customer,
            against=general.outputs["pools"],
            splits={"holdout_records": 0},
            options=inputs.sanitize_options,
        )
        general.set_display_name("sanitize-general").after(*after)
        customer.set_display_name("sanitize-customer")
        return Pools(general=self._on_data_machine(general), customer=self._on_data_machine(customer))

    def mix(self, pools: Pools, inputs: Inputs, mix: Mix) -> dsl.PipelineTask:
        """Decide the training order, tokenize the records and write them as shards."""
        task = add(mix_shard, self, inputs, mix, **pools.outputs, options=inputs.mix_options)
        return self._on_data_machine(task)

    def train(self, mixed: dsl.PipelineTask, inputs: Inputs, training: Training) -> str:
        """Train once the mixed data passed its checks and a validation run went well; return the model's URI."""
        validation = self._train(mixed, inputs, training, VALIDATION_STEPS)
        validation.set_display_name("validate-training")
        task = self._train(mixed, inputs, training, validated=validation.outputs["Output"])
        return task.set_display_name("train").outputs["Output"]

    def _train(
        self, mixed: dsl.PipelineTask, inputs: Inputs, training: Training, steps: int = 0, validated: str = ""
    ) -> dsl.PipelineTask:
        further = {"validation_steps": steps, "validated": validated}
        return with_run_id(on_cluster(add(train, self, inputs, training, shards=mixed.outputs["shards"], **further)))

    def restore(self, mixed: dsl.PipelineTask, inputs: Inputs, training: Training, model_uri: str) -> str:
        """Draw a trained model back towards its base; return the restored model's URI."""
        task = add(restore, self, inputs, training, shards=mixed.outputs["shards"], model_uri=model_uri)
        return with_run_id(on_cluster(task)).outputs["Output"]

    def evaluate(self, pools: Pools, inputs: Inputs, model_uri: str = "") -> dsl.PipelineTask:
        """Evaluate the base model, or a tuned one, on all axes."""
        task = add(evaluate, self, inputs, **pools.outputs, model_uri=model_uri, options=inputs.evaluate_options)
        return self._on_gpus(task.set_display_name("evaluate-candidate" if model_uri else "evaluate-base"))

    def sweep(self, pools: Pools, inputs: Inputs, model_uri: str, strengths: list) -> dsl.PipelineTask:
        """Evaluate a tuned model at lower strengths."""
        further = {"strengths": strengths, "options": inputs.evaluate_options}
        task = add(sweep_dial, self, inputs, **pools.outputs, model_uri=model_uri, **further)
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
        artifacts = {
            "shards": mixed and mixed.outputs["shards"],
            "dial": swept and swept.outputs["dial"],
            "earlier": earlier and earlier.outputs["samples"],
        }
        task = add(
            compare,
            self,
            inputs,
            base=base.outputs["samples"],
            candidate=candidate.outputs["samples"],
            **{name: artifact for name, artifact in artifacts.items() if artifact},
        )
        return with_run_id(on_cluster(task, cached=False))

    def plan_points(self, inputs: Inputs, percents: list, dial: list) -> dsl.PipelineTask:
        """Make the points of a grid, each with all that its tasks take from `fingerprint`."""
        return on_cluster(add(plan_points, inputs, customer_data_percents=percents, dial=dial))

    def choose_mix(self, comparisons: PipelineArtifactChannel) -> dsl.PipelineTask:
        """Lay the comparisons of a grid side by side and name the mix to take."""
        task = add(choose_mix, self, comparisons=dsl.Collected(comparisons))
        return with_run_id(on_cluster(task, cached=False))

    def climb(self, decision: dsl.PipelineTask, training: Training, **ladder: object) -> dsl.PipelineTask:
        """Add a candidate to a ladder (`earlier`, `customer_target`, `sft_max_steps`) and say what comes next."""
        task = add(climb, self, training, comparison=decision.outputs["comparison"], **ladder)
        return on_cluster(task, cached=False)

    def choose_rung(self, ladder_uri: str) -> dsl.PipelineTask:
        """Lay the candidates of a ladder side by side and name the one to take."""
        task = add(choose_rung, self, ladder_uri=ladder_uri)
        return with_run_id(on_cluster(task, cached=False))

    def record(self, pipeline: str, comparison: PipelineArtifactChannel) -> dsl.PipelineTask:
        """Write audit record and cost, and tell the webhook. A run that failed does not reach this."""
        task = add(record_outcome, self, comparison=comparison, pipeline=pipeline)
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


def add(component: BaseComponent, *holders: object, **own: object) -> dsl.PipelineTask:
    """Make a task: an input that is not its `own` takes the value of that name that a holder has, the last first."""
    values = {name: value for holder in holders for name, value in vars(holder).items()}
    return component(**{name: values[name] for name in component.component_spec.inputs if name in values} | own)


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
