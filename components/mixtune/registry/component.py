"""The KFP component that puts a candidate into a model registry: `register`."""

from kfp import dsl
from kfp.dsl import Artifact, Input, Markdown, Output

from mixtune import images


@dsl.component(base_image=images.EVALUATE, packages_to_install=[], install_kfp_package=False)
def register(
    comparison: Input[Artifact],
    model_uri: str,
    base_model: str,
    model_name: str,
    card: Output[Markdown],
    licence: str = "",
    force: bool = False,
    registry: dict = {},
    tracking: dict = {},
    storage: dict = {},
) -> str:
    """Put a candidate that passed into MLflow's registry or Kubeflow's, with a card: verdicts, mix, terms, loading.

    The version holds the verdict, every axis's scores, the mix and its receipt, base model and licence, and the digest
    of the files, which are checked first. The same model keeps its version.

    Args:
        comparison: The JSON of `compare`, `choose_mix` or `choose_rung`.
        model_uri: The compared model, with its digest, as the training returned it.
        base_model: What it was tuned from.
        model_name: Of the registered model.
        card: The model card.
        licence: Of the base model; empty: as its files say.
        force: Register it although its verdict is not `pass`; the card and the version's tags say so.
        registry: `kind` (`mlflow` or `kubeflow`), `url`, `token_file`, `owner`; empty: MLflow's.
        tracking: MLflow: `uri`, `experiment`, `project`, `hyperpod`, `tags`; all optional.
        storage: `kms_key_id`, `endpoint_url`, `region`; all optional.

    Returns:
        The version in the registry, in Kubeflow's its id; the same model keeps its version.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced, or there is no registry.
        DataError: The comparison is of another model, or the model's files changed since.
        ClusterError: Kubeflow's registry does not answer, or refuses.
    """
    from mixtune import storage as files
    from mixtune.registry.registration import Registration, register_model
    from mixtune.settings.from_dict import from_dict
    from mixtune.settings.model_registry import RegistrySettings
    from mixtune.tracking import Tracking

    files.configure_storage(storage)
    request = Registration(
        comparison_path=comparison.path,
        model_uri=model_uri,
        base_model=base_model,
        name=model_name,
        licence=licence,
        force=force,
    )
    settings = from_dict(RegistrySettings, registry, "registry")
    return register_model(request, card.path, settings, Tracking.from_options(tracking))
