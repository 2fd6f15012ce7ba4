"""A candidate that passed, in a model registry, with a card that says what it is and what was proved."""

from dataclasses import dataclass

from mixtune import storage
from mixtune.artifacts.comparison import PASS, Comparison
from mixtune.artifacts.typed_json import read_artifact
from mixtune.errors import ConfigError, DataError
from mixtune.registry import kubeflow_registry, mlflow_registry
from mixtune.registry.model_card import CardSubject, find_licence, write_card
from mixtune.registry.registry_entry import Entry, make_entry
from mixtune.report import pages
from mixtune.settings.model_registry import KUBEFLOW, RegistrySettings
from mixtune.tracking import Tracking


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A request to register a model."""

    comparison_path: str
    model_uri: str
    """The compared model, with its digest."""
    base_model: str
    name: str
    """Of the registered model."""
    licence: str = ""
    """Of the base model; empty: as its files say."""
    force: bool = False
    """Register it although it did not pass; the card and the version's tags say so."""


def register_model(request: Registration, card_path: str, settings: RegistrySettings, tracking: Tracking) -> str:
    """Write the model's card and make a version of it in the registry; the same model keeps its version.

    Args:
        request: What is to be registered.
        card_path: Where the card goes.
        settings: The registry.
        tracking: Where MLflow is.

    Returns:
        The version.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced, or there is no tracking URI.
        DataError: The comparison is of another model, or the model's files changed since.
        ClusterError: Kubeflow's registry does not answer, or refuses.
    """
    if settings.kind != KUBEFLOW and not tracking.uri:
        raise ConfigError(
            f"{request.name}: a registry needs MLflow; give tracking uri, set MLFLOW_TRACKING_URI, "
            "or take registry kind=kubeflow"
        )
    comparison = read_proof(request)
    licence = request.licence or find_licence(request.base_model)
    subject = CardSubject(
        name=request.name, model_uri=request.model_uri, base_model=request.base_model, licence=licence
    )
    card = write_card(subject, comparison)
    pages.write_text(card_path, card)
    terms = {"base_model": request.base_model, "licence": licence}
    version = _register(make_entry(request.name, request.model_uri, comparison, card, terms), settings, tracking)
    print(f"register: {request.name} version {version}, {comparison.verdict}", flush=True)
    return version


def read_proof(request: Registration) -> Comparison:
    """Return the comparison, once it is sure that it is of this model as it lies there, and that the model may go on.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced.
        DataError: The comparison is of another model, or the model's files changed since.
    """
    comparison = read_artifact(Comparison, request.comparison_path)
    digest = storage.split_fingerprint(request.model_uri)[1]
    compared = comparison.identity["candidate"].model
    if digest != compared:
        raise DataError(f"{request.model_uri}: the comparison is of model {compared}; compare this one first")
    if comparison.verdict != PASS and not request.force:
        failed = [axis.axis for axis in comparison.axes if axis.verdict != PASS]
        raise ConfigError(
            f"{request.name}: the verdict is {comparison.verdict} ({', '.join(failed)}), only a model that passed "
            "is registered; force=True registers it all the same, and says so"
        )
    storage.check_fingerprint(request.model_uri)
    return comparison


def _register(entry: Entry, settings: RegistrySettings, tracking: Tracking) -> str:
    if settings.kind == KUBEFLOW:
        return kubeflow_registry.find_or_create_version(entry, settings)
    return mlflow_registry.find_or_create_version(entry, tracking.uri)
