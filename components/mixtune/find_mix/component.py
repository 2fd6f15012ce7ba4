"""The components of a search: `plan_search`, `plan_proxies`, `fit_mix`, `weigh_mix`, `conclude_mix`."""

from typing import List, NamedTuple  # noqa: UP035

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def plan_search(find_options: dict = {}, evaluate_options: dict = {}) -> NamedTuple(
    "Plan", [("percents", list), ("evaluate_options", dict)]
):
    """Read the options of a search, before anything is computed.

    Args:
        find_options: `customer_data_percents` (shares of the short trainings), `proxy_share` (their length as a share
            of the full training's), `short_share` (how much shorter one of them is), `proxy_items` (items of an axis
            that they are evaluated on), `confidence` (chance of a pass that the chosen share needs); all optional.
        evaluate_options: Of the full evaluation.

    Returns:
        percents: Customer shares of the short trainings.
        evaluate_options: Of their evaluations.

    Raises:
        ConfigError: Options that cannot be.
    """
    from mixtune.settings.find_mix import read_find_settings

    settings = read_find_settings(find_options)
    return list(settings.customer_data_percents), settings.limit_items(evaluate_options)


@dsl.component(base_image=images.DATA, packages_to_install=[], install_kfp_package=False)
def plan_proxies(
    customer_epochs: float,
    base_model: str,
    weights: dict,
    evaluate_options: dict,
    seed: int = 42,
    find_options: dict = {},
    benchmarks: dict = {},
    limits: dict = {},
    mix_options: dict = {},
) -> list:
    """Plan the short trainings that a search learns from, called proxies.

    Args:
        customer_epochs: Passes over the customer pool of the full training.
        base_model: From `fingerprint`.
        weights: From `fingerprint`.
        evaluate_options: From `plan_search`.
        seed: Of the first proxy; the next ones count on.
        find_options: As for `plan_search`.
        benchmarks: From `fingerprint`.
        limits: From `fingerprint`.
        mix_options: From `fingerprint`.

    Returns:
        One object per proxy: `percent`, `epochs`, `seed`, and what all of them share.
    """
    from mixtune.find_mix.run import plan_proxies as plan
    from mixtune.settings.find_mix import read_find_settings

    shared = {"base_model": base_model, "weights": weights, "benchmarks": benchmarks, "limits": limits}
    shared = {**shared, "mix_options": mix_options, "evaluate_options": evaluate_options}
    return plan(read_find_settings(find_options), customer_epochs, seed, shared)


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def fit_mix(
    comparisons: Input[List[Artifact]],  # noqa: UP006
    base: Input[Dataset],
    search: Output[Artifact],
    customer_epochs: float = 1.0,
    find_options: dict = {},
    seed: int = 42,
    storage: dict = {},
) -> NamedTuple("Step", [("customer_data_percent", float), ("search_uri", str)]):
    """Fit a law of loss to every general axis, one of gain to the customer's, and choose a share.

    That is the least general share at which all axes are likely to pass in the full evaluation.

    Args:
        comparisons: The JSON of `compare`, one per proxy.
        base: The base model's full evaluation, from `evaluate`: it tells how many items the verdict will have.
        search: The laws' predictions at every share, and what they were fitted to.
        customer_epochs: Passes over the customer pool of the full training.
        find_options: As for `plan_search`.
        seed: Of the laws' draws.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        customer_data_percent: Of the full training.
        search_uri: Of the search so far.

    Raises:
        TrainingError: Fewer than three proxies have a model.
    """
    from mixtune import storage as files
    from mixtune.find_mix.run import begin
    from mixtune.settings.find_mix import read_find_settings

    files.configure_storage(storage)
    paths, settings = [comparison.path for comparison in comparisons], read_find_settings(find_options)
    step = begin(paths, base.path, settings, customer_epochs, seed, search.path)
    return step.percent, search.uri


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def weigh_mix(
    comparison: Input[Artifact],
    search_uri: str,
    search: Output[Artifact],
    seed: int = 42,
    storage: dict = {},
) -> NamedTuple("Step", [("action", str), ("customer_data_percent", float), ("search_uri", str)]):
    """Hold a full training against its prediction; where it did not pass, predict a second one with more general data.

    Args:
        comparison: The JSON of `compare`.
        search_uri: Of the search so far.
        search: The same with this training.
        seed: Of the laws' draws.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        action: `again` or `stop`; there are two full trainings at most.
        customer_data_percent: Of the next full training.
        search_uri: Of the search with this training.
    """
    from mixtune import storage as files
    from mixtune.find_mix.run import proceed

    files.configure_storage(storage)
    step = proceed(comparison.path, search_uri, seed, search.path)
    return step.action, step.percent, search.uri


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def conclude_mix(
    search_uri: str,
    grid: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    tracking: dict = {},
    storage: dict = {},
) -> NamedTuple("Choice", [("verdict", str), ("customer_data_percent", float)]):
    """Name the share to take, and say whether the predictions held.

    Args:
        search_uri: From the last `weigh_mix`.
        grid: The full trainings and the choice, for machines.
        report: Predicted curves of every axis with what was measured, and tables.
        summary: The tables as Markdown.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        verdict: `pass` where a full training passed, else `inconclusive` or `fail`.
        customer_data_percent: The share to take; -1 where none passed.
    """
    from mixtune import storage as files
    from mixtune.find_mix.run import conclude
    from mixtune.report.outputs import Outputs

    files.configure_storage(storage)
    outputs = Outputs(json_path=grid.path, html_path=report.path, markdown_path=summary.path)
    choice = conclude(search_uri, outputs, tracking)
    return choice.verdict, choice.recommended.percent if choice.recommended else -1.0
