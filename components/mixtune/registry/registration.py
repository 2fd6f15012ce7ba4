"""A candidate that passed, in a model registry, with a card that says what it is and what was proved."""

from dataclasses import dataclass

from mixtune import models
from mixtune.artifacts.model import BaseModel
from mixtune.artifacts.run_report import read_proof
from mixtune.errors import ConfigError
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
    """A run's report: a comparison, or a grid or ladder with the model among its candidates."""
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
    """Write the model's card, make a version of it in the registry, and return that; the same model keeps its version.

    Raises:
        ConfigError: The verdict is not `pass` and nothing is forced, there is no tracking URI, or the registry does not
            take the name.
        DataError: The comparison is of another model, or the model's files changed since.
        ClusterError: The registry does not answer, or refuses.
    """
    if settings.kind != KUBEFLOW and not tracking.uri:
        ways = "give tracking uri, set MLFLOW_TRACKING_URI, or take registry kind=kubeflow"
        raise ConfigError(f"{request.name}: a registry needs MLflow; {ways}")
    settings.check_name(request.name)
    comparison = read_proof(request.comparison_path, request.model_uri, "is registered", force=request.force)
    licence = request.licence or find_licence(request.base_model)
    subject = CardSubject(
        name=request.name,
        model_uri=request.model_uri,
        base_model=request.base_model,
        licence=licence,
        is_composite=BaseModel.read(models.fetch_model(request.base_model, weights=False)).is_composite,
    )
    card = write_card(subject, comparison)
    pages.write_text(card_path, card)
    terms = {"base_model": request.base_model, "licence": licence}
    version = _register(make_entry(request.name, request.model_uri, comparison, card, terms), settings, tracking)
    print(f"register: {request.name} version {version}, {comparison.verdict}", flush=True)
    return version


def _register(entry: Entry, settings: RegistrySettings, tracking: Tracking) -> str:
    if settings.kind == KUBEFLOW:
        return kubeflow_registry.find_or_create_version(entry, settings)
    return mlflow_registry.find_or_create_version(entry, tracking.uri)
