"""The steps that several pipelines share: look ahead, sanitize, mix, validate and train, evaluate, compare, end."""

import functools
from collections.abc import Callable
from typing import Any

from kfp import dsl, kubernetes

from mixtune import images
from mixtune.compare.component import compare
from mixtune.evaluate.component import evaluate
from mixtune.mix_shard.component import mix_shard
from mixtune.outcome.component import record_outcome
from mixtune.preflight.component import preflight, preflight_mixed
from mixtune.sanitize.component import sanitize
from mixtune.train.component import clean_up

VALIDATION_STEPS = 5
HOLDOUT_RECORDS = 200
"""General records held back from every pool, on which forgetting is measured."""


def check_run(inputs: dsl.PipelineTask, **settings: Any) -> dsl.PipelineTask:
    """Look at a run before anything is computed, always anew; `settings` are the others of `preflight`."""
    named = {name: inputs.outputs[name] for name in ("base_model", "weights", "general")}
    task = preflight(sources=inputs.outputs["customer"], **named, **settings)
    return with_images(task.set_caching_options(False))


def check_mix(mixed: dsl.PipelineTask, **settings: Any) -> dsl.PipelineTask:
    """Look at mixed data before a GPU is asked for, always anew; `settings` are the others of `preflight_mixed`."""
    return with_images(preflight_mixed(shards=mixed.outputs["shards"], **settings).set_caching_options(False))


def sanitize_pools(inputs: dsl.PipelineTask, seed: Any, storage: Any) -> tuple[dsl.PipelineTask, dsl.PipelineTask]:
    """General pools first; the customer's pool then loses what stands in them or in a benchmark.

    Args:
        inputs: The `fingerprint` task.
        seed: Of the splits.
        storage: Of `s3://` data.

    Returns:
        The tasks `sanitize-general` and `sanitize-customer`.
    """
    common = {
        "benchmarks": inputs.outputs["benchmarks"],
        "base_model": inputs.outputs["base_model"],
        "seed": seed,
        "storage": storage,
    }
    general = sanitize(
        sources=inputs.outputs["general"], test_ratio=0.0, holdout_records=HOLDOUT_RECORDS, **common
    ).set_display_name("sanitize-general")
    customer = sanitize(
        sources=inputs.outputs["customer"], against=general.outputs["pools"], **common
    ).set_display_name("sanitize-customer")
    for task in (general, customer):
        data_resources(task)
    return general, customer


def mix_pools(general: dsl.PipelineTask, customer: dsl.PipelineTask, **inputs: Any) -> dsl.PipelineTask:
    """Mix what both tasks of `sanitize_pools` left; `inputs` are the others of `mix_shard`."""
    task = mix_shard(customer=customer.outputs["pools"], general=general.outputs["pools"], **inputs)
    data_resources(task)
    return task


def data_resources(task: dsl.PipelineTask) -> None:
    """What a task that works on records asks for."""
    task.set_cpu_request("4").set_memory_request("16G")


def train(
    component: Callable[..., dsl.PipelineTask], checks: dsl.PipelineTask | None = None, **inputs: Any
) -> dsl.PipelineTask:
    """A validation run of five steps, and the training once that went well.

    Args:
        component: `train_lora` or `train_sft`.
        checks: What must have gone well before.
        inputs: Of both.

    Returns:
        The training; its `Output` is the model's URI.
    """
    validation = component(validation_steps=VALIDATION_STEPS, **inputs).set_display_name("validate-training")
    training = component(validated=validation.outputs["Output"], **inputs).set_display_name("train")
    if checks:
        validation.after(checks)
    with_run_id(validation)
    return with_run_id(training)


def evaluate_model(
    base_model: Any,
    benchmarks: Any,
    general: dsl.PipelineTask,
    customer: dsl.PipelineTask,
    gpus: Any,
    storage: Any,
    model_uri: Any = "",
) -> dsl.PipelineTask:
    """Evaluate the base model, or a tuned one, on all axes.

    Args:
        base_model: From `fingerprint`.
        benchmarks: From `fingerprint`.
        general: The task that sanitized the general pools.
        customer: The task that sanitized the customer's pool.
        gpus: Number of GPUs as text; empty: none.
        storage: Of `s3://` data.
        model_uri: The tuned model; empty: the base model.
    """
    pools = {"customer": customer.outputs["pools"], "general": general.outputs["pools"]}
    task = evaluate(base_model=base_model, benchmarks=benchmarks, model_uri=model_uri, storage=storage, **pools)
    return on_gpus(task.set_display_name("evaluate-candidate" if model_uri else "evaluate-base"), gpus)


def on_gpus(task: dsl.PipelineTask, gpus: Any) -> dsl.PipelineTask:
    """Let a task ask for GPUs, as many as a text says; empty: none."""
    task.set_accelerator_type("nvidia.com/gpu").set_accelerator_limit(gpus)
    return kubernetes.add_toleration(task, key="nvidia.com/gpu", operator="Exists", effect="NoSchedule")


def compare_models(base: dsl.PipelineTask, candidate: dsl.PipelineTask, **inputs: Any) -> dsl.PipelineTask:
    """Compare both tasks of `evaluate_model`, always anew; `inputs` are the others of `compare`."""
    task = compare(base=base.outputs["samples"], candidate=candidate.outputs["samples"], **inputs)
    return with_run_id(task.set_caching_options(False))


def with_run_id(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Let a task find the run's parent in MLflow, by the pod's label."""
    kubernetes.use_field_path_as_env(task, "MIXTUNE_RUN_ID", "metadata.labels['pipeline/runid']")
    return task


def with_clean_up(pipeline: Callable[..., Any]) -> Callable[..., None]:
    """Let the task `clean_up` follow on all of a pipeline's tasks, whether the run succeeds, fails or is stopped.

    KFP lets no output leave an exit handler, so the pipeline that comes back has none: its verdict and its model stand
    in the comparison that `compare` writes.
    """

    @functools.wraps(pipeline)
    def cleaned(*args: Any, **values: Any) -> None:
        task = with_run_id(clean_up()).set_caching_options(False)
        with dsl.ExitHandler(task, name="run"):
            pipeline(*args, **values)

    return cleaned


def with_images(task: dsl.PipelineTask) -> dsl.PipelineTask:
    """Tell a task the run's images, so that it can record them: `mixtune submit` pins these names as it does all."""
    return task.set_env_variable("MIXTUNE_IMAGES", " ".join((images.DATA, images.TRAIN, images.EVALUATE)))


def end_run(pipeline: str, found: Any, tracking: Any, storage: Any) -> dsl.PipelineTask:
    """The last task: audit record, cost, webhook. A run that failed does not reach it; `mixtune follow` tells then.

    Args:
        pipeline: Name, for the message.
        found: The artifact that decides on the run: of `compare`, `choose_mix` or `choose_rung`.
        tracking: MLflow.
        storage: Of `s3://` data.
    """
    task = record_outcome(comparison=found, pipeline=pipeline, tracking=tracking, storage=storage)
    kubernetes.use_secret_as_volume(task, "mixtune-webhook", mount_path="/etc/mixtune/webhook", optional=True)
    return with_images(with_run_id(task.set_caching_options(False)))
