"""The flow that the pipelines share: what a run works with, and a method of `Run` for each of its stages."""

from dataclasses import dataclass, field, fields, replace
from typing import Self

from kfp import dsl, kubernetes
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.for_loop import LoopParameterArgument
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

    def of_point(self, point: LoopParameterArgument) -> "Inputs":
        """Return those of a point of a loop: KFP's local runner lets no other task's parameter in, so it holds them."""
        names = ("base_model", "weights", "benchmarks", "limits", "mix_options", "evaluate_options")
        return replace(self, **{name: getattr(point, name) for name in names})


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
        """What they leave, by the input of the tasks that take both."""
        return {"general": self.general.outputs["pools"], "customer": self.customer.outputs["pools"]}


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

    @classmethod
    def of(cls, parameters: dict) -> Self:
        """Take from a pipeline's parameters, its `locals()`, those that all its tasks share."""
        return cls(**{item.name: parameters[item.name] for item in fields(cls) if item.name in parameters})

    def task(self, component: BaseComponent, *parts: Inputs | Mix | Training, **own: object) -> dsl.PipelineTask:
        """Make a task: what its component takes comes by name from `own`, else from the parts, else from the run."""
        values = {name: value for part in (self, *parts) for name, value in vars(part).items()}
        by_name = {name: values[name] for name in component.component_spec.inputs if name in values}
        return component(**{**by_name, **own})

    def fingerprint(self, parameters: dict, **changes: str) -> Inputs:
        """Add digests to everything that the run reads, so that later tasks are cached under what they really read.

        `parameters` are the pipeline's; `changes` take the place of some.
        """
        by_name = {name: parameters[name] for name in fingerprint.component_spec.inputs if name in parameters}
        return Inputs(**on_cluster(fingerprint(**{**by_name, **changes}), cached=False).outputs)

    def preflight(self, inputs: Inputs, mix: Mix, training: Training, percents: list = []) -> dsl.PipelineTask:
        """Check the run before anything is computed; `percents` are those of a grid, in place of the mix's."""
        task = self.task(preflight, inputs, mix, training, sources=inputs.customer, customer_data_percents=percents)
        return with_images(on_cluster(task, cached=False))

    def sanitize(self, inputs: Inputs, *after: dsl.PipelineTask) -> Pools:
        """Clean the general pools; then the customer's, which loses what stands in them or in a benchmark."""
        options = {"options": inputs.sanitize_options}
        unsplit = {"test_ratio": 0.0, "validation_ratio": 0.0}
        general = self.task(
            sanitize, inputs, sources=inputs.general, splits=unsplit, consent={"required": False}, **options
        )
        against, splits = general.outputs["pools"], {"holdout_records": 0}
        customer = self.task(sanitize, inputs, sources=inputs.customer, against=against, splits=splits, **options)
        general.set_display_name("sanitize-general").after(*after)
        customer.set_display_name("sanitize-customer")
        return Pools(general=self._on_data_machine(general), customer=self._on_data_machine(customer))

    def mix(self, pools: Pools, inputs: Inputs, mix: Mix) -> dsl.PipelineTask:
        """Decide the training order, tokenize the records and write them as shards."""
        return self._on_data_machine(self.task(mix_shard, inputs, mix, options=inputs.mix_options, **pools.outputs))

    def train(self, mixed: dsl.PipelineTask, inputs: Inputs, training: Training) -> str:
        """Train once the mixed data passed its checks and a validation run went well; return the model's URI."""
        shards = {"shards": mixed.outputs["shards"]}
        validation = self.task(train, inputs, training, validation_steps=VALIDATION_STEPS, validated="", **shards)
        validated = with_run_id(on_cluster(validation.set_display_name("validate-training"))).outputs["Output"]
        task = self.task(train, inputs, training, validation_steps=0, validated=validated, **shards)
        return with_run_id(on_cluster(task.set_display_name("train"))).outputs["Output"]

    def restore(self, mixed: dsl.PipelineTask, inputs: Inputs, training: Training) -> str:
        """Draw the trained model of the inputs back towards its base; return the restored model's URI."""
        task = self.task(restore, inputs, training, shards=mixed.outputs["shards"])
        return with_run_id(on_cluster(task)).outputs["Output"]

    def evaluate(self, pools: Pools, inputs: Inputs, model_uri: str = "") -> dsl.PipelineTask:
        """Evaluate the base model, or a tuned one, on all axes."""
        options = inputs.evaluate_options
        task = self.task(evaluate, inputs, model_uri=model_uri, options=options, **pools.outputs)
        return self._on_gpus(task.set_display_name("evaluate-candidate" if model_uri else "evaluate-base"))

    def sweep(self, pools: Pools, inputs: Inputs, model_uri: str, strengths: list) -> dsl.PipelineTask:
        """Evaluate a tuned model at lower strengths."""
        own = {"model_uri": model_uri, "strengths": strengths, "options": inputs.evaluate_options}
        return self._on_gpus(self.task(sweep_dial, inputs, **own, **pools.outputs))

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
        own = {"base": base.outputs["samples"], "candidate": candidate.outputs["samples"]}
        own |= {"shards": mixed.outputs["shards"]} if mixed else {}
        own |= {"dial": swept.outputs["dial"]} if swept else {}
        own |= {"earlier": earlier.outputs["samples"]} if earlier else {}
        return with_run_id(on_cluster(self.task(compare, inputs, **own), cached=False))

    def plan_points(self, inputs: Inputs, percents: list, dial: list) -> dsl.PipelineTask:
        """Make the points of a grid, each with all that its tasks take from `fingerprint`."""
        return on_cluster(self.task(plan_points, inputs, customer_data_percents=percents, dial=dial))

    def choose_mix(self, comparisons: PipelineArtifactChannel) -> dsl.PipelineTask:
        """Lay the comparisons of a grid side by side and name the mix to take."""
        task = self.task(choose_mix, comparisons=dsl.Collected(comparisons))
        return with_run_id(on_cluster(task, cached=False))

    def climb(self, decision: dsl.PipelineTask, training: Training, earlier: str, goal: dict) -> dsl.PipelineTask:
        """Add a candidate to a ladder and say what comes next; the goal is `customer_target` and `sft_max_steps`."""
        task = self.task(climb, training, comparison=decision.outputs["comparison"], earlier=earlier, **goal)
        return on_cluster(task, cached=False)

    def choose_rung(self, ladder_uri: str) -> dsl.PipelineTask:
        """Lay the candidates of a ladder side by side and name the one to take."""
        return with_run_id(on_cluster(self.task(choose_rung, ladder_uri=ladder_uri), cached=False))

    def record(self, pipeline: str, comparison: PipelineArtifactChannel) -> dsl.PipelineTask:
        """Write audit record and cost, and tell the webhook. A run that failed does not reach this."""
        task = self.task(record_outcome, comparison=comparison, pipeline=pipeline)
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
