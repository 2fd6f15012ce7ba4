"""The shells of `evaluate`, `sweep_dial`, `judge`, `compare` and `rehearse`."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Output

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
    limit: int = 0,
    customer_options: dict = {},
    dtype: str = "auto",
    engine: str = "transformers",
    gpus_per_model: int = 1,
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
            "max_new_tokens": 1280}}`; another name says its `form`: `mmlu`, `ifeval`, or `lm_eval` with the `task`.
        limit: Items per axis at most, taken evenly from subjects, pools and labels; 0: all.
        customer_options: How the customer's records are scored: `method` (`auto`, `logprobs`, `generation`),
            `max_new_tokens` (256), `aliases` (further names of labels), `separator` (of several labels in one
            record), `pattern` (that a good answer matches); all optional.
        dtype: `float32`, `bfloat16` or `float16`; `auto`: bfloat16 on a GPU, float32 on a CPU.
        engine: `transformers` on any device, or `vllm` on GPUs, in an image that has it.
        gpus_per_model: GPUs that share one model, for a model that one cannot hold.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        ModelError: The model cannot be loaded, or the adapter changes nothing.
        DataError: An input is not whole, or a benchmark's row is not of its form.
        ConfigError: An unknown option.
    """
    from mixtune.evaluate.evaluation import EvaluationInputs, EvaluationOutputs, run_evaluation
    from mixtune.storage import write_json

    inputs = EvaluationInputs(
        base_model=base_model,
        model_uri=model_uri,
        dtype=dtype,
        engine=engine,
        gpus_per_model=gpus_per_model,
        customer_path=customer.path,
        general_path=general.path,
        benchmarks=benchmarks,
        limit=limit,
        customer_options=customer_options,
        storage=storage,
    )
    outputs = EvaluationOutputs(
        samples_uri=samples.uri, samples_path=samples.path, report_path=report.path, summary_path=summary.path
    )
    result = run_evaluation(inputs, outputs)
    for name, value in result.scores.items():
        metrics.log_metric(name, value)
    confusion.log_confusion_matrix(result.labels, result.confusion)
    # KFP keeps these two as metadata; its local cache forgets a task of whose artifacts one has no file.
    write_json(metrics.path, result.scores)
    write_json(confusion.path, result.labels)


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def sweep_dial(
    base_model: str,
    customer: Input[Dataset],
    general: Input[Dataset],
    model_uri: str,
    dial: Output[Dataset],
    strengths: list = [],
    benchmarks: dict = {},
    limit: int = 0,
    customer_options: dict = {},
    dtype: str = "auto",
    engine: str = "transformers",
    gpus_per_model: int = 1,
    storage: dict = {},
):
    """Evaluate a tuned model at lower strengths, without training: what it forgets against what it gains.

    A LoRA adapter is scaled; whole weights are drawn towards the base's (WiSE-FT, Wortsman et al. 2022). Every
    strength is evaluated on the axes and by the options of `evaluate`; `compare` decides on each. A strength that
    cannot be evaluated is told, and fails nothing.

    Args:
        base_model: Folder, `s3://` prefix or `org/name@revision`, possibly with `#digest`.
        customer: Pools artifact of the customer's records.
        general: Pools artifact of the general records.
        model_uri: Folder or `s3://` prefix with an adapter or a whole model; of the `failed: ...` of a training nothing
            is evaluated.
        dial: The samples of every strength, for `compare`.
        strengths: Each above 0 (the base) and below 1 (as trained), such as `[0.5]`; empty: none.
        benchmarks: As for `evaluate`.
        limit: Items per axis at most; 0: all. As for `evaluate`.
        customer_options: As for `evaluate`.
        dtype: As for `evaluate`.
        engine: As for `evaluate`.
        gpus_per_model: As for `evaluate`.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        ConfigError: A strength out of range.
    """
    from mixtune.evaluate.evaluation import EvaluationInputs
    from mixtune.evaluate.sweeping import sweep

    inputs = EvaluationInputs(
        base_model=base_model,
        model_uri=model_uri,
        dtype=dtype,
        engine=engine,
        gpus_per_model=gpus_per_model,
        customer_path=customer.path,
        general_path=general.path,
        benchmarks=benchmarks,
        limit=limit,
        customer_options=customer_options,
        storage=storage,
    )
    sweep(inputs, strengths, dial.uri, dial.path)


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def judge(
    base: Input[Dataset],
    candidate: Input[Dataset],
    model: str,
    judgments: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
    url: str = "",
    key_path: str = "",
    axis: str = "customer",
    labels_uri: str = "",
    limit: int = 0,
    storage: dict = {},
):
    """Let a judge model say which of both models' answers it prefers, each pair asked in both orders.

    A judge weighs in `compare` only when it is calibrated: at least 100 human labels, and a lower 95 % bound of kappa
    of at least 0.4. Until then it is advisory and can neither pass nor fail a candidate.

    Args:
        base: Samples of the base model.
        candidate: Samples of the candidate.
        model: A local model (folder, `s3://` prefix, `org/name@revision`), or with `url` the model's name there.
        judgments: JSON with a preference per item and the calibration.
        report: One HTML page.
        metrics: Kappa and its bounds, and the shares of preferences.
        url: Base URL of an OpenAI-compatible server; empty: a local model.
        key_path: File with the server's key, as a mounted secret has it; empty: no key.
        axis: Whose generated answers are judged: `customer`, or a benchmark of IFEval's form.
        labels_uri: Pairs with human labels: `request`, `first`, `second`, `better` (first, second or tie) and possibly
            `reference`; empty: none.
        limit: Pairs at most, evenly over the items; 0: all.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        DataError: The axis has no generated answers, or both evaluations were not asked the same.
        ModelError: The judge cannot be reached or loaded.
    """
    from mixtune.evaluate.judge_step import JudgeInputs, JudgeOutputs, preferences, run_judging
    from mixtune.storage import write_json

    inputs = JudgeInputs(
        base_path=base.path,
        candidate_path=candidate.path,
        model=model,
        url=url,
        key_path=key_path,
        axis=axis,
        labels_uri=labels_uri,
        limit=limit,
        storage=storage,
    )
    result = run_judging(inputs, JudgeOutputs(judgments_path=judgments.path, report_path=report.path))
    shown = {**result["calibration"], **preferences(result)}
    for name, value in shown.items():
        metrics.log_metric(name, float(value))
    write_json(metrics.path, shown)


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def compare(
    base: Input[Dataset],
    candidate: Input[Dataset],
    comparison: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    shards: Input[Dataset] = None,
    judgments: Input[Dataset] = None,
    dial: Input[Dataset] = None,
    limits: dict = {},
    allow_overlap: bool = False,
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Compare a candidate with its base model, on the same items: pass, fail or inconclusive.

    A general axis passes when its loss is, with 95 % confidence, at most the allowed one. The customer's axis passes
    when there is, with 95 % confidence, a gain. The overall verdict is `pass` only if every general axis passes.

    Args:
        base: Samples of the base model.
        candidate: Samples of the candidate.
        comparison: JSON with the verdict, the axes and the identity of both models.
        report: One self-contained HTML page.
        summary: The same as Markdown.
        metrics: Differences by axis.
        shards: The shards that the candidate was trained on: its mix is logged, and evaluated items are looked for
            in it.
        judgments: What `judge` says of the two; it weighs only where it is calibrated.
        dial: The candidate at lower strengths, from `sweep_dial`: each gets a verdict of its own.
        limits: Allowed loss per axis over the defaults: 0.02 of MMLU accuracy, 0.05 of IFEval prompts, 0.02 relative
            for general NLL.
        allow_overlap: Go on although items of a benchmark are in the training data word for word.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The verdict: `pass`, `fail` or `inconclusive`; `failed` where the candidate's training left no model.

    Raises:
        DataError: The two were not asked the same items with the same prompts, or items of a benchmark are in the
            training data.
        ConfigError: An unknown axis or option.
    """
    from mixtune.evaluate.steps import CompareInputs, CompareOutputs, run_comparison

    inputs = CompareInputs(
        base_path=base.path,
        candidate_path=candidate.path,
        shards_path=getattr(shards, "path", ""),
        judgments_path=getattr(judgments, "path", ""),
        dial_path=getattr(dial, "path", ""),
        limits=limits,
        allow_overlap=allow_overlap,
        tracking=tracking,
        storage=storage,
    )
    outputs = CompareOutputs(comparison_path=comparison.path, report_path=report.path, summary_path=summary.path)
    result = run_comparison(inputs, outputs)
    for axis in result.axes:
        metrics.log_metric(axis.axis + "_difference", axis.difference)
    return result.verdict


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def rehearse(
    base_model: str,
    pool: Output[Dataset],
    summary: Output[Markdown],
    num_records: int = 2000,
    prompts_uri: str = "",
    out_uri: str = "",
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_prompt_tokens: int = 512,
    max_new_tokens: int = 1024,
    dtype: str = "auto",
    engine: str = "transformers",
    gpus_per_model: int = 1,
    seed: int = 42,
    storage: dict = {},
) -> str:
    """Make a general pool out of the base model alone, where no other data may be used: it asks itself, and answers.

    Users' turns are drawn from what the model's chat template writes before them, without any seed text, then answered.
    What is empty, cut at a limit, caught in a loop, broken, asked before, or holds a control token is dropped and
    counted. A conversation depends on its number and the seed, not on its batch; a task that was killed goes on.

    Args:
        base_model: Folder, `s3://` prefix or `org/name@revision`, possibly with `#digest`.
        pool: Manifest: counts by reason, digests of model and template, seed, options.
        summary: The counts and the first records.
        num_records: Records wanted; with `prompts_uri`, at most.
        prompts_uri: File or folder (JSONL, JSON, CSV or Parquet) with a column `prompt`, for a model that cannot ask;
            the answers are the model's in any case. Empty: the model asks itself.
        out_uri: Folder for `records.jsonl` and `manifest.json`, local or `s3://`; empty: beside the artifact.
        temperature: Of questions and answers, above 0; 1 is the model's own distribution.
        top_p: Above 0, at most 1: only the most probable tokens, which together have this probability.
        max_prompt_tokens: A question that is longer is dropped.
        max_new_tokens: An answer that is longer is dropped.
        dtype: `float32`, `bfloat16` or `float16`; `auto`: bfloat16 on a GPU, float32 on a CPU.
        engine: `transformers` on any device, or `vllm` on GPUs, in an image that has it.
        gpus_per_model: GPUs that share one model, for a model that one cannot hold.
        seed: Of every conversation.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        URI of the records, canonical chat JSONL: the `uri` of a general pool, or of a source of `sanitize`.

    Raises:
        ModelError: The model cannot be loaded, its chat template has no place for a user's turn, or too little of what
            it says can be used.
        DataError: A row of `prompts_uri` has no prompt.
    """
    from mixtune import storage as files
    from mixtune.evaluate.asking import Drawing
    from mixtune.evaluate.loading import ModelSource
    from mixtune.evaluate.rehearsing import RehearsalInputs, RehearsalOutputs, run_rehearsal

    files.use(storage)
    drawing = Drawing(
        temperature=temperature,
        top_p=top_p,
        max_prompt_tokens=int(max_prompt_tokens),
        max_new_tokens=int(max_new_tokens),
        seed=int(seed),
    )
    model = ModelSource(base_model=base_model, dtype=dtype, engine=engine, gpus_per_model=int(gpus_per_model))
    inputs = RehearsalInputs(model=model, drawing=drawing, num_records=int(num_records), prompts_uri=prompts_uri)
    folder = out_uri or files.data_uri(pool.uri, "pool")
    outputs = RehearsalOutputs(folder=folder, manifest_path=pool.path, summary_path=summary.path)
    return run_rehearsal(inputs, outputs)
