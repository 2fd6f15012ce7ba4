"""The components `compare`, and `judge`, whose answers it can weigh."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Output

from mixtune import images


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
    chat_template_uri: str = "",
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
        axis: Whose generated answers are judged: `customer`, or a benchmark such as `ifeval` or `refusals`.
        labels_uri: Pairs with human labels: `request`, `first`, `second`, `better` (first, second or tie) and possibly
            `reference`; empty: none.
        limit: Pairs at most, evenly over the items; 0: all.
        chat_template_uri: File with a chat template in place of the local model's own.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Raises:
        DataError: The axis has no generated answers, or both evaluations were not asked the same.
        ModelError: The judge cannot be reached or loaded.
    """
    from mixtune.compare.judge.run import JudgeInputs, calibration_metrics, run_judging, share_preferences
    from mixtune.report.metrics_artifact import write_metrics
    from mixtune.report.outputs import Outputs

    inputs = JudgeInputs(
        base_path=base.path,
        candidate_path=candidate.path,
        model=model,
        url=url,
        key_path=key_path,
        axis=axis,
        labels_uri=labels_uri,
        limit=limit,
        chat_template_uri=chat_template_uri,
        storage=storage,
    )
    outcome = run_judging(inputs, Outputs(json_path=judgments.path, html_path=report.path))
    write_metrics(metrics, {**calibration_metrics(outcome.calibration), **share_preferences(outcome)})


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
    earlier: Input[Dataset] = None,
    limits: dict = {},
    allow_overlap: bool = False,
    same: bool = False,
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
        earlier: Samples of the trained model that the candidate was restored from, to be shown beside it; `dial` is
            then of that model.
        limits: Allowed loss per axis over the defaults: 0.02 of MMLU accuracy, 0.05 of IFEval prompts, 0.02 relative
            for general NLL, 0.03 of tool calls, refusals, thinking modes, MATH and long context.
        allow_overlap: Go on although items of a benchmark are in the training data word for word.
        same: `base` and `candidate` are one tuned model in two forms (as trained; merged, quantized or served): it
            passes when, on every axis, both are with 95 % confidence the same within the limits (else 0.02).
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The verdict: `pass`, `fail` or `inconclusive`; `failed` where the candidate's training left no model.

    Raises:
        DataError: The two were not asked the same items with the same prompts, or items of a benchmark are in the
            training data.
        ConfigError: An unknown axis or option.
    """
    from mixtune.compare.run import CompareInputs, run_comparison
    from mixtune.report.metrics_artifact import write_metrics
    from mixtune.report.outputs import Outputs

    inputs = CompareInputs(
        base_path=base.path,
        candidate_path=candidate.path,
        shards_path=getattr(shards, "path", ""),
        judgments_path=getattr(judgments, "path", ""),
        dial_path=getattr(dial, "path", ""),
        earlier_path=getattr(earlier, "path", ""),
        limits=limits,
        allow_overlap=allow_overlap,
        same=same,
        tracking=tracking,
        storage=storage,
    )
    outputs = Outputs(json_path=comparison.path, html_path=report.path, markdown_path=summary.path)
    outcome = run_comparison(inputs, outputs)
    write_metrics(metrics, {axis.axis + "_difference": axis.measure.change.difference for axis in outcome.axes})
    return outcome.verdict
