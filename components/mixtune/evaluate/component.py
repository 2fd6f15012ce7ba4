"""The components `evaluate` and `sweep_dial`."""

from kfp import dsl
from kfp.dsl import HTML, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Output

from mixtune import images


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def evaluate(
    base_model: str,
    customer: Input[Dataset],
    general: Input[Dataset],
    samples: Output[Dataset],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    report: Output[HTML],
    summary: Output[Markdown],
    model_uri: str = "",
    benchmarks: dict = {},
    options: dict = {},
    storage: dict = {},
):
    """Evaluate one model on several axes, item by item.

    Axes: `customer` (split `test` of the customer's pools), `general_nll` (split `holdout` of the general pools) and
    whatever `benchmarks` names. Run it on the base model and on the candidate, then `compare`. An evaluation that
    was interrupted goes on where it stopped when the task is retried.

    Args:
        base_model: Folder, `s3://` prefix or `org/name@revision`, possibly with `#digest`.
        customer: Pools artifact of the customer's records.
        general: Pools artifact of the general records.
        samples: One row per item, Parquet per axis.
        metrics: The axes' scores.
        confusion: Given label by true label, for classification with up to 100 labels.
        report: Scores and identity, one HTML page.
        summary: The same as Markdown.
        model_uri: Empty: the base model itself; else a folder or `s3://` prefix with an adapter or a whole model; the
            `failed: ...` of a training is passed on to `compare`.
        benchmarks: Per axis `uri` (a file or folder, local, `s3://` or `hf://datasets/org/name@revision/path`; Parquet,
            JSONL, JSON or CSV) and options: `{"mmlu": {"uri": ..., "num_fewshot": 5}, "ifeval": {"uri": ...,
            "max_new_tokens": 1280}}`; another name says its `form`: one of these two, `gsm8k`,
            `math`, `multiple_choice`, `tool_calls`, `refusals`, `thinking`, `long_context`,
            `short_answers`, or `lm_eval` with the `task`.
        options: Further settings by name, such as `limit` (items per axis at most; 0: all), `axis_limits`, `thinking`,
            `engine` ("transformers", "vllm" or "endpoint"), `gpus_per_model`, `dtype`, `chat` (how conversations are
            rendered, as in `mix_shard`) and `customer_options`: `EvaluateSettings` in docs/settings.md has all.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        ModelError: The model cannot be loaded, or the adapter changes nothing.
        DataError: An input is not whole, or a benchmark's row is not of its form.
        ConfigError: An unknown option.
    """
    from mixtune import storage as files
    from mixtune.evaluate.named_benchmarks import parse_benchmarks
    from mixtune.evaluate.run import Inputs, run
    from mixtune.report.metrics_artifact import write_metrics
    from mixtune.report.outputs import Outputs
    from mixtune.settings.from_dict import from_dict
    from mixtune.settings.inference import EvaluateSettings

    files.configure_storage(storage)
    paths = {"customer_path": customer.path, "general_path": general.path}
    inputs = Inputs(base_model=base_model, model_uri=model_uri, **paths, benchmarks=parse_benchmarks(benchmarks))
    outputs = Outputs(
        json_path=samples.path,
        data_uri=files.data_uri(samples.uri, "samples"),
        html_path=report.path,
        markdown_path=summary.path,
    )
    evaluation = run(from_dict(EvaluateSettings, options, "options"), inputs, outputs)
    write_metrics(metrics, evaluation.metrics)
    confusion.log_confusion_matrix(list(evaluation.labels), evaluation.confusion)
    # KFP keeps it as metadata; its local cache forgets a task of whose artifacts one has no file.
    files.write_json(confusion.path, list(evaluation.labels))


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def sweep_dial(
    base_model: str,
    customer: Input[Dataset],
    general: Input[Dataset],
    model_uri: str,
    dial: Output[Dataset],
    strengths: list = [],
    benchmarks: dict = {},
    options: dict = {},
    storage: dict = {},
):
    """Evaluate a tuned model at lower strengths, without training: what it forgets against what it gains.

    A LoRA adapter is scaled; whole weights are drawn towards the base's (WiSE-FT, Wortsman et al. 2022). Every
    strength is evaluated on the axes and by the options of `evaluate`; `compare` decides on each. A strength that
    cannot be evaluated is noted, and fails nothing.

    Args:
        base_model: Folder, `s3://` prefix or `org/name@revision`, possibly with `#digest`.
        customer: Pools artifact of the customer's records.
        general: Pools artifact of the general records.
        model_uri: Folder or `s3://` prefix with an adapter or a whole model; of the `failed: ...` of a training nothing
            is evaluated.
        dial: The samples of every strength, for `compare`.
        strengths: Each above 0 (the base) and below 1 (as trained), such as `[0.5]`; empty: none.
        benchmarks: As for `evaluate`.
        options: As for `evaluate`.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        ConfigError: A strength out of range.
    """
    from mixtune import storage as files
    from mixtune.evaluate.named_benchmarks import parse_benchmarks
    from mixtune.evaluate.run import Inputs, sweep
    from mixtune.settings.from_dict import from_dict
    from mixtune.settings.inference import EvaluateSettings

    files.configure_storage(storage)
    paths = {"customer_path": customer.path, "general_path": general.path}
    inputs = Inputs(base_model=base_model, model_uri=model_uri, **paths, benchmarks=parse_benchmarks(benchmarks))
    settings = from_dict(EvaluateSettings, options, "options")
    sweep(settings, inputs, strengths, dial.path, files.data_uri(dial.uri, "dial"))
