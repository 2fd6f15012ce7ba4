"""The KFP component that chooses between two base models: `choose_model`."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def choose_model(
    first: Input[Dataset],
    other: Input[Dataset],
    first_model: str,
    other_model: str,
    choice: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    serve_options: dict = {},
    storage: dict = {},
) -> str:
    """Say which of two base models to take: the surely better one on the customer's records, else the cheaper one.

    Args:
        first: Samples of the first model, from `evaluate`.
        other: Samples of the other model, on the same pools and benchmarks.
        first_model: Its base model, with its digest.
        other_model: The other's.
        choice: JSON: every axis with its bounds, what each model costs to serve, and the choice.
        report: One HTML page.
        summary: The same as Markdown.
        serve_options: Of `ServeSettings`, for the price: `instance`, `max_length`, `num_sequences`, ...
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The model to take.

    Raises:
        DataError: The evaluations differ in more than the model, or have no customer's item in common.
    """
    from mixtune import storage as files
    from mixtune.artifacts.samples import read_samples
    from mixtune.artifacts.typed_json import write_artifact
    from mixtune.model_choice.choice_page import headline, write_choice
    from mixtune.model_choice.contest import hold_contest, price_model
    from mixtune.prices import read_prices
    from mixtune.settings.from_dict import from_dict
    from mixtune.settings.serving import ServeSettings

    files.configure_storage(storage)
    samples = (read_samples(first.path), read_samples(other.path))
    settings, prices = from_dict(ServeSettings, serve_options, "serve_options"), read_prices()
    priced = (
        price_model(first_model, samples[0], settings, prices),
        price_model(other_model, samples[1], settings, prices),
    )
    outcome = hold_contest(samples, priced)
    write_choice(outcome, report.path, summary.path)
    write_artifact(choice.path, outcome)
    print("choose_model:", ". ".join(headline(outcome)), flush=True)
    return outcome.chosen
