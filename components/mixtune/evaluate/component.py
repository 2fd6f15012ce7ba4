"""The shells of `evaluate`, `judge` and `compare`."""

from typing import List, NamedTuple  # noqa: UP035  KFP reads typing's

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
def choose_mix(
    comparisons: Input[List[Artifact]],  # noqa: UP006
    grid: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    tracking: dict = {},
    storage: dict = {},
) -> NamedTuple("Choice", [("verdict", str), ("customer_data_percent", float)]):
    """Lay several mixes side by side and name the one to take.

    That is the largest gain on the customer's records among the mixes whose verdict is pass. A mix whose training
    failed is listed with its reason; the others count.

    Args:
        comparisons: The JSON of `compare`, one per mix.
        grid: The same for machines: the choice, its reason, every point.
        report: Customer's score against each general score with intervals, and a table.
        summary: The table as Markdown.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        verdict: `pass` where a mix is recommended, else `fail`.
        customer_data_percent: The recommended mix; -1 where none passed.

    Raises:
        TrainingError: Not one mix could be trained.
        DataError: A comparison that does not say its mix.
    """
    from collections import namedtuple

    from mixtune import storage as files
    from mixtune.evaluate.grid import Outputs, report_grid

    files.use(storage)
    outputs = Outputs(grid_path=grid.path, report_path=report.path, summary_path=summary.path)
    choice = report_grid([comparison.path for comparison in comparisons], outputs, tracking)
    made = namedtuple("made", "verdict customer_data_percent")
    return made(choice.verdict, choice.number)


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def climb(
    comparison: Input[Artifact],
    model_uri: str,
    ladder: Output[Artifact],
    method: str = "lora",
    lora_rank: int = 16,
    lora_alpha: int = 32,
    earlier: str = "",
    customer_target: float = 0.0,
    sft_max_steps: int = 0,
    storage: dict = {},
) -> NamedTuple(
    "Step",
    [
        ("action", str),
        ("customer_data_percent", float),
        ("lora_rank", int),
        ("lora_alpha", int),
        ("ladder_uri", str),
    ],
):
    """Add a candidate to a ladder and say what comes next: at most two adapters, then at most one full fine-tuning.

    An adapter that forgets is followed by one on a smaller customer share, one that keeps everything and misses the
    target by one of four times the rank. Full fine-tuning follows only an adapter that kept everything, and only
    within its budget.

    Args:
        comparison: The JSON of `compare`.
        model_uri: The candidate.
        ladder: JSON of the candidates so far.
        method: How it was trained: `lora` or `sft`.
        lora_rank: Rank of its adapter.
        lora_alpha: Scaling of its adapter.
        earlier: `ladder_uri` of the rung before; empty: this is the first.
        customer_target: Score to reach on the customer's axis, in its own metric; 0: a certain gain is enough.
        sft_max_steps: Optimizer steps that full fine-tuning may take; 0: it is never tried.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        action: `lora`, `sft` or `stop`.
        customer_data_percent: Of the next candidate.
        lora_rank: Of the next candidate.
        lora_alpha: Of the next candidate.
        ladder_uri: Of the ladder so far.
    """
    from collections import namedtuple

    from mixtune import storage as files
    from mixtune.evaluate.ladder import climb as add

    files.use(storage)
    candidate = {"method": method, "lora_rank": int(lora_rank), "lora_alpha": int(lora_alpha), "model_uri": model_uri}
    budget = {"target": customer_target, "sft_max_steps": int(sft_max_steps)}
    step = add(comparison.path, candidate, earlier, ladder.path, budget)
    made = namedtuple("made", "action customer_data_percent lora_rank lora_alpha ladder_uri")
    return made(step.action, step.percent, step.lora_rank, step.lora_alpha, ladder.uri)


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def choose_rung(
    ladder_uri: str,
    ladder: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    tracking: dict = {},
    storage: dict = {},
) -> NamedTuple("Choice", [("verdict", str), ("model_uri", str)]):
    """Lay the candidates of a ladder side by side and name the one to take.

    That is the largest gain on the customer's records among the candidates whose verdict is pass.

    Args:
        ladder_uri: From the last `climb`.
        ladder: The choice, its reason and every rung, for machines.
        report: Customer's score against each general score with intervals, and a table.
        summary: The table as Markdown.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        verdict: `pass` where a candidate is recommended, else `inconclusive` if one was, else `fail`.
        model_uri: The recommended candidate; empty where none passed.

    Raises:
        TrainingError: Not one candidate could be trained.
    """
    from collections import namedtuple

    from mixtune import storage as files
    from mixtune.evaluate.grid import Outputs
    from mixtune.evaluate.ladder import report_ladder

    files.use(storage)
    outputs = Outputs(grid_path=ladder.path, report_path=report.path, summary_path=summary.path)
    verdict, best = report_ladder(ladder_uri, outputs, tracking)
    made = namedtuple("made", "verdict model_uri")
    return made(verdict, best.model_uri if best else "")


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def go_on(action: str, customer_data_percent: float, ladder_uri: str) -> NamedTuple(
    "Step", [("action", str), ("customer_data_percent", float), ("ladder_uri", str)]
):
    """Hand on what one of two branches said, so that a further branch can hang on it.

    Args:
        action: What comes next.
        customer_data_percent: Of the next candidate.
        ladder_uri: The ladder so far.

    Returns:
        action: As it came in.
        customer_data_percent: As it came in.
        ladder_uri: As it came in.
    """
    from collections import namedtuple

    made = namedtuple("made", "action customer_data_percent ladder_uri")
    return made(action, customer_data_percent, ladder_uri)


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def register(
    comparison: Input[Artifact],
    model_uri: str,
    base_model: str,
    model_name: str,
    card: Output[Markdown],
    licence: str = "",
    force: bool = False,
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Put a candidate that passed into MLflow's model registry, with a card: verdicts, mix, versions, how to load it.

    Args:
        comparison: The JSON of `compare`.
        model_uri: The compared model, with its digest, as the training returned it.
        base_model: What it was tuned from.
        model_name: Of the registered model.
        card: The model card.
        licence: Of the base model; empty: as its files say.
        force: Register it although its verdict is not `pass`; the card and the version's tags say so.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The version in the registry; the same model keeps its version.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced, or there is no MLflow.
        DataError: The comparison is of another model.
    """
    from mixtune import storage as files
    from mixtune.evaluate.registering import Candidate, register_model

    files.use(storage)
    candidate = Candidate(
        comparison_path=comparison.path,
        model_uri=model_uri,
        base_model=base_model,
        name=model_name,
        licence=licence,
        force=force,
    )
    return register_model(candidate, card.path, tracking)
