"""A model version in MLflow's registry."""

from mixtune.errors import ClusterError, reason
from mixtune.registry.registry_entry import Entry

DESCRIPTION_CHARACTERS = 5000
"""That MLflow's databases keep of a version's description; all but SQLite refuse more."""
_CUT = "\n\n... This is not all: the output `card` of the component `register` has the whole card.\n"


def find_or_create_version(entry: Entry, uri: str) -> str:
    """Return the model's version in MLflow: a new one, or the one that it has, with what was proved last.

    Raises:
        ClusterError: MLflow does not answer, or refuses.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _find_or_create(entry, uri)
    except MlflowException as error:
        ways = "check the tracking uri or MLFLOW_TRACKING_URI, and the credentials for it"
        raise ClusterError(f"{uri}: MLflow's registry did not take {entry.name} ({reason(error)}); {ways}") from error


def _find_or_create(entry: Entry, uri: str) -> str:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    try:
        client.create_registered_model(entry.name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    quote = '"' if "'" in entry.name else "'"
    for version in client.search_model_versions(f"name = {quote}{entry.name}{quote}"):
        if version.tags.get("model_digest") == entry.digest:
            for key, value in entry.properties.items():
                client.set_model_version_tag(entry.name, str(version.version), key, value)
            client.update_model_version(entry.name, str(version.version), _describe(entry.card))
            return str(version.version)
    tags = dict(entry.properties)
    description = _describe(entry.card)
    return str(client.create_model_version(entry.name, entry.uri, tags=tags, description=description).version)


def _describe(card: str) -> str:
    """Return as many whole lines of a card as fit a description, and where the rest is."""
    if len(card) <= DESCRIPTION_CHARACTERS:
        return card
    return card[: DESCRIPTION_CHARACTERS - len(_CUT)].rpartition("\n")[0] + _CUT
